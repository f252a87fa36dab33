"""How long the features of one week take: beside SQL by hand, and after ten times the history."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from pipelines.features import fold
from pipelines.features.engines import engine
from pipelines.features.groups.arrivals import LOOKBACK_STEPS
from pipelines.features.moment import AsOf, micros
from pipelines.features.state.step_writer import StepWriter
from pipelines.features.state.storage import Layout
from pipelines.shared import columns
from pipelines.shared.declaration import Features

WEEK: Final = 50
"""The week measured; the fifty before it are its history."""
BY_HAND: Final = Path(__file__).parent / "by_hand.sql"
TOLERANCE: Final = 1e-4
RUNS: Final = 3
"""Of each way; the middle one counts."""
say = Console(stderr=True, highlight=False)


@dataclass(frozen=True)
class Measured:
    """One way to the features of the week, in a process of its own."""

    seconds: float
    cpu_s: float
    peak_mb: float
    rows: int


def measure(share: float, history: int) -> dict[str, Any]:
    """Fold fifty weeks, then take the next one in several ways.

    No way computes latent factors, which SQL does not know. In the long lake the fifty weeks'
    orders lie `history` times before the week.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        short, long = folder / "short", folder / "long"
        for lake, times in ((short, 1), (long, history)):
            _alone(_fold, lake, share, times)
            say.print(f"{times} × {WEEK} weeks of history folded")
        _alone(_remember, short)
        ways = {
            "stage": _median(_stage, short),
            "from all history": _median(_by_hand, short, False),
            "incremental": _median(_by_hand, short, True),
            "stage, long history": _median(_stage, long),
            "from all history, long": _median(_by_hand, long, False),
        }
        equal = _equal_rows(short)
    stage, whole, script, after, whole_after = ways.values()
    return {
        "vs_full_history": round(stage.seconds / whole.seconds, 3),
        "vs_full_history_long": round(after.seconds / whole_after.seconds, 3),
        "vs_handwritten": round(stage.seconds / script.seconds, 3),
        "history_slope": round(after.seconds / stage.seconds, 3),
        "peak_slope": round(after.peak_mb / stage.peak_mb, 3),
        "peak_mb": round(stage.peak_mb),
        "equal_rows": equal,
        "history": history,
        "ways": {name: vars(way) for name, way in ways.items()},
    }


def show(console: Console, found: dict[str, Any]) -> None:
    """The ways as a table."""
    table = Table("way", "seconds", "CPU s", "peak MB", "rows", box=SIMPLE_HEAD, pad_edge=False)
    for name, way in found["ways"].items():
        table.add_row(
            name, f"{way['seconds']:.1f}", f"{way['cpu_s']:.1f}", f"{way['peak_mb']:,.0f}",
            f"{way['rows']:,}",
        )  # fmt: skip
    console.print(table)


def _alone(task: Callable[..., Any], *given: Any) -> Any:
    """Run in a fresh process, whose peak of memory is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(task, *given).result()


def _median(task: Callable[..., Measured], *given: Any) -> Measured:
    """The middle one of several runs; a rerun does the same work and writes the same."""
    runs: list[Measured] = [_alone(task, *given) for _ in range(RUNS)]
    return sorted(runs, key=lambda each: each.seconds)[RUNS // 2]


def _timed(task: Callable[[], int]) -> Measured:
    cpu, started = time.process_time(), time.perf_counter()
    rows = task()
    return Measured(
        round(time.perf_counter() - started, 2),
        round(time.process_time() - cpu, 2),
        round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        rows,
    )


def _shelf(folder: Path) -> Any:
    from benchmarks.validated_lake import ValidatedLake

    shelf = ValidatedLake.at(folder, "completejourney")
    declared = Features()
    plain = Features(
        families=tuple(each for each in declared.families if each != "latent"),
        sources=tuple(each for each in declared.sources if each != "latent"),
    )
    return replace(shelf, shop=shelf.shop.model_copy(update={"features": plain}))


def _fold(folder: Path, share: float, times: int) -> None:
    """A lake whose weeks before the measured one are folded, their orders `times` times."""
    from benchmarks.validated_lake import of_step, real_log

    folder.mkdir()
    shelf, log = _shelf(folder), real_log(WEEK + 1, share)
    layout = Layout(shelf.shop)
    with engine(shelf.settings) as opened:
        before = None
        for number in range(-WEEK * (times - 1), WEEK + 1):
            back, of_year = divmod(number, WEEK) if number < WEEK else (0, number)
            changes = of_step(log, of_year)
            if back < 0:
                changes = {"order_lines": _moved(changes["order_lines"], back)}
            shelf.validated(number, changes)
            run = shelf.run(number)
            as_of = AsOf(run.interval.start, before)
            # Groups of the last weeks are looked up, to tell late lines from new orders.
            if WEEK - LOOKBACK_STEPS <= number < WEEK:
                fold.take(run, opened, layout, run.interval, as_of)
            elif number < WEEK:
                with opened.scope():
                    fold.fold(run, opened, layout, as_of, StepWriter(run.lake, run.interval))
            before = run.interval


def _moved(lines: pa.Table, back: int) -> pa.Table:
    """Orders of other numbers, so many times fifty weeks earlier."""
    shift = pa.scalar(back * timedelta(weeks=WEEK), pa.duration("us"))
    for name in ("ordered_at", columns.COMMITTED_AT):
        place = lines.schema.get_field_index(name)
        lines = lines.set_column(place, name, pc.add(lines[name], shift))
    for name in ("order_id", columns.POSITION):
        place = lines.schema.get_field_index(name)
        lines = lines.set_column(place, name, pc.add(lines[name], back * 10**12))
    return lines


def _stage(folder: Path) -> Measured:
    shelf = _shelf(folder)
    run = shelf.run(WEEK)
    as_of = AsOf(run.interval.start, shelf.run(WEEK - 1).interval)
    with engine(run.settings):
        """What is imported for it is not the stage's work, nor the SQL's."""

    def take() -> int:
        with engine(run.settings) as opened:
            fold.take(run, opened, Layout(run.shop), run.interval, as_of)
        return int(run.lake.count("groups/basket", run.interval))

    return _timed(take)


_STANDING: Final = """
    SELECT order_id, order_id::VARCHAR AS o, line_no, household_id AS u, product_id AS i,
           epoch_us(ordered_at) AS t, round(greatest(0, least(quantity, 1e9)) * 1000)::BIGINT AS q,
           round(sales_value * 100)::BIGINT AS paid, _op AS op, _position AS position,
           epoch_us(_committed_at) AS committed
    FROM {rows}
"""
_LAST: Final = (
    "QUALIFY row_number() OVER (PARTITION BY order_id, line_no ORDER BY position DESC) = 1"
)
_WINDOW: Final = f"""
    CREATE TEMP TABLE lines AS
    SELECT u, o, i, min(t) AS t, sum(q)::BIGINT AS q, sum(paid)::BIGINT AS paid,
           round(1000000 * 0.5 ** ((getvariable('now') - min(t)) / (42 * 86400000000)))::BIGINT
               AS decayed
    FROM {{standing}}
    WHERE op <> 'delete' AND i IS NOT NULL AND t <= committed + 86400000000
          AND t >= getvariable('now') - {364 * 86_400_000_000} AND t < getvariable('now')
    GROUP BY u, o, i;
    CREATE TEMP VIEW lines_of_all AS FROM lines;
"""


def _remember(folder: Path) -> None:
    """What the incremental script carries: the standing lines before the last folded week."""
    with duckdb.connect(str(folder / "by_hand.duckdb")) as database:
        _tables(database, folder)
        before = _STANDING.format(rows="order_lines WHERE interval_start < getvariable('last')")
        database.execute(f"CREATE TABLE kept AS SELECT * FROM ({before}) {_LAST}")


def _tables(database: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """The lake's tables as views, and the week's edges as variables."""
    run = _shelf(folder).run(WEEK)
    last = _shelf(folder).run(WEEK - 1).interval
    database.execute(
        "SET TimeZone = 'UTC'; SET enable_progress_bar = false; "
        f"SET threads = {run.settings.threads}"
    )
    database.execute(
        f"SET VARIABLE now = {micros(run.interval.start)}; "
        f"SET VARIABLE until = {micros(run.interval.end)}; "
        f"SET VARIABLE week = '{run.interval.key}'; SET VARIABLE last = '{last.key}'"
    )
    for name in ("valid/order_lines", "valid/products", "valid/promotions", "group_index/basket"):
        table = name.removeprefix("valid/").removesuffix("/basket")
        files = f"{run.lake.local_root}/{name}/interval_start=*/*.parquet"
        database.execute(
            f"CREATE TEMP VIEW {table} AS FROM read_parquet('{files}', hive_partitioning = true, "
            "hive_types = {'interval_start': VARCHAR})"
        )


def _by_hand(folder: Path, incremental: bool) -> Measured:
    """The same features by `features_by_hand.sql`, from all changes or from what was carried."""

    def write() -> int:
        with duckdb.connect(str(folder / "by_hand.duckdb")) as database:
            _tables(database, folder)
            known = _STANDING.format(rows="order_lines WHERE interval_start < getvariable('week')")
            if incremental:
                newest = _STANDING.format(
                    rows="order_lines WHERE interval_start = getvariable('last')"
                )
                database.execute(
                    f"CREATE TEMP TABLE delta AS SELECT * FROM ({newest}) {_LAST}; "
                    "DELETE FROM kept WHERE (order_id, line_no) IN "
                    "(SELECT (order_id, line_no) FROM delta); "
                    "INSERT INTO kept BY NAME SELECT * FROM delta"
                )
            else:
                database.execute(f"CREATE TEMP TABLE kept AS SELECT * FROM ({known}) {_LAST}")
            database.execute(_WINDOW.format(standing="kept"))
            database.execute(_REST)
            database.execute(BY_HAND.read_text(encoding="utf-8"))
            place = folder / "by_hand.parquet"
            database.execute(
                f"COPY (FROM built ORDER BY group_id, item_id) TO '{place}' (COMPRESSION snappy)"
            )
            return int(database.sql(f"SELECT count(*) FROM '{place}'").fetchall()[0][0])

    return _timed(write)


_REST: Final = f"""
    CREATE TEMP TABLE changes AS {
    _STANDING.format(rows="order_lines WHERE interval_start = getvariable('week')")
};
    CREATE TEMP TABLE formed AS SELECT group_id FROM group_index
    WHERE interval_start < getvariable('week')
          AND interval_start >= strftime(make_timestamp(getvariable('now') - 56 * 86400000000),
                                         '%Y-%m-%dT%H:%M:%SZ');
    CREATE TEMP TABLE items AS
    SELECT product_id AS i, product_category AS category, department, brand,
           round(price * 100)::BIGINT AS price,
           min(epoch_us(_committed_at)) OVER (PARTITION BY product_id) AS listed
    FROM products WHERE interval_start < getvariable('week')
    QUALIFY row_number() OVER (PARTITION BY product_id ORDER BY _position DESC) = 1;
    CREATE TEMP TABLE segments AS
    SELECT product_id AS i, epoch_us(valid_from) AS starts, epoch_us(valid_until) AS ends,
           display_share AS display, mailer_share AS mailer
    FROM promotions WHERE interval_start < getvariable('week')
          AND epoch_us(valid_until) > getvariable('now');
"""


def _equal_rows(folder: Path) -> float:
    """Share of the stage's rows whose every feature is what the SQL from all history gives."""
    run = _shelf(folder).run(WEEK)
    keys = [columns.GROUP, columns.ITEM]
    order = [(key, "ascending") for key in keys]
    ours = run.lake.read("groups/basket", [run.interval]).sort_by(order)
    with duckdb.connect() as database:
        theirs = database.sql(f"FROM '{folder / 'by_hand.parquet'}'").to_arrow_table()
    theirs = theirs.sort_by(order)
    if ours.num_rows != theirs.num_rows or not ours.select(keys).equals(theirs.select(keys)):
        return 0.0
    equal = np.ones(ours.num_rows, bool)
    for name in theirs.column_names[3:]:
        one, other = (np.asarray(table[name].to_pandas(), np.float64) for table in (ours, theirs))
        same = np.isclose(one, other, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
        if not same.all():
            say.print(f"{name}: {int((~same).sum())} of {len(same)} rows differ")
        equal &= same
    return float(equal.mean())
