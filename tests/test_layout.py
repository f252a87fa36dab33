"""The house stays walkable: no crowded folder, no module in which a second idea hides."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

PROJECT = Path(__file__).parents[1]
PRODUCT = ("benchmarks", "dags", "local", "pipelines", "plugins", "shops")
A_LIST = {"pipelines/features/catalogue.py"}
"""Lists of declarations may be long."""


def modules() -> list[Path]:
    return [
        path.relative_to(PROJECT)
        for top in PRODUCT
        for path in (PROJECT / top).rglob("*.py")
        if path.name != "__init__.py"
    ]


def test_a_folder_has_a_dozen_modules_at_most() -> None:
    crowded = {
        str(folder): count
        for folder, count in Counter(path.parent for path in modules()).items()
        if count > 12
    }
    assert not crowded, "put what belongs together into a folder of its own"


def test_a_module_has_400_lines_at_most() -> None:
    lines = {
        str(path): len((PROJECT / path).read_text(encoding="utf-8").splitlines())
        for path in modules()
    }
    assert {name for name, count in lines.items() if count > 400} <= A_LIST, "split the ideas"
