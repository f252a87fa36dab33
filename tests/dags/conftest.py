"""Airflow with a home of its own and no database: the graphs are only read."""

import os
import tempfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="freshrank-airflow-"))
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"] = "True"
os.environ["AIRFLOW__CORE__PLUGINS_FOLDER"] = str(PROJECT / "plugins")


@pytest.fixture(scope="session")
def dags():
    """The project's DAGs by id, and what could not be imported."""
    pytest.importorskip("airflow", reason="install apache-airflow (`make setup`)")
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_folder=str(PROJECT / "dags"))
    assert bag.import_errors == {}
    return bag.dags
