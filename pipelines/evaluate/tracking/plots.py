"""The plots of a challenger that MLflow shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

SHOWN_FEATURES = 25


def draw(folder: Path, importance: Mapping[str, float], curve: Sequence[float]) -> None:
    """Write `feature_importance.png` and, where a curve was kept, `learning_curve.png`.

    Args:
        importance: feature → share.
        curve: NDCG@10 after each round.
    """
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
    if not curve:
        return
    figure = Figure(figsize=(7, 4))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.14, 0.14, 0.82, 0.76))
    axes.plot(range(1, len(curve) + 1), list(curve))
    axes.set(title="Learning curve", xlabel="round", ylabel="NDCG@10 on groups kept for stopping")
    figure.savefig(folder / "learning_curve.png", dpi=80, metadata={"Software": None})
