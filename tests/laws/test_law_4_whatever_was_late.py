"""Law 4: the state is the same in whatever order, with whatever failures, steps were folded."""

from __future__ import annotations

import contextlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.validated_lake import of_step
from pipelines import features
from pipelines.features.pending import StepMissing
from pipelines.shared.lake import Lake
from tests.features.small_logs import Web

pytestmark = pytest.mark.slow
WEEKS = 3
TABLES = ("actions", "articles", "shown", "users")


class Killed(BaseException):
    """The process dies here."""


def web(folder: Path) -> Web:
    """Every week lists, actions, a new article and a new user."""
    shop = Web(folder)
    for week in range(WEEKS):
        day = 7 * week + 1
        shop.add("users", day, uid=f"w{week}")
        shop.add("articles", day, sku=f"g{week}", kind=f"kind {week}", maker="m")
        for uid in ("u", f"w{week}"):
            shop.show(day, f"{uid}-{week}", uid, "abc")
            shop.act(day + 1, f"{uid}-{week}", "purchase", uid, "b")
    return shop


def state(shop: Web) -> list[Any]:
    return [
        (each.interval.key, each.content_hash, each.details["state"], each.details["chain"])
        for each in shop.shelf.run(0).ledger.manifests("features")
    ]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The state of the same weeks, folded in order and once."""
    shop = web(tmp_path_factory.mktemp("clean"))
    shop.validate(*range(WEEKS))
    features.run(shop.shelf.run(0, WEEKS - 1))
    return state(shop)


def play(shop: Web, action: tuple[str, int, Any]) -> None:
    """One thing that happens: a step is validated, in part or whole, or folded, or dies folding."""
    what, week, how = action
    if what == "validate":
        shop.shelf.validated(week, of_step(shop.tables(), week), [how])
    elif what == "in part":
        rows = of_step(shop.tables(), week)
        shop.shelf.validated(week, {how: rows[how].slice(1)}, [how])
    else:
        written = Lake.replace
        left = [how]

        def replace(lake: Lake, *args: Any) -> int:
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return written(lake, *args)

        with (
            patch.object(Lake, "replace", replace),
            contextlib.suppress(StepMissing, Killed),
        ):
            features.run(shop.shelf.run(week))


_weeks = st.integers(0, WEEKS - 1)
_tables = st.sampled_from(TABLES)
_action = st.one_of(
    st.tuples(st.sampled_from(["validate", "in part"]), _weeks, _tables),
    st.tuples(st.just("fold"), _weeks, st.integers(1, 12) | st.just(99)),
)


@settings(
    max_examples=3, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(st.lists(_action, min_size=3, max_size=6), st.permutations(range(WEEKS)))
def test_what_was_late_is_in_the_state_all_the_same(
    clean: list[Any], actions: Any, order: list[int]
) -> None:
    with TemporaryDirectory() as folder:
        shop = web(Path(folder))
        for week in range(WEEKS):  # So that some folding comes about at all.
            shop.validate(week)
            play(shop, ("fold", week, 99 if week % 2 else 5))
        for action in actions:
            play(shop, action)
        for week in order:
            shop.validate(week)
        features.run(shop.shelf.run(WEEKS - 1))
        assert state(shop) == clean
