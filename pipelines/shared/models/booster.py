"""Reading and scoring LightGBM models: the one place outside training that knows LightGBM."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.shared.errors import FeatureMismatch

CANDIDATES: Final = 500
"""Candidates whose scoring time has a budget."""
_REPEATS: Final = 50


@dataclass(frozen=True)
class ModelCard:
    """The description that travels with a model text, as JSON beside it."""

    features: tuple[str, ...]
    categorical: tuple[str, ...]
    vocabulary: dict[str, dict[str, int]]
    """Categorical feature → value → integer code, as known when the model was trained."""
    strategy: str
    parent: int | None
    trained_through: str
    interval_start: str
    interval_end: str
    trees: int
    groups: int
    params: dict[str, Any]


def lightgbm() -> Any:
    """LightGBM, imported when it is needed.

    Its threads sleep while they wait: spinning ones took three times as long as sleeping ones on
    a machine whose cores were shared with other work. A set OMP_WAIT_POLICY stands.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import lightgbm

    return lightgbm


def save(folder: Path, name: str, text: str, card: ModelCard) -> None:
    """Write `<name>.txt` and `<name>.json`, each whole or not at all, the text first."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, content in (("txt", text), ("json", json.dumps(asdict(card), sort_keys=True))):
        part = folder / f".{name}.{suffix}.part"
        part.write_text(content, encoding="utf-8")
        part.replace(folder / f"{name}.{suffix}")


def card(path: Path) -> ModelCard:
    """The card of a model text; cards of earlier versions also hold a `learning_curve`."""
    stored = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    stored.pop("learning_curve", None)
    for name in ("features", "categorical"):
        stored[name] = tuple(stored[name])
    return ModelCard(**stored)


def score(path: Path, rows: pa.Table, threads: int) -> npt.NDArray[np.float64]:
    """Score candidates.

    Args:
        path: the model text.
        rows: n candidates with every feature of the model's card, in any column order.

    Returns:
        float64 array of n scores; higher ranks first.

    Raises:
        FeatureMismatch: `rows` lacks a feature of the model.
    """
    lgb = lightgbm()

    wanted = list(card(path).features)
    if missing := [name for name in wanted if name not in rows.column_names]:
        raise FeatureMismatch(
            f"model {path.name} wants features that the data lacks: {', '.join(missing)}; "
            "rebuild the interval's features, or let the next run train a first model"
        )
    if rows.num_rows == 0:
        return np.empty(0)
    booster = lgb.Booster(model_file=str(path))
    scores = booster.predict(rows.select(wanted).combine_chunks(), num_threads=threads)
    return np.asarray(scores, dtype=np.float64)


def score_ms(text: str, rows: pa.Table, candidates: int = CANDIDATES) -> float:
    """The 99th percentile of the milliseconds that scoring some candidates takes on one thread.

    The processor's time in that thread, so that other work on the machine does not count.

    Args:
        text: a model text.
        rows: at least one candidate with the model's features, in its order; they are repeated
            to fill up.
    """
    booster = lightgbm().Booster(model_str=text)
    some = rows.take(np.resize(np.arange(rows.num_rows), candidates)).combine_chunks()
    seconds = []
    for _ in range(_REPEATS + 1):
        started = time.thread_time()
        booster.predict(some, num_threads=1)
        seconds.append(time.thread_time() - started)
    # The first call also prepares the prediction.
    return float(np.quantile(seconds[1:], 0.99, method="lower")) * 1000


def importance(path: Path) -> dict[str, float]:
    """How much loss each feature's splits saved in a model, as shares that sum to 1 (or are 0)."""
    lgb = lightgbm()

    booster = lgb.Booster(model_file=str(path))
    gains = np.asarray(booster.feature_importance("gain"), dtype=np.float64)
    shares = gains / (gains.sum() or 1.0)
    return dict(zip(booster.feature_name(), shares.tolist(), strict=True))
