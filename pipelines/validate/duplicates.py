"""Changes that were delivered twice."""

from __future__ import annotations

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.shared.columns import DELETE, INSERT, OP, UPDATE

_ROW = "_row"

# A second insert of a key is a repetition unless the key was deleted in between. An update may
# well return to an earlier state (a price goes up and down again): it is a repetition only if the
# change right before it was the same.
_REPEATED = """
WITH ordered AS (
    SELECT *, count(*) FILTER ({op} = '{delete}') OVER past AS life
    FROM changes WHERE {has_key}
    WINDOW past AS (PARTITION BY {key} ORDER BY {row})
)
SELECT {row} FROM ordered
WHERE {op} = '{insert}'
QUALIFY row_number() OVER (PARTITION BY {key}, life, {content} ORDER BY {row}) > 1
UNION ALL
SELECT {row} FROM ordered
WINDOW past AS (PARTITION BY {key} ORDER BY {row})
QUALIFY {op} = '{update}' AND lag({op}) OVER past = '{update}'
    AND row({content}) IS NOT DISTINCT FROM lag(row({content})) OVER past
"""


def repeated(
    changes: pa.Table, key: tuple[str, ...], columns: tuple[str, ...], threads: int
) -> npt.NDArray[np.bool_]:
    """Which changes repeat an earlier one of the same key, operation and content.

    They are in the order of the source; one without a complete key repeats nothing.
    """
    mask = np.zeros(changes.num_rows, dtype=np.bool_)
    numbered = changes.select(list(dict.fromkeys((*columns, OP)))).append_column(
        _ROW, pa.array(np.arange(changes.num_rows))
    )
    query = _REPEATED.format(
        op=OP, row=_ROW, insert=INSERT, update=UPDATE, delete=DELETE,
        key=_quoted(key), content=_quoted(columns),
        has_key=" AND ".join(f"{_quoted((name,))} IS NOT NULL" for name in key),
    )  # fmt: skip
    with duckdb.connect(config={"threads": threads}) as engine:
        engine.register("changes", numbered)
        rows = engine.sql(query).to_arrow_table()
    mask[rows.column(_ROW).to_numpy()] = True
    return mask


def _quoted(names: tuple[str, ...]) -> str:
    return ", ".join('"' + name.replace('"', '""') + '"' for name in names)
