"""Draws, content hashes, a tiny model, a manifest and a card have the values they had in 0.1.0.

What an installation holds rests on these: groups are in the holdouts by their draws, partitions are
verified by their hashes, and the ledger's manifests and the models' cards are read again. A change
of these values is a change of every installation.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines.shared.declaration import Learning
from pipelines.shared.hashing import content_hash, draw
from pipelines.shared.intervals import utc
from pipelines.shared.models import booster
from pipelines.shared.models.challengers import Challenger, Trained
from pipelines.train.data.examples import Examples
from pipelines.train.models import parameters
from pipelines.train.trainers import local
from pipelines.train.trainers.job import Job

VALUES: dict[str, Any] = json.loads((Path(__file__).parent / "values.json").read_text("utf-8"))


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("memory", (["a", "b", "basket-7", ""],)),
        ("negatives/17", (["a", "a", "b"], [1, 2, 1])),
        ("worker", (pa.array([3, 1, 2**40]),)),
    ],
)
def test_draws(name: str, columns: tuple[Any, ...]) -> None:
    assert draw(name, *columns).tolist() == VALUES["draws"][name]


def test_a_content_hash() -> None:
    moment = dt.datetime(2017, 1, 9, 12, 30, tzinfo=dt.UTC)
    table = pa.table(
        {
            "key": pa.array([1, 2, None], pa.int64()),
            "name": pa.array(["käse", None, ""]),
            "price": pa.array([Decimal("1.20"), None, Decimal("-3.00")], pa.decimal128(10, 2)),
            "score": pa.array([0.5, float("inf"), None], pa.float32()),
            "known": pa.array([True, None, False]),
            "at": pa.array([moment, None, moment], pa.timestamp("us", "UTC")),
            "items": pa.array([[1, 2], None, []], pa.list_(pa.int64())),
        }
    )
    assert content_hash(table) == VALUES["content_hash"]


def _examples(shift: int) -> Examples:
    """Sixteen groups of twelve rows, of small whole numbers."""
    rows = np.arange(192)
    x, y, z, category = (rows * 7 + shift) % 11, rows * 5 % 13, rows * rows % 17, rows // 3 % 4
    grade = (y // 5 + (x > 7) + (z > 12)).astype(np.float32)
    features = pa.table(
        {
            "x": pa.array(x, pa.float32()),
            "y": pa.array(y, pa.float32()),
            "z": pa.array(z, pa.float32()),
            "category": pa.array(category, pa.int32()),
        }
    )
    ids = pa.array([f"g{group}" for group in range(16)])
    return Examples(features, grade, np.full(16, 12), ids, np.ones(192, np.float32))


def _structure(text: str) -> list[dict[str, list[float]]]:
    """Of each tree what it asks for, how rows fall, and what its leaves add."""
    return [
        {
            name: [float(value) for value in values.split()]
            for name, values in re.findall(r"^(\w+)=([-\d. e+]*)$", tree, re.MULTILINE)
            if name in VALUES["model"][0]
        }
        for tree in text.split("\nTree=")[1:]
    ]


def test_a_new_model_and_its_refit() -> None:
    """Sums of floating point may differ in the last digits between machines, splits do not."""
    first, later = _examples(0), _examples(3)
    params = parameters.parameters(Learning(), first.features.column_names, 192, threads=1)
    text = local.train(Job(first, params | {"num_leaves": 4}, 5))
    refitted = local.train(Job(later, params | {"num_leaves": 4}, 1, text, decay=0.9))
    for name, trees in (("model", _structure(text)), ("refit", _structure(refitted))):
        assert len(trees) == len(VALUES[name])
        for tree, expected in zip(trees, VALUES[name], strict=True):
            assert tree.keys() == expected.keys()
            for field in tree:
                assert tree[field] == pytest.approx(expected[field], rel=1e-6), (name, field)


def test_a_manifest_of_training() -> None:
    stored = VALUES["manifest"]
    trained = Trained(
        surface="basket",
        cut=utc("2017-03-03"),
        trained_from=utc("2017-02-24"),
        parent=4,
        challengers=(
            Challenger(
                strategy="blend",
                artifact="models/basket/2017-02-27T000000Z/blend-0f0e0d0c0b0a.txt",
                parent=4,
                trained_through=utc("2017-03-03"),
                trees=80,
                content_hash="0f0e0d0c0b0a",
                groups=1203,
                rows=72310,
                forced=False,
                seconds=3.2,
            ),
        ),
        reason=None,
        notes=("blend: no new model for 4 runs",),
        groups=161,
        without_relevant=7,
        one_grade=2,
        health={"ndcg_at_10": 0.512345, "error": 0.021, "groups": 159},
        replay=None,
        spent={"work": 48120.0, "full": 160900.0},
    )
    assert trained.details() == stored
    read = Trained.of(stored)
    assert read.details() == stored
    assert read.challengers[0].trained_through == read.cut == trained.cut


def test_a_card(tmp_path: Path) -> None:
    (tmp_path / "blend.json").write_text(json.dumps(VALUES["card"]), encoding="utf-8")
    card = booster.card(tmp_path / "blend.txt")
    booster.save(tmp_path, "again", "tree", card)
    written = json.loads((tmp_path / "again.json").read_text(encoding="utf-8"))
    # No strategy has a learning curve any more: 0.1.0 wrote an empty one, or `boost`'s.
    assert written == {
        name: value for name, value in VALUES["card"].items() if name != "learning_curve"
    }
