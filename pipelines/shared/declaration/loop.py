"""How the loop goes: its grid, learning, the gate, and what is kept."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipelines.shared.declaration.base import Declared, Name


class Every(Declared):
    """The interval grid of the shop."""

    anchor: date
    """A day on which an interval starts, at midnight UTC."""
    days: Annotated[int, Field(ge=1, le=31)] = 7
    """Length of an interval."""


class Learning(Declared):
    """How challengers learn."""

    warm_up_intervals: Annotated[int, Field(ge=1)] = 8
    """Intervals with groups before the first model is trained."""
    holdout_days: Annotated[float, Field(gt=0)] = 3.0
    """The cut lies this long before the interval's end; what follows is the forward holdout."""
    memory_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Share of groups that no model ever learns from."""
    memory_intervals: Annotated[int, Field(ge=1)] = 12
    """The memory holdout reaches back this many intervals."""
    negatives_per_group: Annotated[int, Field(ge=1)] = 60
    """Unlabelled candidates kept for training, per group, drawn with a fixed seed."""
    seed: int = 17
    """Of every random draw in training; another seed gives other models."""
    refit_decay: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """How much of a leaf's value stays when the new groups move it."""
    refit_rounds: Annotated[int, Field(ge=0, le=50)] = 3
    """Trees that follow the moved leaves, each interval."""
    boost_rounds: Annotated[int, Field(ge=1, le=100)] = 20
    """At most so many trees follow, however many intervals the new groups cover."""
    learning_rate: Annotated[float, Field(ge=0.001, le=0.3)] = 0.05
    """Of the trees that continue a model."""
    replay_ratio: Annotated[float, Field(gt=0, le=20)] = 3.0
    """Groups of the past that are learned once more beside the new ones, for each new one."""
    replay_half_life: Annotated[float, Field(gt=0)] = 8.0
    """Intervals after which a group of the past counts half."""
    window_intervals: Annotated[int, Field(ge=1)] = 24
    """A new model learns from at most so many intervals; replay reaches as far."""
    cost_share: Annotated[float, Field(gt=0, le=1)] = 0.055
    """What learning may cost of a full retrain each interval; what is saved buys new models earlier
    than `blend_within` asks for them."""
    blend_within: Annotated[int, Field(ge=4)] = 5
    """Runs from one new model, which is averaged with the champion, to the next at most."""
    drift_alarm: Annotated[float, Field(gt=0)] = 4.0
    """Standard errors by which the champion must fall behind its past on the new groups for a
    stronger strategy to be tried."""
    position_power: Annotated[float, Field(ge=0, le=2)] = 0.5
    """Where impressions are logged: a place p is looked at in proportion to p to the minus this."""
    monotone: dict[Name, Literal[-1, 1]] = Field(default_factory=dict)
    """Feature → whether the score may only rise (1) or only fall (-1) with it."""
    trainer: Literal["local", "ray"] = "local"
    """Where trees are grown."""
    workers: Annotated[int, Field(ge=1)] = 2
    """Of Ray, each with its own share of the groups."""


class Gate(Declared):
    """When a challenger is taken."""

    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.9
    """Level of the two-sided paired bootstrap interval."""
    memory_margin: Annotated[float, Field(ge=0)] = 0.01
    """How much NDCG@10 on the memory holdout may lie below the champion's, at worst."""
    min_groups: Annotated[int, Field(ge=1)] = 50
    """Fewer groups in the forward holdout prove nothing."""
    max_trees: Annotated[int, Field(ge=1)] = 500
    """Budget of a model's trees; beyond it the challenger is compacted."""
    max_megabytes: Annotated[float, Field(gt=0)] = 20.0
    """Budget of a model's text, in megabytes."""
    max_score_ms: Annotated[float, Field(gt=0)] = 50.0
    """The 99th percentile of the time to score 500 candidates, on one thread."""
    compact_margin: Annotated[float, Field(ge=0)] = 0.005
    """How much NDCG@10 on the forward holdout a model that a budget forced may lie below the
    champion's, at worst."""


class Retention(Declared):
    """How many days lake tables reach back from the end of the newest extracted interval.

    None keeps everything. State, valid changes and groups are what the next runs are computed
    from: they never expire.
    """

    changes_days: Annotated[int, Field(ge=1)] | None = None
    """Raw changes, once they are validated. Without them nothing is validated again, and no row
    of an earlier time can be told (`python -m pipelines rows`)."""
    quarantine_days: Annotated[int, Field(ge=1)] | None = None
    """Quarantined rows."""
    docs_days: Annotated[int, Field(ge=1)] | None = None
    """Validation's pages for people."""
    captured_days: Annotated[int, Field(ge=1)] | None = None
    """With `capture: trigger`: changes in the shop's own database that were extracted and that a
    later change of the same row has overtaken. Intervals of before are not extracted again."""

    @model_validator(mode="before")
    @classmethod
    def _only_what_may_go(cls, given: Any) -> Any:
        for name in ("state_days", "valid_days", "groups_days"):
            if isinstance(given, dict) and name in given:
                raise ValueError(
                    f"{name}: the next runs are computed from {name.removesuffix('_days')}, which "
                    "therefore never expires; accepted: changes_days, quarantine_days, docs_days, "
                    "captured_days"
                )
        return given
