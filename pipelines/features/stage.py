"""The stage's entry points."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from pipelines.features import assemble, candidates, catalogue, fold
from pipelines.features.engines import engine
from pipelines.features.known import read_known
from pipelines.features.moment import AsOf
from pipelines.features.pending import StepMissing, chain_of, is_stale, require_state, validated
from pipelines.features.state import storage
from pipelines.features.state.storage import Layout
from pipelines.shared import columns
from pipelines.shared.hashing import content_hash
from pipelines.shared.intervals import Interval
from pipelines.shared.ledger import Manifest
from pipelines.shared.run import Run

STAGE = "features"
SERVE = "serve"
Track = Callable[[Sequence[Interval]], Iterable[Interval]]


@dataclass(frozen=True)
class Built:
    """What the stage wrote for a run's interval."""

    surface: str
    groups: int
    rows: int
    steps: tuple[dict[str, Any], ...]
    """Of each step of the run: `start`, its counts, `content_hash`, `candidate_recall`."""
    healed: tuple[str, ...]
    """Other steps that were folded: left over from before, or built on what has changed."""
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


def run(run: Run, track: Track = iter) -> Built:
    """Fold every step that waits for it, oldest first, and the run's own again.

    A step waits that was validated and not folded, or whose changes or past are no longer those
    that it was folded from; steps after the run are folded again too when theirs are not.

    Args:
        track: wraps the steps that have to be folded as far as they are known, for progress.

    Raises:
        StepMissing: a step of the run, or before it, was not validated.
        CorruptPartition: a partition that is read is damaged.
        TurnLost, TurnTaken: it is another run's turn.
        FeatureMismatch: the state before was written for another declaration.
    """
    run.require_turn()
    layout = Layout(run.shop)
    surface = run.shop.surface.name
    inputs = validated(run)
    folded = {manifest.interval: manifest for manifest in run.ledger.manifests(STAGE, surface)}
    waiting = {step for step in inputs if step.end <= run.interval.end} - folded.keys()
    wanted = waiting | set(run.steps)
    last = max(wanted)
    require_state(
        run, {step: each for step, each in folded.items() if step < last and step not in wanted}
    )
    written: dict[Interval, Manifest] = {}
    before: Manifest | None = None
    with engine(run.settings) as opened:
        for step in track(sorted(wanted | folded.keys())):
            if step in wanted or is_stale(
                folded[step], inputs.get(step), before, bool(before and before.interval in written)
            ):
                as_of = AsOf(step.start, before.interval if before else None)
                written[step] = fold.take(
                    run, opened, layout, step, as_of, inputs.get(step), chain_of(before)
                )
            before = written.get(step) or folded[step]
    healed = sorted(written.keys() - set(run.steps))
    return _built(layout, [written[step] for step in run.steps], healed)


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
    """Write `serving/<surface>`: candidates and features of every shopper in the step to come.

    The same code as for groups, of items that can be had, at the weekday and hour at which the
    shopper mostly comes; one without orders gets what is popular.

    Raises:
        StepMissing: the run's last step was not folded.
    """
    layout = Layout(run.shop)
    surface, last = run.shop.surface, run.steps[-1]
    if (folded := run.ledger.manifest(STAGE, surface.name, last)) is None:
        raise StepMissing(f"{run.shop.shop}: {last} has no features yet; run features for it first")
    require_state(run, {last: folded})
    schema = pa.schema(
        {
            columns.SHOPPER: layout.shopper,
            columns.ITEM: layout.item,
            **catalogue.types(layout),
        }
    )
    with engine(run.settings) as opened:
        known = read_known(run, opened, layout, AsOf(run.interval.end, last), available=True)
        everyone = opened.load(storage.read(run, storage.SHOPPERS, layout.shoppers, last))
        shoppers = opened.materialize(everyone.select(columns.SHOPPER))
        proposed = candidates.propose(
            opened, known, layout, shoppers, surface.max_candidates, known.offered
        )
        shown = assemble.usual_visits(
            opened, shoppers, known.counters.lines, run.interval.end, run.shop.interval.days
        )
        pairs = proposed.pairs.select(*assemble.PAIR)
        built = assemble.build(opened, shown, pairs, known, proposed, layout)
        served = opened.arrow(built, schema, columns.SHOPPER, columns.ITEM)
        count = opened.count(shoppers)
        cold = opened.count(shoppers.anti_join(known.counters.shoppers, columns.SHOPPER))
    run.lake.replace(f"serving/{surface.name}", last, served)
    digest = content_hash(served)
    run.ledger.record(
        Manifest(
            SERVE,
            surface.name,
            last,
            counts={"rows": served.num_rows},
            content_hash=digest,
            details={"columns": schema.names},
        )
    )
    return Served(surface.name, last.key, count, cold, served.num_rows, digest)
