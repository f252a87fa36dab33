"""The base of every part of a declaration, strict and frozen, and the check of a name."""

from __future__ import annotations

import difflib
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class Declared(BaseModel):
    """A part of a declaration; an unknown key or another type is refused."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True
    )


def require(name: str, known: Any, path: str, what: str) -> None:
    """Refuse a name that is not known.

    Raises:
        ValueError: it is not; says where (`path`), and what would be accepted.
    """
    if name in known:
        return
    near = difflib.get_close_matches(name, list(known), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise ValueError(f"{path}{name!r} is not {what}{hint} Accepted: {', '.join(known)}")
