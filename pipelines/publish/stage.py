"""The stage's entry point."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.publish.lists import top
from pipelines.publish.table import PublishedTable, Stamp
from pipelines.shared import columns as c
from pipelines.shared.errors import PermanentError
from pipelines.shared.forgotten import Forgotten
from pipelines.shared.hashing import content_hash
from pipelines.shared.ledger import Manifest, Version
from pipelines.shared.models import booster
from pipelines.shared.run import Installation, Run

STAGE = "publish"


class NotServed(PermanentError):
    """The features of the shoppers at the interval's end were never written."""


@dataclass(frozen=True)
class Published:
    """The outcome of one run of the stage: what the shop reads now."""

    table: str
    interval: str
    version: int | None
    """The champion that made the lists; None where there is none yet."""
    shoppers: int
    rows: int
    kept: str | None = None
    """Why the lists in the table were kept; None when they were replaced."""

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON-able values."""
        return asdict(self)


def run(run: Run) -> Published:
    """Replace the published lists by the champion's, as of the end of the run's last step.

    Raises:
        NotServed: `serving/<surface>` has no partition for the step.
        FeatureMismatch: the champion wants a feature that the shoppers lack.
        UnsoundScores: the champion gave a score that is no number; the lists stay.
        SourceUnavailable: the shop's database does not answer; the lists stay.
        TableUnusable: the table has other columns, or may not be written.
    """
    started = time.perf_counter()
    surface, last = run.shop.surface, run.steps[-1]
    name = surface.publish_to or f"freshrank_{surface.name}"
    number = run.ledger.champion()
    if number is None:
        return Published(name, last.key, None, 0, 0, "there is no champion yet")
    lists = _lists(run, run.ledger.version(number))
    if lists.num_rows == 0:
        return Published(name, last.key, number, 0, 0, "no shopper has a candidate")
    table = _table(run, name)
    stamp = Stamp(number, last.start, datetime.now(UTC))
    newer = table.replace(lists, stamp)
    if newer is not None:
        kept = f"lists of the later interval that starts {newer:%Y-%m-%dT%H:%M:%SZ} stand"
        return Published(table.name, last.key, number, 0, 0, kept)
    shoppers = len(pc.unique(lists[c.SHOPPER]))
    published = Published(table.name, last.key, number, shoppers, lists.num_rows)
    run.ledger.record(
        Manifest(
            STAGE,
            surface.name,
            last,
            counts={"shoppers": shoppers, "rows": lists.num_rows},
            content_hash=content_hash(lists),
            details={"version": number, "table": table.name},
            seconds=round(time.perf_counter() - started, 3),
        )
    )
    return published


def erase(installation: Installation, forgotten: Forgotten) -> int:
    """Delete the lists of some shoppers from every table that was published to.

    Returns:
        The number of rows deleted.

    Raises:
        SourceUnavailable, TableUnusable: see `run`.
    """
    surface = installation.shop.surface
    published = installation.ledger.manifests(STAGE, surface.name)
    names = {str(each.details["table"]).rpartition(".")[2] for each in published}
    if installation.shop.published_in.connection.lower() in installation.settings.connections:
        names.add(surface.publish_to or f"freshrank_{surface.name}")

    def theirs(shoppers: Any) -> Any:
        return forgotten.among(shoppers, pseudonymised=forgotten.pseudonymised)

    return sum(_table(installation, name).erase(theirs) for name in sorted(names))


def _lists(run: Run, champion: Version) -> pa.Table:
    surface, last = run.shop.surface, run.steps[-1]
    path = run.lake.local_root / champion.artifact
    booster.read(path, champion.content_hash)
    table = f"serving/{surface.name}"
    if last.key not in run.lake.intervals(table):
        raise NotServed(
            f"{table} has nothing for {last}; run features.serve for the interval first"
        )
    written = _columns_written(run, table)
    wanted = [name for name in booster.card(path).features if name in written]
    candidates = run.lake.read(table, [last], [c.SHOPPER, c.ITEM, *wanted])
    return top(candidates, booster.score(path, candidates, run.settings.threads), surface.top_k)


def _columns_written(run: Run, table: str) -> set[str]:
    """The columns that the partition was written with: the table may have had others before."""
    served = run.ledger.manifest("serve", run.shop.surface.name, run.steps[-1])
    return set(served.details["columns"] if served else run.lake.columns(table))


def _table(run: Installation, name: str) -> PublishedTable:
    shop = run.shop
    shoppers = shop.tables[shop.shopper.table].stored_columns()
    items = shop.tables[shop.item.table].stored_columns()
    return PublishedTable(
        run.settings.connection(shop.published_in.connection),
        shop.published_in.schema_name,
        name,
        shoppers[shop.shopper.id],
        items[shop.item.id],
    )
