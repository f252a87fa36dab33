"""A shop is declared, strictly; every fault names its file, its path and what is accepted."""

import copy
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

from pipelines.shared.declaration import load_shop
from pipelines.shared.declaration.column_types import arrow_type
from pipelines.shared.errors import DeclarationError

PROJECT = Path(__file__).parents[2]
TINY = yaml.safe_load((PROJECT / "tests/declared/tiny/shop.yaml").read_text())


@pytest.mark.parametrize(
    ("folder", "name"), [("shops", "completejourney"), ("tests/declared", "tiny")]
)
def test_both_shops_are_well_declared(folder, name):
    shop = load_shop(name, PROJECT / folder)
    assert shop.shop == name
    assert shop.surface.name


def test_an_unknown_shop_lists_the_known():
    with pytest.raises(DeclarationError, match=r"unknown shop 'acme'.*known: completejourney"):
        load_shop("acme", PROJECT / "shops")


def changed(path, value):
    declared = copy.deepcopy(TINY)
    place = declared
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    return declared


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("colour",), "red", r"colour: unknown key; accepted here: shop, title, sources"),
        (("surfaces", 0, "top_n"), 3, r"surfaces\[0\]\.top_n: unknown key; accepted here: name"),
        (("tables", "users", "key"), ["id"], r"tables\.users: key: 'id' is not a column"),
        (("item", "category"), "kin", r"'kin' is not a stored column .* did you mean 'kind'\?"),
        (("shopper", "id"), "email", r"shopper\.id: 'email' is not a stored column"),
        (("events", 0, "grade"), "high", r"events\[0\]\.grade: .* \(got 'high'\)"),
        (("events", 1, "kind"), "view", r"events: kinds must differ, got view, view, purchase"),
        (("surfaces", 0, "candidates"), "generated", r"`impressions` is required exactly when"),
        (("tables", "users", "columns", "uid"), "text", r"columns\.uid: 'text' is not a column"),
        (("interval", "anchor"), "Monday", r"interval\.anchor: .*valid date"),
        (("tables", "users", "personal", "uid"), "drop", r"personal\.uid: a key cannot be dropped"),
        (("tables", "users", "columns", "uid"), "bytes", r"key: 'uid' is bytes, which can be no"),
        (("tables", "users", "columns", "city"), "bytes", r"personal\.city: bytes have no pseud"),
        (
            ("tables", "articles", "columns", "kind"),
            "json",
            r"item\.category: column 'kind' is json",
        ),
        (("tables", "articles", "columns", "amount"), "decimal(39,2)", r"p up to 38"),
        (("shop",), "other", r"shop: 'other' must equal its folder's name 'tiny'"),
    ],
)
def test_a_fault_names_file_path_and_what_is_accepted(tmp_path, path, value, expected):
    file = tmp_path / "tiny" / "shop.yaml"
    file.parent.mkdir()
    file.write_text(yaml.safe_dump(changed(path, value)))
    with pytest.raises(DeclarationError, match=expected) as fault:
        load_shop("tiny", tmp_path)
    assert str(file) in str(fault.value)


def test_what_is_no_yaml_is_said(tmp_path):
    file = tmp_path / "tiny" / "shop.yaml"
    file.parent.mkdir()
    file.write_text("shop: [")
    with pytest.raises(DeclarationError, match="not readable as YAML"):
        load_shop("tiny", tmp_path)


def test_a_dropped_column_is_not_stored_and_a_pseudonym_is_text():
    stored = load_shop("tiny", PROJECT / "tests/declared").tables["users"].stored_columns()
    assert list(stored) == ["uid", "city"]
    assert stored["city"] == pa.string()


def test_decimals_keep_their_scale():
    assert arrow_type("decimal(10,2)") == pa.decimal128(10, 2)
