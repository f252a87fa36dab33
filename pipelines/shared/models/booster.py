"""Reading and scoring LightGBM models: the one place outside training that knows LightGBM."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.shared.errors import CorruptPartition, FeatureMismatch, LakeUnavailable
from pipelines.shared.partition_writer import sync

CANDIDATES: Final = 500
"""Candidates whose scoring time has a budget."""
NODE_VISIT_NS: Final = 15.0
"""Nanoseconds of a visit to a tree's node: nine models of 80 to 124 trees, with the bundled shop's
62 features, took 12 to 17, all that a prediction costs included; timed once, by hand, on one busy
machine."""


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
    """Write `<name>.txt` and `<name>.json`, each whole or not at all, the text first.

    Both are on the disk when it returns.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, content in (("txt", text), ("json", json.dumps(asdict(card), sort_keys=True))):
        part = folder / f".{name}.{suffix}.part"
        part.write_text(content, encoding="utf-8")
        sync(part)
        part.replace(folder / f"{name}.{suffix}")
    sync(folder)


def read(path: Path, content_hash: str | None = None) -> str:
    """A model text, as it was trained.

    Args:
        content_hash: its SHA-256; where it is not known, the start of it, which the file's name
            holds, has to fit.

    Raises:
        CorruptPartition: the text is gone, or is another.
        LakeUnavailable: it cannot be read now.
    """
    with readable(path):
        text = path.read_bytes()
    digest = hashlib.sha256(text).hexdigest()
    expected = content_hash or path.stem.rpartition("-")[2]
    if (content_hash or _DIGEST.fullmatch(expected)) and not digest.startswith(expected):
        raise CorruptPartition(
            f"the model text {path} is not the one that was trained (SHA-256 {digest[:12]}…, "
            f"on record {expected[:12]}…); {_WAY_OUT}"
        )
    return text.decode()


_DIGEST: Final = re.compile("[0-9a-f]{12}")
_WAY_OUT: Final = (
    "`python -m pipelines verify --repair` restores it from a backup, or trains its interval again"
)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Tell a file of a model that is gone or damaged from one that cannot be read now."""
    try:
        yield
    except FileNotFoundError as error:
        raise CorruptPartition(f"the model's file {path} is gone; {_WAY_OUT}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise CorruptPartition(
            f"the model's file {path} is damaged ({error}); {_WAY_OUT}"
        ) from error
    except OSError as error:
        raise LakeUnavailable(f"the model's file {path} cannot be read now ({error})") from error


def card_of(path: Path) -> Path:
    """The path of the card of a model text."""
    return path.with_suffix(".json")


def card(path: Path) -> ModelCard:
    """The card of a model text; cards of earlier versions also hold a `learning_curve`.

    Raises:
        CorruptPartition: it is gone or damaged.
        LakeUnavailable: it cannot be read now.
    """
    with readable(card_of(path)):
        stored = json.loads(card_of(path).read_text(encoding="utf-8"))
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
        CorruptPartition: the model's text or card is gone or damaged.
    """
    wanted = list(card(path).features)
    if missing := [name for name in wanted if name not in rows.column_names]:
        raise FeatureMismatch(
            f"model {path.name} wants features that the data lacks: {', '.join(missing)}; switch "
            "their families on again under `features` in shop.yaml and run `python -m pipelines "
            "features rebuild` for the interval, or let the next run replace the model"
        )
    if rows.num_rows == 0:
        return np.empty(0)
    booster = lightgbm().Booster(model_str=read(path))
    scores = booster.predict(rows.select(wanted).combine_chunks(), num_threads=threads)
    return np.asarray(scores, dtype=np.float64)


def score_ms(text: str, rows: pa.Table, candidates: int = CANDIDATES) -> float:
    """The milliseconds that scoring some candidates takes on one thread, reckoned from the model.

    Every candidate visits the nodes of every tree from its root to a leaf; a visit costs
    `NODE_VISIT_NS`. A time that was measured would differ from rerun to rerun, and with it what is
    decided.

    Args:
        text: a model text.
        rows: at least one candidate with the model's features, in its order; they are repeated
            to fill up.
    """
    booster = lightgbm().Booster(model_str=text)
    some = rows.take(np.resize(np.arange(rows.num_rows), candidates)).combine_chunks()
    leaves = np.asarray(booster.predict(some, pred_leaf=True)).reshape(candidates, -1)
    return float(_depths(text, leaves).sum()) * NODE_VISIT_NS / 1e6


def _depths(text: str, leaves: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """How many nodes lie above a leaf.

    Args:
        leaves: candidates × trees, the leaf of each.

    Returns:
        candidates × trees.
    """
    depths = np.zeros(leaves.shape, np.int64)
    for tree, block in enumerate(text.split("\nTree=")[1:]):
        children = [
            [int(child) for child in found[1].split()]
            for side in ("left", "right")
            if (found := re.search(rf"^{side}_child=(.*)$", block, re.MULTILINE))
        ]
        of_node, of_leaf = {0: 1}, np.zeros(len(children[0]) + 1 if children else 1, np.int64)
        # A node's children come after it; a leaf is a negative number.
        for node, pair in enumerate(zip(*children, strict=True)):
            for child in pair:
                if child < 0:
                    of_leaf[-child - 1] = of_node[node]
                else:
                    of_node[child] = of_node[node] + 1
        depths[:, tree] = of_leaf[leaves[:, tree]]
    return depths


def importance(path: Path) -> dict[str, float]:
    """How much loss each feature's splits saved in a model, as shares that sum to 1 (or are 0)."""
    booster = lightgbm().Booster(model_str=read(path))
    gains = np.asarray(booster.feature_importance("gain"), dtype=np.float64)
    shares = gains / (gains.sum() or 1.0)
    return dict(zip(booster.feature_name(), shares.tolist(), strict=True))
