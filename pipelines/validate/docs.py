"""Great Expectations' Data Docs of one table and interval: a page for people."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

from pipelines.shared.intervals import Interval

# The logo's address carries the time of rendering and would tell its host of every reader.
_LOGO = re.compile(r'src="https://great-expectations-web-assets[^"]*"')
_RANDOM_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def data_docs(root: Path, table: str, interval: Interval) -> Path:
    """The path of the page of a table and interval, in the shop's folder of the lake."""
    return root / "validation" / table / f"{interval.key}.html"


def write_data_docs(path: Path, interval: Interval, result: Any) -> None:
    """Render a validation result; the same result gives the same page.

    The page names the interval where Great Expectations would name the time of the run, and counts
    its elements where it would draw random ids.
    """
    from great_expectations.core.run_identifier import RunIdentifier
    from great_expectations.render.renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    result.meta["run_id"] = RunIdentifier(run_name=str(interval), run_time=interval.end)
    result.meta["validation_time"] = interval.end
    result.meta.pop("batch_markers", None)
    page = DefaultJinjaPageView().render(
        ValidationResultsPageRenderer(run_info_at_end=True).render(result)
    )
    page = _LOGO.sub('src="data:,"', page)
    ids: dict[str, str] = {}
    numbers = itertools.count()
    page = _RANDOM_ID.sub(lambda match: ids.setdefault(match[0], f"element-{next(numbers)}"), page)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(page, encoding="utf-8")
    part.replace(path)
