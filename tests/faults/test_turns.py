"""Processes that want the same turn: one works at a time, and only who has the turn decides."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from pipelines import loop, maintain
from pipelines.promote.stage import promote
from pipelines.shared.errors import IntervalOverlaps, TurnTaken
from pipelines.shared.intervals import Interval
from pipelines.shared.ledger import turns
from pipelines.shared.ledger.tables import MANIFESTS, METADATA, TURNS
from pipelines.shared.run import Installation, Run
from pipelines.shared.settings import Settings
from pipelines.shared.turn import held
from tests.evaluate.real_groups import SHOP, MemoryRegistry, week
from tests.golden import facts
from tests.golden.test_installation import unpacked
from tests.laws.test_law_7_the_alias_follows_the_ledger import maker
from tests.ledgers import ALL

PROJECT = Path(__file__).parents[2]
WEEK_KEY = facts.WEEKS[3].key

_DECIDE = """
import sys, time
from pathlib import Path
from pipelines.promote.stage import promote
from pipelines.shared.turn import held
from tests.evaluate.real_groups import MemoryRegistry
from tests.laws.test_law_7_the_alias_follows_the_ledger import maker

url, folder, number, waits = sys.argv[1:]
run = maker(url, Path(folder))(int(number), None, int(number) + 1)
with held(run, lambda line: print("waits:", line, flush=True)) as ready:
    began = time.time()
    print("has the turn", flush=True)
    if waits == "waits":
        sys.stdin.readline()
    time.sleep(0.3)
    outcome = promote(ready, MemoryRegistry()).outcome
    print(outcome, began, time.time(), flush=True)
"""

_RUN = """
import json, sys
from pathlib import Path
from pipelines import loop
from pipelines.shared.run import Run
from pipelines.shared.settings import Settings
from tests.golden import facts

folder, url, stop = sys.argv[1:]
settings = facts.settings(Path(folder)).model_copy(update={"ledger_url": Settings(
    lake="", ledger_url=url, mlflow_uri="").ledger_url})

def say(stage, line):
    print(stage, line, flush=True)
    if stage == stop:
        sys.stdin.readline()

loop.run_interval(Run.of(settings, facts.SHOP, facts.WEEKS[3]), say)
"""

Process = subprocess.Popen[str]


@pytest.fixture
def begin() -> Iterator[Callable[..., Process]]:
    """Begin a Python process; all that were begun are ended."""
    processes: list[Process] = []

    def one(script: str, *arguments: object) -> Process:
        pipes: Any = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        command = [sys.executable, "-c", script, *map(str, arguments)]
        processes.append(subprocess.Popen(command, text=True, cwd=PROJECT, **pipes))
        return processes[-1]

    yield one
    for each in processes:
        each.kill()
        each.communicate()


def until(process: Process, beginning: str) -> None:
    """Read what a process prints until a line that begins so."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(beginning):
            return
    raise AssertionError(process.communicate()[1])


def impatient(monkeypatch: pytest.MonkeyPatch, seconds: float = 2) -> None:
    """A turn ends soon after its holder's last sign of life, for this process alone."""
    monkeypatch.setattr(turns, "ALIVE_FOR", timedelta(seconds=seconds))


def rows(url: str, table: sa.Table = TURNS) -> list[dict[str, Any]]:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        found = connection.execute(sa.select(table).order_by(table.c.id)).mappings().all()
    return [dict(each) for each in found]


@pytest.mark.parametrize("ledger_url", ALL, indirect=True)
def test_of_many_processes_one_works_at_a_time_and_each_interval_is_decided_once(
    ledger_url: str, tmp_path: Path, begin: Callable[..., Process]
) -> None:
    wanted = [0, 1, 1, 0]
    processes = [begin(_DECIDE, ledger_url, tmp_path, number, "goes on") for number in wanted]
    worked, printed = [], ""
    for each in processes:
        output, errors = each.communicate(timeout=120)
        assert each.returncode == 0, errors
        printed += output
        _, began, ended = output.splitlines()[-1].split()
        worked.append((float(began), float(ended)))
    for (_, ended), (began, _) in itertools.pairwise(sorted(worked)):
        assert began >= ended
    assert "waits:" in printed
    decided = maker(ledger_url, tmp_path)(0, None, 1).ledger.decisions()
    assert [each.interval for each in decided] == [week(0), week(1)]
    assert [each["ended_by"] == each["holder"] for each in rows(ledger_url)] == [True] * 4


@pytest.mark.parametrize("ledger_url", ALL, indirect=True)
def test_a_killed_holders_turn_is_taken_over_and_that_is_on_record(
    ledger_url: str,
    tmp_path: Path,
    begin: Callable[..., Process],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    holder = begin(_DECIDE, ledger_url, tmp_path, 0, "waits")
    until(holder, "has the turn")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    run = maker(ledger_url, tmp_path)(0, None, 1)
    with (
        pytest.raises(TurnTaken, match=rf"process {holder.pid} .*released when that run ends"),
        held(run, lambda line: None, patience_s=0),
    ):
        pass
    impatient(monkeypatch)
    waits: list[str] = []
    with held(run, waits.append) as ready:
        assert promote(ready, MemoryRegistry()).outcome == "promote"
    assert f"process {holder.pid} " in waits[0]
    first, _, second = rows(ledger_url)
    assert first["ended_by"] == second["holder"] != first["holder"]
    assert f"took over: {first['holder']} has the turn" in caplog.text


@pytest.mark.parametrize("ledger_url", ALL, indirect=True)
def test_a_stopped_holder_that_wakes_after_a_takeover_decides_nothing(
    ledger_url: str, tmp_path: Path, begin: Callable[..., Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    sleeper = begin(_DECIDE, ledger_url, tmp_path, 1, "waits")
    until(sleeper, "has the turn")
    sleeper.send_signal(signal.SIGSTOP)
    impatient(monkeypatch)
    run = maker(ledger_url, tmp_path)(0, None, 1)
    with held(run, lambda line: None) as ready:
        promote(ready, MemoryRegistry())
    sleeper.send_signal(signal.SIGCONT)
    _, errors = sleeper.communicate("go on\n", timeout=60)
    assert "TurnLost" in errors
    assert "nothing more was written" in errors.lower()
    assert [each.interval for each in run.ledger.decisions()] == [week(0)]


@pytest.mark.parametrize("ledger_url", ALL, indirect=True)
@pytest.mark.parametrize("wanted", [week(0, 2), week(1, 2), week(0, 3)], ids=str)
def test_an_interval_that_overlaps_a_running_or_decided_one_is_refused_by_name(
    ledger_url: str, tmp_path: Path, begin: Callable[..., Process], wanted: Interval
) -> None:
    holder = begin(_DECIDE, ledger_url, tmp_path, 1, "waits")
    until(holder, "has the turn")
    settings = Settings(lake=str(tmp_path), ledger_url=ledger_url, mlflow_uri="unused")  # type: ignore[arg-type]
    run = Run.of(settings, SHOP, wanted)
    way_out = rf"{week(1).start:%Y-%m-%d}.*process {holder.pid} .*which runs.*Run exactly \["
    with pytest.raises(IntervalOverlaps, match=way_out), held(run, lambda line: None):
        pass
    holder.communicate("go on\n", timeout=60)
    with (
        pytest.raises(IntervalOverlaps, match=r"which is decided.*Run exactly \["),
        held(run, lambda line: None),
    ):
        pass
    with pytest.raises(IntervalOverlaps):
        loop.runs(settings, SHOP, wanted, as_one=True)
    assert not run.lake.local_root.exists()
    assert len(rows(ledger_url)) == 1


def test_the_oldest_interval_that_waits_comes_first(tmp_path: Path) -> None:
    ledger = maker(f"sqlite:///{tmp_path}/ledger.db", tmp_path)(0, None, 1).ledger
    ledger.turns.take(week(5), "first come")
    for number in (3, 1, 2):
        with pytest.raises(TurnTaken, match="first come has the turn"):
            ledger.turns.take(week(number), f"wants {number}")
    ledger.turns.release("first come")
    with pytest.raises(TurnTaken, match="wants 1 waits for its turn"):
        ledger.turns.take(week(3), "wants 3")
    assert ledger.turns.take(week(1), "wants 1").interval == week(1)
    assert ledger.turns.take(week(1), "wants 1").taken_at, "the holder may ask again"


def test_a_stage_alone_does_not_work_beside_a_run(tmp_path: Path) -> None:
    run = maker(f"sqlite:///{tmp_path}/ledger.db", tmp_path)(0, None, 1)
    run.ledger.turns.take(week(1), "another")
    with pytest.raises(TurnTaken, match="another has the turn"):
        promote(run, MemoryRegistry())
    assert run.ledger.decisions() == []


@pytest.fixture
def kept(request: pytest.FixtureRequest, tmp_path: Path, ledger_url: str) -> tuple[Path, str]:
    """The kept installation, which has a week to run; its ledger in any database."""
    folder = unpacked(tmp_path)
    source = sa.create_engine(f"sqlite:///{folder}/ledger.db", poolclass=sa.NullPool)
    if ledger_url.startswith("sqlite"):
        return folder, f"sqlite:///{folder}/ledger.db"
    Installation.open(facts.settings(folder), facts.SHOP).ledger.decisions()  # Its new tables.
    target = sa.create_engine(ledger_url, poolclass=sa.NullPool)
    METADATA.create_all(target)
    with source.connect() as old, target.begin() as new:
        for table in METADATA.sorted_tables:
            for row in old.execute(sa.select(table)).mappings():
                new.execute(table.insert().values(**{k: v for k, v in row.items() if k != "id"}))
    return folder, ledger_url


def left(folder: Path, url: str) -> dict[str, Any]:
    """What the last week left in the ledger, the registry and the lake."""
    import mlflow

    settings = facts.settings(folder).model_copy(
        update={"ledger_url": Settings(lake="", ledger_url=url, mlflow_uri="").ledger_url}  # type: ignore[arg-type]
    )
    installation = Installation.open(settings, facts.SHOP)
    client = mlflow.MlflowClient(*[settings.mlflow_uri.get_secret_value()] * 2)
    manifests = [
        (each.stage, each.subject, each.content_hash)
        for stage in facts.STAGES
        for each in installation.ledger.manifests(stage)
        if each.interval == facts.WEEKS[3]
    ]
    found = client.search_model_versions(f"name='{facts.SHOP}-search'")
    return {
        "decisions": [(str(d.interval), d.outcome) for d in installation.ledger.decisions()],
        "versions": [v.version for v in installation.ledger.versions()],
        "registered": sorted(int(each.version) for each in found),
        "manifests": manifests,
        "faults": maintain.verify(installation).faults,
    }


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one clean run of the week leaves."""
    folder = unpacked(tmp_path_factory.mktemp("clean"))
    loop.run_interval(Run.of(facts.settings(folder), facts.SHOP, facts.WEEKS[3]), lambda *_: None)
    return left(folder, f"sqlite:///{folder}/ledger.db")


@pytest.mark.slow
@pytest.mark.parametrize("ledger_url", ALL, indirect=True)
def test_two_runs_of_one_interval_at_once_leave_what_one_leaves(
    kept: tuple[Path, str], clean: dict[str, Any], begin: Callable[..., Process]
) -> None:
    both = [begin(_RUN, *kept, "never") for _ in range(2)]
    printed = ""
    for each in both:
        output, errors = each.communicate(timeout=300)
        assert each.returncode == 0, errors
        assert "decide" in output
        printed += output
    assert "has the turn" in printed, "the second waited, and said for whom"
    assert left(*kept) == clean
    of_week = [each for each in rows(kept[1], MANIFESTS) if each["interval_start"] == WEEK_KEY]
    recorded = Counter((each["stage"], each["subject"]) for each in of_week)
    assert set(recorded.values()) == {1}


@pytest.mark.slow
@pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("stage", ["extract", "train", "evaluate"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_run_that_is_overtaken_at_any_stage_leaves_what_one_leaves(
    kept: tuple[Path, str],
    clean: dict[str, Any],
    begin: Callable[..., Process],
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    how: signal.Signals,
) -> None:
    first = begin(_RUN, *kept, stage)
    until(first, stage)
    first.send_signal(how)
    impatient(monkeypatch, 5)
    loop.run_interval(Run.of(facts.settings(kept[0]), facts.SHOP, facts.WEEKS[3]), lambda *_: None)
    if how == signal.SIGSTOP:
        first.send_signal(signal.SIGCONT)
        _, errors = first.communicate("go on\n", timeout=120)
        assert "TurnLost" in errors
    assert left(*kept) == clean
