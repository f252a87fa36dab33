"""Who was forgotten is recognised by a keyed hash, in every form that an id is stored in."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from pipelines.shared.forgotten import Forgotten, PersonHash
from pipelines.shared.hashing import pseudonym
from tests.extract.postgres_shop import tiny

HASHED = PersonHash(b"a key")


def test_an_id_has_one_hash_as_it_is_and_as_a_pseudonym() -> None:
    raw = HASHED.of_raw("u-1")
    assert HASHED.of_stored("u-1", pseudonymised=False) == raw
    assert HASHED.of_stored(pseudonym(b"a key", "u-1"), pseudonymised=True) == raw
    assert raw != pseudonym(b"a key", "u-1"), "copies of the lake hold the pseudonym"
    assert len({raw, HASHED.of_raw("u-2"), PersonHash(b"another").of_raw("u-1")}) == 3
    assert HASHED.check != PersonHash(b"another").check


@pytest.mark.parametrize(
    ("raw", "stored", "kind"),
    [
        ("17", 17, pa.int64()),
        ("17", 17, pa.int32()),
        ("17", "17", pa.string()),
        ("17", Decimal(17), pa.decimal128(10, 0)),
    ],
)
def test_ids_of_every_type_are_found(raw: str, stored: Any, kind: pa.DataType) -> None:
    forgotten = Forgotten(tiny(), frozenset({HASHED.of_raw(raw)}), HASHED)
    values = pa.array([stored, None, stored, type(stored)(18)], kind)
    assert forgotten.among(values, pseudonymised=False).to_pylist() == [stored]
    rows = pa.table({"a": values, "b": pa.array([None, stored, None, None], kind)})
    assert forgotten.theirs(rows, {"a": False, "b": False, "c": False}).to_pylist() == [
        True, True, True, False,
    ]  # fmt: skip


def test_nobody_is_left_out_where_nobody_was_forgotten() -> None:
    nobody = Forgotten(tiny(), frozenset(), None)
    batch = pa.record_batch({"uid": ["u-1"]})
    assert list(nobody.left_out("users", iter([batch]))) == [batch]
    some = Forgotten(tiny(), frozenset({HASHED.of_raw("u-1")}), HASHED)
    assert list(some.left_out("users", iter([batch]))) == []
    assert list(some.left_out("articles", iter([batch]))) == [batch]
