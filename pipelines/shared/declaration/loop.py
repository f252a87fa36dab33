"""The settings of the loop: interval grid, learning, gate and retention."""

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
    """Length of an interval in days."""


class Learning(Declared):
    """How challengers are trained, and from what."""

    warm_up_intervals: Annotated[int, Field(ge=1)] = 8
    """Number of intervals with groups that are gathered before the first model is trained."""
    holdout_days: Annotated[float, Field(gt=0)] = 3.0
    """Days from the cut to the interval's end. Groups after the cut are the forward holdout, on
    which challenger and champion are compared; the next interval trains on them."""
    memory_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Share of all groups, chosen by a hash of the group's id, that no model ever learns from: the
    memory holdout, which shows forgetting."""
    memory_intervals: Annotated[int, Field(ge=1)] = 12
    """Number of last intervals whose memory holdout is evaluated."""
    negatives_per_group: Annotated[int, Field(ge=1)] = 60
    """Largest number of candidates without a label that a group keeps for training, drawn by
    `seed`."""
    seed: int = 17
    """Seed of every random draw in training; another seed gives other models."""
    refit_decay: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Share of a leaf's value that a refit keeps; the rest comes from the new groups. A refit for
    several intervals uses it to the power of their number."""
    refit_rounds: Annotated[int, Field(ge=0, le=50)] = 3
    """Number of trees added after a refit, for each interval that the new groups cover."""
    boost_rounds: Annotated[int, Field(ge=1, le=100)] = 20
    """Largest number of trees added at once, however many intervals the new groups cover."""
    learning_rate: Annotated[float, Field(ge=0.001, le=0.3)] = 0.05
    """Learning rate of the trees that continue a model."""
    replay_ratio: Annotated[float, Field(gt=0, le=20)] = 3.0
    """Number of past groups learned again for each new one, by strategies that replay."""
    replay_half_life: Annotated[float, Field(gt=0)] = 8.0
    """Age in intervals at which the weight of a past group in replay is halved."""
    window_intervals: Annotated[int, Field(ge=1)] = 24
    """Largest number of intervals that a new model, or replay, learns from."""
    cost_share: Annotated[float, Field(gt=0, le=1)] = 0.055
    """Cost of learning that each interval may spend, as a share of a full retrain. What is saved
    pays for new models before `blend_within` requires them."""
    blend_within: Annotated[int, Field(ge=4)] = 5
    """Largest number of runs from one new model to the next; a new model is averaged with the
    champion."""
    drift_alarm: Annotated[float, Field(gt=0)] = 4.0
    """Alarm threshold in standard errors: a stronger strategy is tried when the champion's NDCG@10
    on the new groups falls this far below the median of its recent runs."""
    position_power: Annotated[float, Field(ge=0, le=2)] = 0.5
    """Position bias, where impressions have a position: position p is looked at in proportion to p
    to the minus this power. 0 corrects nothing."""
    monotone: dict[Name, Literal[-1, 1]] = Field(default_factory=dict)
    """Feature → direction: the score may only rise (`1`) or only fall (`-1`) with the feature."""
    trainer: Literal["local", "ray"] = "local"
    """Where trees are grown: `local` on the task's machine, `ray` on a Ray cluster."""
    workers: Annotated[int, Field(ge=1)] = 2
    """Number of Ray workers; each gets its own share of the groups. Only with `trainer: ray`."""


class Gate(Declared):
    """When a challenger is promoted."""

    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.9
    """Level of the two-sided paired bootstrap interval of a gain in NDCG@10."""
    memory_margin: Annotated[float, Field(ge=0)] = 0.01
    """Largest loss of NDCG@10 against the champion on the memory holdout, at the lower end of the
    bootstrap interval."""
    min_groups: Annotated[int, Field(ge=1)] = 50
    """Smallest number of groups that a holdout must have; with fewer the champion stays."""
    max_trees: Annotated[int, Field(ge=1)] = 500
    """Largest number of trees of a model; a challenger that would pass it is compacted instead."""
    max_megabytes: Annotated[float, Field(gt=0)] = 20.0
    """Largest size of a model's text in megabytes; a challenger that would pass it is compacted."""
    max_score_ms: Annotated[float, Field(gt=0)] = 50.0
    """Longest time in milliseconds to score 500 candidates on one thread, reckoned from the nodes
    of the trees that they visit, so that a busy machine changes no verdict."""
    compact_margin: Annotated[float, Field(ge=0)] = 0.005
    """Largest loss of NDCG@10 against the champion on the forward holdout, at the lower end of the
    bootstrap interval, of a new model that replaces one which cannot be continued."""


class Retention(Declared):
    """How many days data is kept, counted back from the end of the last extracted interval.

    What has no number of days is kept for ever. State, valid changes and groups never expire: the
    next runs are computed from them.
    """

    changes_days: Annotated[int, Field(ge=1)] | None = None
    """Days that validated raw changes are kept. Older intervals cannot be validated again, and
    `python -m pipelines rows` cannot show rows of that time."""
    quarantine_days: Annotated[int, Field(ge=1)] | None = None
    """Days that quarantined rows are kept."""
    docs_days: Annotated[int, Field(ge=1)] | None = None
    """Days that validation's pages (Data Docs) are kept."""
    captured_days: Annotated[int, Field(ge=1)] | None = None
    """Days that captured changes are kept in the shop's own database, with `capture: trigger`, once
    they are extracted and a later change of the same row has replaced them. Older intervals cannot
    be extracted again."""

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
