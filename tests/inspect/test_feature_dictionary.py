"""What a feature is: the committed dictionary, families, and the counters that a feature reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from pipelines.cli.app import app
from pipelines.features import catalogue
from pipelines.features.state.storage import Layout
from pipelines.inspect import feature_dictionary
from pipelines.inspect.feature_dictionary import UnknownFeature
from pipelines.shared.declaration import load_shop
from pipelines.shared.settings import PROJECT

DECLARED = PROJECT / "tests/declared"
SHOP = load_shop("completejourney", PROJECT / "shops")


def test_the_committed_dictionary_is_the_generated_one() -> None:
    committed = (PROJECT / "docs" / "features.md").read_text(encoding="utf-8")
    assert committed == feature_dictionary.dictionary(SHOP), (
        "run `python -m pipelines features list --markdown > docs/features.md`"
    )


@pytest.mark.parametrize(
    ("name", "shops"), [("completejourney", PROJECT / "shops"), ("tiny", DECLARED)]
)
def test_every_feature_is_in_its_family_once_and_reads_counters(name: str, shops: Path) -> None:
    shop = load_shop(name, shops)
    families = feature_dictionary.families(shop)
    names = [each.name for members in families.values() for each in members]
    assert sorted(names) == sorted(each.name for each in catalogue.catalogue(Layout(shop)))
    for family, members in families.items():
        assert {each.family for each in members} == {family}
        assert all(feature_dictionary.counters_of(each) for each in members)


def test_counters_are_those_that_the_expression_reads() -> None:
    gap = feature_dictionary.feature(SHOP, "pair_gap_days")
    assert set(feature_dictionary.counters_of(gap)) == {"si_first", "si_last", "si_orders"}


def test_an_unknown_feature_names_the_nearest() -> None:
    with pytest.raises(UnknownFeature, match="no feature 'pair_cycel'; the nearest are pair_cycle"):
        feature_dictionary.feature(SHOP, "pair_cycel")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`python -m pipelines features` with an installation that has no lake yet."""
    monkeypatch.setenv("FRESHRANK_LAKE", "/nowhere")
    monkeypatch.setenv("FRESHRANK_LEDGER_URL", "sqlite://")
    monkeypatch.setenv("FRESHRANK_MLFLOW_URI", "http://127.0.0.1:9")
    return lambda *arguments: CliRunner().invoke(app, ["features", *arguments])


def test_list_shows_every_feature(command: Callable[..., Result]) -> None:
    shown = command("list")
    assert shown.exit_code == 0, shown.output
    assert all(each.name in shown.output for each in catalogue.catalogue(Layout(SHOP)))


def test_list_as_markdown_is_the_dictionary(command: Callable[..., Result]) -> None:
    assert command("list", "--markdown").output == feature_dictionary.dictionary(SHOP)


def test_describe_names_what_it_reads(command: Callable[..., Result]) -> None:
    shown = command("describe", "pair_cycle")
    assert shown.exit_code == 0, shown.output
    assert "shopper × item" in shown.output
    assert "si_last" in shown.output
    unknown = command("describe", "pair_cycel")
    assert unknown.exit_code == 1
    assert "pair_cycle" in unknown.output
