"""Law 4: the state at a time is the same however the log before it was cut; so are features."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.validated_lake import FIRST, ValidatedLake, of_step
from pipelines.features import assemble, candidates, catalogue, counters, fold
from pipelines.features.engines import engine
from pipelines.features.known import read_known
from pipelines.features.moment import AsOf
from pipelines.features.state import events, storage
from pipelines.features.state.step_writer import StepWriter
from pipelines.features.state.storage import Layout
from pipelines.shared import columns
from pipelines.shared.models import vocabulary
from tests.extract.postgres_shop import DECLARED
from tests.features.small_logs import log_of

pytestmark = pytest.mark.slow

WEEKS = 3
END = 24 * 7 * WEEKS
SKUS = "abcde"
Change = dict[str, Any]

_hours = st.integers(0, END - 1)
_delays = st.one_of(st.integers(0, 3), st.integers(0, 24 * 12))
_action = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["view", "cart", "purchase", "search"]),
        "uid": st.sampled_from(["u", "v"]),
        "sku": st.sampled_from([*SKUS, "not in the catalogue"]),
        "at": _hours,
        "pieces": st.sampled_from([None, 1, 3]),
    }
)
_later = st.tuples(_delays, st.sampled_from(["update", "delete"]), _action)
_history = st.tuples(_action, _delays, st.lists(_later, max_size=3))
_article = st.tuples(
    st.integers(0, END - 1),
    st.sampled_from(["insert", "update", "delete"]),
    st.sampled_from(SKUS),
    st.sampled_from([None, "kind 1", "kind 2", "kind 3"]),
)
_cuts = st.sets(st.integers(1, WEEKS - 1), max_size=WEEKS - 2)


def _time(hour: int) -> Any:
    return FIRST + timedelta(hours=hour)


def _numbered(changes: Sequence[Change]) -> list[Change]:
    """Positions in the order of the commits."""
    ordered = sorted(changes, key=lambda change: change[columns.COMMITTED_AT])
    return [change | {columns.POSITION: place} for place, change in enumerate(ordered)]


def _log(
    shelf: ValidatedLake, histories: Sequence[Any], articles: Sequence[Any]
) -> dict[str, pa.Table]:
    actions: list[Change] = []
    for number, (first, delay, later) in enumerate(histories):
        known = first["at"] + delay
        row = first | {"at": _time(first["at"]), columns.COMMITTED_AT: _time(known)}
        actions.append(row | {"action_id": str(number)})
        for more, op, then in later:
            known += more
            row = then | {"at": _time(then["at"]), columns.COMMITTED_AT: _time(known)}
            actions.append(row | {"action_id": str(number), columns.OP: op})
    items = [
        {columns.COMMITTED_AT: _time(hour), columns.OP: op, "sku": sku, "kind": kind, "maker": sku}
        for hour, op, sku, kind in articles
    ]
    users = [{"uid": uid, columns.COMMITTED_AT: FIRST, columns.POSITION: 0} for uid in "uvw"]
    return {
        "actions": log_of(shelf.shop, "actions", _numbered(actions)),
        "articles": log_of(shelf.shop, "articles", _numbered(items)),
        "users": log_of(shelf.shop, "users", users),
    }


def _state(folder: Path, histories: Any, articles: Any, cuts: set[int]) -> dict[str, pa.Table]:
    """What stands at the end when the log came in partitions that end at `cuts` and the end."""
    shelf = ValidatedLake.at(folder, "tiny", DECLARED, threads=1)
    layout = Layout(shelf.shop)
    log = _log(shelf, histories, articles)
    since, before = 0, None
    with engine(shelf.settings) as opened:
        for last in sorted({cut - 1 for cut in cuts} | {WEEKS - 1}):
            run = shelf.run(last)
            shelf.validated(last, of_step(log, last, since=since))
            with opened.scope():
                as_of = AsOf(run.interval.start, before)
                fold.fold(run, opened, layout, as_of, StepWriter(run.lake, run.interval))
            since, before = last + 1, run.interval
        run = shelf.run(WEEKS - 1)
        end = run.interval.end
        as_of = AsOf(end, run.interval)
        since = as_of.ago(counters.WINDOW_DAYS)
        stood = events.standing_between(run, opened, layout, since, end)
        known = read_known(run, opened, layout, as_of)
        users = opened.load(storage.read(run, storage.SHOPPERS, layout.shoppers, run.interval))
        everyone = users.select(columns.SHOPPER)
        proposed = candidates.propose(opened, known, layout, everyone, None, None)
        shown = assemble.visits(everyone, end)
        pairs = proposed.pairs.select(*assemble.PAIR)
        types = catalogue.types(layout)
        wanted = pa.schema({columns.SHOPPER: pa.string(), columns.ITEM: pa.string(), **types})
        built = assemble.build(opened, shown, pairs, known, proposed, layout)
        return {
            "events": opened.arrow(stood, layout.events, "event_key"),
            "items": storage.read(run, storage.ITEMS, layout.items, run.interval),
            "vocabulary": vocabulary.rows(run.lake).drop_columns([columns.INTERVAL]),
            "features": opened.arrow(built, wanted, columns.SHOPPER, columns.ITEM),
        }


def test_what_is_compared_has_rows(tmp_path: Path) -> None:
    bought = [{"type": "purchase", "uid": "u", "sku": sku, "at": 9, "pieces": 1} for sku in "ab"]
    histories = [(action, 1, []) for action in bought]
    state = _state(tmp_path, histories, [(0, "insert", "a", "kind 1")], {1})
    assert {name for name, table in state.items() if table.num_rows == 0} == set()


@settings(
    max_examples=6, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(
    st.lists(_history, min_size=1, max_size=12),
    st.lists(_article, min_size=2, max_size=10),
    _cuts,
)
def test_state_and_features_do_not_depend_on_the_cut(
    histories: Any, articles: Any, cuts: set[int]
) -> None:
    with TemporaryDirectory() as one, TemporaryDirectory() as other:
        weekly = _state(Path(one), histories, articles, set(range(1, WEEKS)))
        cut = _state(Path(other), histories, articles, cuts)
    for name, table in weekly.items():
        assert table.equals(cut[name]), name
