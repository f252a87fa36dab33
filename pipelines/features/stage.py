"""The stage's entry points."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from pipelines.features import assemble, candidates, catalogue, fold
from pipelines.features.engines import engine
from pipelines.features.known import read_known
from pipelines.features.moment import AsOf
from pipelines.features.state import storage
from pipelines.features.state.storage import Layout
from pipelines.shared import columns
from pipelines.shared.errors import PermanentError
from pipelines.shared.hashing import content_hash
from pipelines.shared.intervals import Interval
from pipelines.shared.ledger import Manifest
from pipelines.shared.run import Run

STAGE = "features"


class StepMissing(PermanentError):
    """A step that this stage builds on was not validated, or not folded."""


@dataclass(frozen=True)
class Built:
    """What the stage wrote for a run's interval."""

    surface: str
    groups: int
    rows: int
    steps: tuple[dict[str, Any], ...]
    """Of each step of the run: `start`, its counts, `content_hash`, `candidate_recall`."""
    healed: tuple[str, ...]
    """Earlier steps that were validated and not folded, and are now."""
    features: tuple[str, ...]
    categorical: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """As plain values, for a task's result."""
        return asdict(self)


@dataclass(frozen=True)
class Served:
    """The serving partition."""

    surface: str
    interval: str
    shoppers: int
    cold: int
    """Shoppers without an order in the window; they get what is popular."""
    rows: int
    content_hash: str

    def as_dict(self) -> dict[str, Any]:
        """As plain values, for a task's result."""
        return asdict(self)


def run(run: Run) -> Built:
    """Fold every validated step that is not folded yet, oldest first, and the run's own again.

    Raises:
        StepMissing: a step of the run was not validated.
        CorruptPartition: a partition that is read is damaged.
        TurnLost, TurnTaken: it is another run's turn.
    """
    run.require_turn()
    layout = Layout(run.shop)
    surface = run.shop.surface.name
    validated = _validated(run)
    if missing := [step for step in run.steps if step not in validated]:
        raise StepMissing(
            f"{run.shop.shop}: {missing[0]} was not validated for every table "
            f"({', '.join(storage.tables_read(run.shop))}); run extract and validate for it first"
        )
    folded = {manifest.interval for manifest in run.ledger.manifests(STAGE, surface)}
    healed = sorted(
        step for step in validated - folded - set(run.steps) if step.end <= run.interval.end
    )
    written: dict[Interval, Manifest] = {}
    with engine(run.settings) as opened:
        for step in sorted({*healed, *run.steps}):
            before = max((done for done in folded if done < step), default=None)
            written[step] = fold.take(run, opened, layout, step, AsOf(step.start, before))
            folded.add(step)
    return _built(layout, [written[step] for step in run.steps], healed)


def _validated(run: Run) -> set[Interval]:
    tables = storage.tables_read(run.shop)
    done = {table: set[Interval]() for table in tables}
    for manifest in run.ledger.manifests("validate"):
        if manifest.subject in done:
            done[manifest.subject].add(manifest.interval)
    return set.intersection(*done.values())


def _built(layout: Layout, written: list[Manifest], healed: list[Interval]) -> Built:
    features = catalogue.catalogue(layout)
    return Built(
        layout.shop.surface.name,
        sum(manifest.counts["groups"] for manifest in written),
        sum(manifest.counts["rows"] for manifest in written),
        tuple(
            {"start": manifest.interval.key, **manifest.counts}
            | {"content_hash": manifest.content_hash}
            | {"candidate_recall": manifest.details["candidate_recall"]}
            for manifest in written
        ),
        tuple(step.key for step in healed),
        tuple(feature.name for feature in features),
        tuple(feature.name for feature in features if feature.categorical),
    )


def serve(run: Run) -> Served:
    """Write `serving/<surface>`: candidates and features of every shopper at the interval's end.

    The same code as for groups; a shopper without orders gets what is popular.

    Raises:
        StepMissing: the run's last step was not folded.
    """
    layout = Layout(run.shop)
    surface, last = run.shop.surface, run.steps[-1]
    if run.ledger.manifest(STAGE, surface.name, last) is None:
        raise StepMissing(f"{run.shop.shop}: {last} has no features yet; run features for it first")
    schema = pa.schema(
        {
            columns.SHOPPER: layout.shopper,
            columns.ITEM: layout.item,
            **catalogue.types(layout),
        }
    )
    with engine(run.settings) as opened:
        known = read_known(run, opened, layout, AsOf(run.interval.end, last))
        everyone = opened.load(storage.read(run, storage.SHOPPERS, layout.shoppers, last))
        shoppers = opened.materialize(everyone.select(columns.SHOPPER))
        proposed = candidates.propose(opened, known, layout, shoppers, surface.max_candidates)
        shown = assemble.visits(shoppers, run.interval.end)
        pairs = proposed.pairs.select(*assemble.PAIR)
        built = assemble.build(opened, shown, pairs, known, proposed, layout)
        served = opened.arrow(built, schema, columns.SHOPPER, columns.ITEM)
        count = opened.count(shoppers)
        cold = opened.count(shoppers.anti_join(known.counters.shoppers, columns.SHOPPER))
    run.lake.replace(f"serving/{surface.name}", last, served)
    return Served(surface.name, last.key, count, cold, served.num_rows, content_hash(served))
