"""Great Expectations' Data Docs of one table and interval: a page for people."""

from __future__ import annotations

import html
import itertools
import re
from pathlib import Path
from typing import Any

from pipelines.shared.intervals import Interval

_LEFT_OUT = re.compile(
    r'<script.*?</script>|<link\s[^>]*>|<img\s[^>]*src="https?:[^>]*>|<footer>.*?</footer>'
    r'|<a href="\.\./[^>]*>(?=.*?</a>)',
    re.DOTALL,
)
"""What Great Expectations loads from six other hosts, which would learn of every reader; scripts,
which a value might bring too; links to pages that are not made."""
_HEAD = """<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<style>
body {font: 15px/1.5 sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em}
table {border-collapse: collapse; margin: .5em 0}
td, th {border: 1px solid #ccc; padding: .2em .6em; text-align: left; vertical-align: top}
td {overflow-wrap: anywhere}
th * {word-break: normal !important}
.breadcrumb {list-style: none; padding: 0; font-weight: bold}
.breadcrumb-item:first-child {display: none}
.sticky > .card:first-of-type {display: none}
.fa-times::before {color: #b00; content: "✗"}
.fa-check-circle::before {color: #080; content: "✓"}
.fa-exclamation-triangle::before {color: #a60; content: "!"}
</style>"""
"""Nothing is loaded and no script runs, whatever a value holds. The filter is a script's."""
_LONGEST = 200
"""Characters of a value that a page shows."""
_RANDOM_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def data_docs(root: Path, table: str, interval: Interval) -> Path:
    """The path of the page of a table and interval, in the shop's folder of the lake."""
    return root / "validation" / table / f"{interval.key}.html"


def write_data_docs(path: Path, interval: Interval, result: Any) -> None:
    """Render a validation result; the same result gives the same page.

    The page names the interval where Great Expectations would name the time of the run, and counts
    its elements where it would draw random ids. It stands alone: it loads nothing and runs no
    script. The shop's values are shown as text, and long ones are cut.
    """
    from great_expectations.core.run_identifier import RunIdentifier
    from great_expectations.render.renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    result.meta["run_id"] = RunIdentifier(run_name=str(interval), run_time=interval.end)
    result.meta["validation_time"] = interval.end
    result.meta.pop("batch_markers", None)
    for each in result.results:
        each.result = _shown(each.result)
    page = DefaultJinjaPageView().render(
        ValidationResultsPageRenderer(run_info_at_end=True).render(result)
    )
    page = _LEFT_OUT.sub("", page).replace("<head>", f"<head>{_HEAD}", 1)
    ids: dict[str, str] = {}
    numbers = itertools.count()
    page = _RANDOM_ID.sub(lambda match: ids.setdefault(match[0], f"element-{next(numbers)}"), page)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(page, encoding="utf-8")
    part.replace(path)


def _shown(value: Any) -> Any:
    """A value as a page may hold it; lists of all unsound rows are left out."""
    if isinstance(value, dict):
        return {
            name: _shown(each)
            for name, each in value.items()
            if name not in ("unexpected_list", "unexpected_index_list")
        }
    if isinstance(value, (list, tuple)):
        return [_shown(each) for each in value]
    if isinstance(value, str):
        return html.escape(value if len(value) <= _LONGEST else f"{value[:_LONGEST]}…")
    return value
