"""Groups that are ready to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

MAX_GRADE: Final = 10
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Examples:
    """n rows of g groups."""

    features: pa.Table
    """n rows; float32 columns, int32 codes for categorical ones; one chunk."""
    labels: Floats
    """n grades."""
    sizes: Ints
    """g group sizes; they sum to n, and the rows of a group lie together."""
    ids: pa.Array[Any]
    """g group ids."""
    weights: Floats
    """n weights; 1 where nothing else is known."""

    @property
    def categorical(self) -> tuple[str, ...]:
        """The features that hold codes of the stored vocabulary."""
        fields = self.features.schema
        return tuple(field.name for field in fields if pa.types.is_integer(field.type))

    @property
    def groups(self) -> int:
        """How many groups."""
        return len(self.sizes)

    @property
    def rows(self) -> int:
        """How many rows."""
        return len(self.labels)

    def of(self, chosen: npt.NDArray[np.bool_]) -> Examples:
        """The groups that a mask of g values chooses."""
        mask = self.rows_of(chosen)
        return Examples(
            self.features.filter(pa.array(mask)).combine_chunks(),
            self.labels[mask],
            self.sizes[chosen],
            self.ids.filter(pa.array(chosen)),
            self.weights[mask],
        )

    def rows_of(self, chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """The rows of the groups that a mask of g values chooses, as a mask of n values."""
        return np.repeat(chosen, self.sizes)


def joined(parts: Sequence[Examples]) -> Examples:
    """Some examples, at least one and all with the same features, after each other."""
    if len(parts) == 1:
        return parts[0]
    return Examples(
        pa.concat_tables([part.features for part in parts]).combine_chunks(),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.sizes for part in parts]),
        pa.concat_arrays([part.ids for part in parts]),
        np.concatenate([part.weights for part in parts]),
    )


def empty(schema: pa.Schema) -> Examples:
    """No groups at all."""
    floats = np.empty(0, np.float32)
    ids = pa.array([], pa.string())
    return Examples(schema.empty_table(), floats, np.empty(0, np.int64), ids, floats)
