"""Reading `shop.yaml`, and saying what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from pipelines.shared.declaration.base import Declared
from pipelines.shared.declaration.shop import Shop
from pipelines.shared.errors import DeclarationError


def load_shop(name: str, shops: Path) -> Shop:
    """Read and check `<shops>/<name>/shop.yaml`.

    Raises:
        DeclarationError: the shop is unknown, or its file is wrong; the message lists every
            fault with the file, the path inside it, the value and what would be accepted.
    """
    path = shops / name / "shop.yaml"
    if not path.is_file():
        known = sorted(each.parent.name for each in shops.glob("*/shop.yaml"))
        raise DeclarationError(
            f"unknown shop {name!r}: {path} does not exist; known: {', '.join(known) or 'none'}"
        )
    try:
        text = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise DeclarationError(f"{path}: not readable as YAML: {error}") from error
    if not isinstance(text, dict):
        raise DeclarationError(f"{path}: expected a mapping with keys shop, sources, tables, …")
    try:
        shop = Shop.model_validate(text)
    except ValidationError as error:
        raise DeclarationError(_explain(path, error)) from None
    if shop.shop != name:
        raise DeclarationError(f"{path}: shop: {shop.shop!r} must equal its folder's name {name!r}")
    return shop


def _explain(path: Path, error: ValidationError) -> str:
    faults = []
    for fault in error.errors(include_url=False):
        place = "".join(
            f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"]
        ).lstrip(".")
        if fault["type"] == "extra_forbidden":
            accepted = ", ".join(_accepted(fault["loc"]))
            message = f"unknown key; accepted here: {accepted}"
        elif fault["type"] == "missing":
            message = "is required"
        else:
            message = fault["msg"].removeprefix("Value error, ")
            if not isinstance(fault["input"], (dict, list, BaseModel)):
                message += f" (got {fault['input']!r})"
        faults.append(f"{path}: {place}: {message}" if place else f"{path}: {message}")
    return "\n".join(faults)


def _accepted(location: tuple[int | str, ...]) -> list[str]:
    """The keys accepted beside the one at `location`."""
    model: type[BaseModel] = Shop
    for part in location[:-1]:
        field = next(
            (f for name, f in model.model_fields.items() if (f.alias or name) == part), None
        )
        if field is not None:
            model = _model_inside(field.annotation) or model
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_inside(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, Declared):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        if (model := _model_inside(inner)) is not None:
            return model
    return None
