"""`docs/errors.md` lists every error of the code, in its own words."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
SECTIONS = {"TransientError": "## Try again", "PermanentError": "## A person has to act"}


def rows(base: str) -> list[str]:
    """The table's rows of all errors of one kind, by name."""
    found = [
        f"| `{each.name}` | {' '.join((ast.get_docstring(each) or '').split())} |"
        for path in (PROJECT / "pipelines").rglob("*.py")
        for each in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(each, ast.ClassDef) and base in map(ast.unparse, each.bases)
    ]
    return sorted(found)


@pytest.mark.parametrize("base", SECTIONS)
def test_the_page_has_every_error_in_the_codes_own_words(base: str) -> None:
    page = (PROJECT / "docs" / "errors.md").read_text(encoding="utf-8")
    section = page.split(SECTIONS[base])[1].split("\n## ")[0]
    listed = [line for line in section.splitlines() if line.startswith("| `")]
    assert listed == rows(base), "copy the rows that differ into docs/errors.md"


def test_every_error_is_of_one_of_the_two_kinds() -> None:
    errors = (PROJECT / "pipelines" / "shared" / "errors.py").read_text(encoding="utf-8")
    bases = [
        ast.unparse(b)
        for c in ast.parse(errors).body
        if isinstance(c, ast.ClassDef)
        for b in c.bases
    ]
    assert set(bases) == {"Exception", "FreshrankError", *SECTIONS}
    assert bases.count("FreshrankError") == len(SECTIONS)
