"""One challenger goes to the gate: the better of several, on groups that the gate does not use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pipelines.train import drift
from pipelines.train.models import boosting, parameters
from pipelines.train.strategies import STRATEGIES, Grown, Material


@dataclass(frozen=True)
class Chosen:
    """The challenger of a run."""

    name: str
    grown: Grown
    notes: tuple[str, ...] = ()


def best(names: Sequence[str], material: Callable[[str], Material]) -> Chosen:
    """Grow the only challenger, or let rivals learn most of the new groups and compare them on
    the rest; the better one is then grown anew on all of them, so that nothing is lost.

    Args:
        names: strategies, the usual one first: it stands where none is better. Several must all
            learn the new groups.
        material: what a strategy learns from.
    """
    usual = names[0]
    if len(names) == 1:
        return Chosen(usual, STRATEGIES[usual].grow(material(usual)))
    new = material(usual).new
    aside = parameters.aside(material(usual).rules.learning, new.ids)
    if not aside.any() or aside.all():
        return Chosen(usual, STRATEGIES[usual].grow(material(usual)))
    kept, learned = new.of(aside), new.of(~aside)
    found = {}
    for name in names:
        own = replace(material(name), new=learned, leaves=None)
        scores = boosting.scores(STRATEGIES[name].grow(own).text, kept.features, own.rules.threads)
        found[name] = float(drift.ndcg(kept, scores).mean())
    name = max(names, key=found.__getitem__)
    told = ", ".join(f"{each} {value:.4f}" for each, value in found.items())
    said = f"{name}, by NDCG@10 on {kept.groups} groups kept aside: {told}"
    return Chosen(name, STRATEGIES[name].grow(material(name)), (said,))
