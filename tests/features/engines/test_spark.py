"""Spark with two executor processes makes the rows that DuckDB makes, of the same lake."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.validated_lake import ValidatedLake, of_step, real_log
from pipelines import features
from pipelines.features.engines import engine
from pipelines.features.engines.spark import mebibytes
from pipelines.shared import columns
from pipelines.shared.errors import SettingsError
from pipelines.shared.settings import Settings, load_settings
from tests.features.small_logs import Web

WEEKS = 4
SHARE = 0.01
LAST = WEEKS - 1
KEYS = (columns.GROUP, columns.SHOPPER, columns.ITEM, columns.LABEL)
MASTER = "local-cluster[2,1,1024]"
"""Two executors of a process each, with a core and 1024 MiB each."""


def _settings(tmp_path: Path, **values: object) -> Settings:
    own = {"lake": str(tmp_path), "ledger_url": "sqlite://", "mlflow_uri": "sqlite://"}
    return load_settings(**own, engine="spark", **values)


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Spark listens on loopback alone; its short-lived processes compile little."""
    if find_spec("pyspark") is None:
        pytest.skip("no pyspark: pip install -r requirements-scale.txt")
    if shutil.which("java") is None:
        pytest.skip("no java: apt-get install default-jre-headless")
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
    return


@pytest.fixture
def engines(tmp_path: Path) -> dict[str, ValidatedLake]:
    """Two lakes with the same first weeks, whose last step is validated and not folded."""
    first = ValidatedLake.at(tmp_path / "duckdb", "completejourney")
    log = real_log(WEEKS, SHARE)
    for step in range(LAST):
        first.validated(step, of_step(log, step))
    features.run(first.run(0, LAST - 1))
    first.validated(LAST, of_step(log, LAST))
    shutil.copytree(tmp_path / "duckdb", tmp_path / "spark")
    second = ValidatedLake.at(
        tmp_path / "spark", "completejourney",
        engine="spark", spark_master=MASTER, memory_limit="1GB", spill=tmp_path / "spill",
    )  # fmt: skip
    return {"duckdb": first, "spark": second}


@pytest.mark.slow
@pytest.mark.services
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("loopback")
def test_both_engines_make_the_same_rows(engines: dict[str, ValidatedLake], tmp_path: Path) -> None:
    for shelf in engines.values():
        features.run(shelf.run(LAST))
    assert list((tmp_path / "spill").iterdir()) == [], "the spill folder is left empty"

    state = {name: _state(shelf) for name, shelf in engines.items()}
    assert state["spark"] == state["duckdb"]
    one, other = (_rows(shelf) for shelf in engines.values())
    assert one.num_rows > 1000
    _same(one, other)


@pytest.mark.slow
@pytest.mark.services
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("loopback")
def test_logged_lists_and_serving_are_the_same_to_the_bit(tmp_path: Path) -> None:
    """A few lists of a shop with text ids, on a master that is one process."""
    results = []
    for name in ("duckdb", "spark"):
        (tmp_path / name).mkdir()
        web = Web(tmp_path / name)
        web.act(0.5, "0", "purchase", "u", "a")
        web.act(0.6, "1", "cart", "v", "b")
        web.show(2, "first", "u", "cab")
        web.act(2.2, "2", "purchase", "u", "a")
        web.show(4, "taken back", "v", "a")
        web.add("shown", 4.5, "delete", list_id="taken back", sku="a")
        web.show(8, "second", "u", "bd")
        web.act(8.1, "3", "view", "u", "d")
        web.validate(0, 1)
        own = {"engine": name, "spark_master": "local[2]", "memory_limit": "1GB"}
        shelf = replace(web.shelf, settings=web.shelf.settings.model_copy(update=own))
        results.append((features.run(shelf.run(0, 1)), features.serve(shelf.run(0, 1))))
    assert results[0][0].groups == 2
    assert results[0] == results[1]


def _rows(shelf: ValidatedLake) -> pa.Table:
    run = shelf.run(LAST)
    return run.lake.read("groups/basket", [run.interval]).sort_by(
        [(columns.GROUP, "ascending"), (columns.ITEM, "ascending")]
    )


def _state(shelf: ValidatedLake) -> dict[str, pa.Table]:
    run = shelf.run(LAST)
    orders = {
        "group_index/basket": [columns.GROUP],
        "state/events": ["event_key", columns.POSITION],
        "state/items": [columns.ITEM],
        "state/periods": ["period_key"],
        "state/shoppers": [columns.SHOPPER],
        "state/vocabulary": ["feature", "code"],
    }
    return {
        table: run.lake.read(table, [run.interval]).sort_by(
            [(name, "ascending") for name in order]
        )
        for table, order in orders.items()
    }  # fmt: skip


def _same(one: pa.Table, other: pa.Table) -> None:
    assert one.schema == other.schema
    for name in one.column_names:
        if name in KEYS or not pa.types.is_floating(one[name].type):
            assert one[name].equals(other[name]), name
        else:
            assert one[name].is_null().equals(other[name].is_null()), name
            np.testing.assert_allclose(
                one[name].drop_null(), other[name].drop_null(), rtol=1e-5, atol=1e-6, err_msg=name
            )


def test_without_java_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyspark", reason="the package comes first")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with (
        pytest.raises(SettingsError, match=r"no java in .*install Java 17"),
        engine(_settings(tmp_path)),
    ):
        pass


def test_without_pyspark_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pyspark.errors", "pyspark.sql"):
        monkeypatch.setitem(sys.modules, name, None)
    with (
        pytest.raises(SettingsError, match=r"requirements-scale\.txt"),
        engine(_settings(tmp_path)),
    ):
        pass


def test_an_engine_that_is_none_is_a_wrong_setting(tmp_path: Path) -> None:
    settings = _settings(tmp_path).model_dump() | {"engine": "abacus"}
    with pytest.raises(SettingsError, match=r"FRESHRANK_ENGINE: .*'duckdb' or 'spark'"):
        load_settings(**settings)


@pytest.mark.parametrize(("limit", "mib"), [("4GB", 3814), ("1GB", 953), ("512MB", 488)])
def test_the_memory_limit_is_the_same_on_both(limit: str, mib: int) -> None:
    assert mebibytes(limit) == mib
