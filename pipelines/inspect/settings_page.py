"""The page of all settings, `docs/settings.md`, from the declaration's own types and docstrings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipelines.shared.declaration import Shop
from pipelines.shared.settings import PROJECT, Settings

Schema = dict[str, Any]
"""A JSON schema, as pydantic gives it."""

_SHOP = """\
# Settings

Made by `python -m pipelines settings`; change the docstrings in
`pipelines/shared/declaration/` and `pipelines/shared/settings.py`, not this page.

## The shop: `shop.yaml`
What `shops/<name>/shop.yaml` may hold. Parsing is strict: an unknown key, another type or a value
out of bounds is an error that names the file, the path inside it and what is accepted. A *name*
begins with a letter or an underscore and continues with letters, digits and underscores.
[Bring your own shop](bring-your-own-shop.md) has a whole file, the
[column types](bring-your-own-shop.md#types) and the capture modes.
"""
_INSTALLATION = """
## The installation: environment
Read once, at the edge. In Airflow the connections `freshrank_ledger` and `freshrank_mlflow` give
the two addresses, and `freshrank_<connection>` that of each database of a shop; the environment
gives what is no connection. MLflow's client takes its login from `MLFLOW_TRACKING_USERNAME` and
`MLFLOW_TRACKING_PASSWORD`. `make up` writes a working set to `.freshrank/env`. `FRESHRANK_HOME`,
which only `make` and `python -m local` read, puts that folder elsewhere.
"""
_BOUNDS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "minItems": "at least {}",
    "maxItems": "at most {}",
    "minProperties": "at least {}",
}
_WORDS = {"string": "text", "boolean": "true or false", "password": "secret text"}


def page() -> str:
    """All settings of a shop and of an installation, as Markdown."""
    shop, installation = Shop.model_json_schema(), Settings.model_json_schema()
    parts = (
        f"\n### {path}\n{_one_line(part)}\n{_table('key', part)}"
        for path, part in _parts("", shop, shop["$defs"])
    )
    variables = {
        f"FRESHRANK_{name.upper()}" + "__<NAME>" * (setting.get("type") == "object"): setting
        for name, setting in installation["properties"].items()
    }
    required = [
        f"FRESHRANK_{n.upper()}" for n, f in Settings.model_fields.items() if f.is_required()
    ]
    table = _table("variable", {"properties": variables, "required": required})
    return "".join([_SHOP, *parts, _INSTALLATION, table])


def _parts(path: str, part: Schema, models: Schema) -> Iterator[tuple[str, Schema]]:
    """A part of the declaration and all parts inside it, in the file's order, with their paths."""
    yield f"`{path}`" if path else "Top level", part
    for name, setting in part["properties"].items():
        for suffix, inner in _inside(setting):
            if reference := inner.get("$ref"):
                model = models[reference.rpartition("/")[2]]
                yield from _parts(f"{path}.{name}{suffix}".lstrip("."), model, models)


def _inside(setting: Schema) -> Iterator[tuple[str, Schema]]:
    """What a setting may be, and what a list or a mapping may hold, with the path to it."""
    for each in setting.get("anyOf", [setting]):
        yield "", each
        yield "[]", each.get("items", {})
        yield ".<name>", _values(each)


def _values(setting: Schema) -> Schema:
    """What the values of a mapping from names may be."""
    return next(iter(setting.get("patternProperties", {}).values()), {})


def _table(key: str, part: Schema) -> str:
    rows = (
        f"| `{name}` | {_accepted(setting)} | {_default(setting, name in part.get('required', ()))}"
        f" | {_one_line(setting)} |\n"
        for name, setting in part["properties"].items()
    )
    return f"\n| {key} | accepted | default | meaning |\n|---|---|---|---|\n" + "".join(rows)


def _one_line(part: Schema) -> str:
    return " ".join(part.get("description", "").split())


def _accepted(setting: Schema) -> str:
    choices = [each for each in setting.get("anyOf", [setting]) if each.get("type") != "null"]
    bounds = [sign.format(each[b]) for each in choices for b, sign in _BOUNDS.items() if b in each]
    return ", ".join([" or ".join(map(_kind, choices)), *bounds])


def _kind(setting: Schema) -> str:
    """The type of a value, in words."""
    if "$ref" in setting:
        return "settings, below"
    if "enum" in setting:
        return ", ".join(f"`{each}`" for each in setting["enum"])
    if setting["type"] == "array":
        return f"list: {_kind(setting['items'])}"
    if setting["type"] == "object":
        return f"name → {_accepted(_values(setting) or setting['additionalProperties'])}"
    if setting.get("pattern", "").startswith("^[A-Za-z_]"):
        return "name"
    kind = str(setting.get("format", setting["type"]))
    return _WORDS.get(kind, kind)


def _default(setting: Schema, required: bool) -> str:
    value = setting.get("default")
    if required:
        return "required"
    if isinstance(value, list):
        return "all"
    if isinstance(value, dict) and value:
        return "as below"
    if value in (None, {}):
        return "none"
    if setting.get("format") == "path":
        value = str(value).removeprefix(f"{PROJECT}/")
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
