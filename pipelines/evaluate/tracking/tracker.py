"""The port to a tracking server, and the report of an evaluation that goes through it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from pipelines.shared.intervals import Interval
from pipelines.shared.servable.packaging import StoredModel


@dataclass(frozen=True)
class DataVersion:
    """A part of the lake that the evaluation stands on."""

    name: str
    digest: str
    """Hash of the content; the same for the same rows."""
    uri: str
    delta_version: int | None
    first: Interval
    last: Interval


@dataclass(frozen=True)
class ModelReport(StoredModel):
    """One challenger."""

    parent: int | None
    trained_through: str
    metrics: Mapping[str, float]
    importance: Mapping[str, float]
    """Feature → share of the loss that its splits saved."""
    version: int | None = None
    """The ledger's number, if it was registered before."""


@dataclass(frozen=True)
class Report:
    """One interval's evaluation."""

    shop: str
    surface: str
    interval: Interval
    ordinal: int
    """The interval's place on the shop's grid: the step of every metric."""
    content_hash: str
    """Of all that is reported: the same for a rerun."""
    metrics: Mapping[str, float]
    params: Mapping[str, str]
    tags: Mapping[str, str]
    data: tuple[DataVersion, ...]
    models: tuple[ModelReport, ...]
    sample: pa.Table
    """Candidates with their features, as an example of a model's input; nobody's own."""
    artifacts: Path
    """Where a tracking store that is no server keeps its files."""

    @property
    def experiment(self) -> str:
        """Name of the experiment."""
        return f"{self.shop}/{self.surface}"

    @property
    def model_name(self) -> str:
        """Name of the registered model."""
        return f"{self.shop}-{self.surface}"


class Tracker(Protocol):
    """Shows evaluations and registers model versions."""

    def check(self) -> None:
        """Return if the tracker can be reached.

        Raises:
            TrackingUnavailable: it cannot.
        """

    def record(self, report: Report) -> Mapping[str, int]:
        """Show the evaluation; strategy → registered version. A second time changes nothing.

        Raises:
            TrackingUnavailable: the tracker went away; a rerun completes what was begun.
        """
