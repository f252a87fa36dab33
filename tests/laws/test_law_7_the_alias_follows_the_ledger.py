"""Law 7: the champion is a function of the decisions; old history never dethrones a newer one."""

from __future__ import annotations

import itertools
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local.servers.postgres import PostgresServer
from pipelines.promote.stage import promote, reject, settle
from pipelines.shared.errors import IntervalOverlaps
from pipelines.shared.ledger import Decision, Manifest, champion_of
from pipelines.shared.run import Run
from pipelines.shared.settings import Settings
from pipelines.shared.turn import held
from tests.evaluate.real_groups import SHOP, MemoryRegistry, week


def proposal(number: int, compared_with: int | None, version: int | None) -> Decision:
    outcome: Any = "reject" if version is None else "promote"
    return Decision(week(number), outcome, compared_with, version, ("a test says so",), {})


proposals = st.lists(
    st.builds(
        proposal,
        st.integers(0, 7),
        st.one_of(st.none(), st.integers(1, 9)),
        st.one_of(st.none(), st.integers(1, 9)),
    ),
    max_size=25,
)


@given(proposals)
def test_in_any_order_the_champion_only_moves_forward(arriving: list[Decision]) -> None:
    decided: list[Decision] = []
    for each in arriving:
        before = champion_of(decided)
        settled = settle(each, decided)
        if new := settled not in decided:
            assert all(settled.interval.start != other.interval.start for other in decided)
            decided.append(settled)
        if champion_of(decided) != before:
            assert settled.promoted == champion_of(decided)
            assert settled.compared_with == before
            assert all(other.interval.end <= settled.interval.end for other in decided)
        if new and settled.outcome != each.outcome:
            why, *rest = settled.reasons
            assert tuple(rest) == each.reasons
            overtaken = any(other.interval.end > settled.interval.end for other in decided)
            assert ("was decided already" in why) == overtaken
            assert (f"the champion is {f'version {before}' if before else 'none'} now" in why) == (
                not overtaken
            )


@given(proposals, st.randoms(use_true_random=False))
def test_the_champion_does_not_depend_on_the_order_of_rows(
    arriving: list[Decision], random: Any
) -> None:
    decided: list[Decision] = []
    for each in arriving:
        settled = settle(each, decided)
        decided += [] if settled in decided else [settled]
    shuffled = list(decided)
    random.shuffle(shuffled)
    assert champion_of(shuffled) == champion_of(decided)


@given(proposals)
def test_replaying_everything_decides_nothing_anew(arriving: list[Decision]) -> None:
    decided: list[Decision] = []
    for each in arriving:
        settled = settle(each, decided)
        decided += [] if settled in decided else [settled]
    for each in arriving:
        assert settle(replace(each, compared_with=None), decided) in decided


Maker = Callable[[int, int | None, int | None], Run]


def maker(ledger_url: str, folder: Path) -> Maker:
    """Makes runs whose evaluation proposes a version."""

    def make(number: int, compared_with: int | None, version: int | None) -> Run:
        settings = Settings(lake=str(folder), ledger_url=ledger_url, mlflow_uri="unused")  # type: ignore[arg-type]
        run = Run.of(settings, SHOP, week(number))
        outcome = "reject" if version is None else "promote"
        verdict = {"outcome": outcome, "version": version, "reasons": ["a test says so"]}
        details = {"verdict": verdict, "compared_with": compared_with, "evaluation": {}}
        run.ledger.record(Manifest("evaluate", "basket", run.interval, {}, "", details=details))
        return run

    return make


@pytest.fixture
def make(tmp_path: Path) -> Maker:
    return maker(f"sqlite:///{tmp_path}/ledger.db", tmp_path)


def test_the_alias_is_set_again_by_a_rerun(make: Maker) -> None:
    run, registry = make(0, None, 1), MemoryRegistry()
    assert promote(run, registry).champion == 1
    registry.alias = 99  # someone moved it by hand
    again = promote(run, registry)
    assert (again.champion, registry.alias) == (1, 1)
    assert len(run.ledger.decisions()) == 1


def test_replaying_an_old_week_leaves_the_newer_champion(make: Maker) -> None:
    registry = MemoryRegistry()
    promote(make(0, None, 1), registry)
    promote(make(3, 1, 4), registry)
    replayed = promote(make(2, 1, 9), registry)
    assert (replayed.outcome, replayed.champion, registry.alias) == ("reject", 4, 4)
    assert "was decided already" in replayed.reasons[0]
    assert promote(make(0, None, 1), registry).outcome == "promote"
    assert registry.alias == 4


def test_a_champion_that_changed_since_the_comparison_ends_the_promotion(make: Maker) -> None:
    registry = MemoryRegistry()
    promote(make(0, None, 1), registry)
    decided = promote(make(1, None, 2), registry)
    assert decided.outcome == "reject"
    assert decided.reasons[0].startswith("the champion is version 1 now")
    assert registry.alias == 1


asked = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3)), min_size=1, max_size=8)


@settings(max_examples=40, deadline=None)
@given(asked)
def test_in_any_order_intervals_are_decided_once_and_never_overlap(
    arriving: list[tuple[int, int]],
) -> None:
    """Whatever is asked for, and asked for again: a rerun changes nothing (law 1)."""
    with tempfile.TemporaryDirectory() as folder:
        url, registry = f"sqlite:///{folder}/ledger.db", MemoryRegistry()
        for number, weeks in arriving:
            given = Settings(lake=folder, ledger_url=url, mlflow_uri="unused")  # type: ignore[arg-type]
            run = Run.of(given, SHOP, week(number, weeks))
            before = run.ledger.decisions()
            version = len(before) + 1
            verdict = {"outcome": "promote", "version": version, "reasons": ["a test says so"]}
            details = {"verdict": verdict, "compared_with": run.ledger.champion(), "evaluation": {}}
            evaluated = Manifest("evaluate", "basket", run.interval, {}, "", details=details)
            overlapped = [
                each.interval
                for each in before
                if each.interval != run.interval and each.interval.overlaps(run.interval)
            ]
            try:
                with held(run, lambda line: None, patience_s=0) as ready:
                    ready.ledger.record(evaluated)
                    promote(ready, registry)
            except IntervalOverlaps:
                assert overlapped
                assert run.ledger.decisions() == before
                assert run.ledger.manifest("evaluate", "basket", run.interval) is None
            else:
                assert not overlapped
            decided = run.ledger.decisions()
            assert all(a.interval.end <= b.interval.start for a, b in itertools.pairwise(decided))
            if run.interval in [each.interval for each in before]:
                assert decided == before
            assert registry.alias == champion_of(decided)


def race(make: Maker, registry: MemoryRegistry) -> list[str]:
    """Two promotions at once, both compared with the same champion."""
    promote(make(0, None, 1), registry)
    runs, ends, gate = [make(1, 1, 2), make(2, 1, 3)], [], threading.Barrier(2)

    def go(run: Run) -> None:
        gate.wait()
        ends.append(promote(run, registry).outcome)

    threads = [threading.Thread(target=go, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert registry.alias == registry.history[-1] == runs[0].ledger.champion()
    assert len(runs[0].ledger.decisions()) == 3
    return sorted(ends)


def test_of_two_promotions_at_once_one_wins(make: Maker) -> None:
    assert race(make, MemoryRegistry()) == ["promote", "reject"]


@pytest.mark.services
def test_of_two_promotions_at_once_one_wins_on_postgres(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    import sqlalchemy as sa

    engine = sa.create_engine(postgres.url("ledger"), isolation_level="AUTOCOMMIT")
    for attempt in range(5):
        with engine.connect() as connection:
            connection.exec_driver_sql(f"create database race{attempt}")
        make = maker(postgres.url(f"race{attempt}"), tmp_path)
        assert race(make, MemoryRegistry()) == ["promote", "reject"]
    engine.dispose()


def test_a_rejection_leaves_the_alias(make: Maker) -> None:
    registry = MemoryRegistry()
    promote(make(0, None, 1), registry)
    assert reject(make(1, 1, None), registry).outcome == "reject"
    turned = reject(make(2, 1, 5), registry)
    assert "though the gate would promote it" in turned.reasons[0]
    assert registry.alias == 1
