"""The page of settings: as it is committed, whole, and with nothing left unexplained."""

from __future__ import annotations

from pathlib import Path

import yaml

from pipelines.inspect.settings_page import page

PROJECT = Path(__file__).resolve().parents[2]


def test_the_committed_page_is_the_generated_one() -> None:
    committed = (PROJECT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert committed == page(), "run `python -m pipelines settings > docs/settings.md`"


def test_every_setting_has_a_meaning() -> None:
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    assert len(rows) > 100
    assert [row for row in rows if row.endswith("|  |")] == []


def test_every_key_of_a_whole_shop_is_on_the_page() -> None:
    text = page()
    declared = yaml.safe_load((PROJECT / "tests/declared/tiny/shop.yaml").read_text())
    of_events = {key for event in declared["events"] for key in event}
    for key in {*declared, *of_events, *declared["surfaces"][0], "holdout_days"}:
        assert f"| `{key}` |" in text


def test_defaults_and_bounds_are_those_of_the_declaration() -> None:
    rows = page().splitlines()
    assert any(row.startswith("| `holdout_days` | number, > 0 | `3.0` |") for row in rows)
    assert any(row.startswith("| `grade` | integer, ≥ 1, ≤ 10 | required |") for row in rows)
    assert any(row.startswith("| `FRESHRANK_LAKE` | text | required |") for row in rows)
