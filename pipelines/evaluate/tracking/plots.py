"""The plots of a challenger that MLflow shows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

SHOWN_FEATURES = 25


def draw(folder: Path, importance: Mapping[str, float]) -> None:
    """Write `feature_importance.png`, of feature → share."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    largest = sorted(importance.items(), key=lambda entry: (entry[1], entry[0]))[-SHOWN_FEATURES:]
    figure = Figure(figsize=(7, 1.2 + 0.25 * max(len(largest), 1)))
    FigureCanvasAgg(figure)
    # A layout that measures every label would take longer than all the rest of the drawing.
    axes = figure.add_axes((0.3, 0.1, 0.66, 0.84))
    axes.barh([name for name, _ in largest], [share for _, share in largest])
    axes.set(title="Feature importance", xlabel="share of the loss saved by the feature's splits")
    figure.savefig(folder / "feature_importance.png", dpi=80, metadata={"Software": None})
