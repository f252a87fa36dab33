"""The pages name files and folders that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
PAGES = [*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")]
ROOMS = "dags|plugins|pipelines|expectations|shops|local|benchmarks|tests|docs|scripts"
PATH = re.compile(rf"(?:`|^)((?:{ROOMS})/[\w./*-]*)(?=[`\s])", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_what_a_page_names_is_there(page: Path) -> None:
    named = PATH.findall(page.read_text(encoding="utf-8"))
    assert [path for path in named if not any(PROJECT.glob(path))] == []


def test_the_tree_of_the_architecture_has_every_room() -> None:
    named = set(PATH.findall((PROJECT / "docs" / "architecture.md").read_text(encoding="utf-8")))
    rooms = {f"pipelines/{each.parent.name}/" for each in PROJECT.glob("pipelines/*/__init__.py")}
    assert rooms <= named
