"""Settings are read at the edge; a wrong one names its variable; secrets do not show."""

import pytest

from pipelines.shared.errors import SettingsError
from pipelines.shared.settings import load_settings


@pytest.fixture
def environment(monkeypatch):
    monkeypatch.setenv("FRESHRANK_LAKE", "/somewhere")
    monkeypatch.setenv("FRESHRANK_LEDGER_URL", "sqlite://")
    monkeypatch.setenv("FRESHRANK_MLFLOW_URI", "http://127.0.0.1:5000")
    monkeypatch.setenv("FRESHRANK_CONNECTIONS__ACME", "postgresql://u:hidden@h/d")
    return monkeypatch


def test_a_connection_is_found_by_its_name(environment):
    assert load_settings().connection("acme") == "postgresql://u:hidden@h/d"


def test_a_missing_setting_names_its_variable(environment):
    environment.delenv("FRESHRANK_LAKE")
    with pytest.raises(SettingsError, match="FRESHRANK_LAKE: Field required"):
        load_settings()


def test_a_missing_connection_names_both_ways_to_give_it(environment):
    with pytest.raises(
        SettingsError, match=r"FRESHRANK_CONNECTIONS__OTHER .*Airflow connection `freshrank_other`"
    ):
        load_settings().connection("other")


def test_secrets_do_not_show(environment):
    assert "hidden" not in repr(load_settings())
