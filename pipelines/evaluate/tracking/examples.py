"""Examples of a model's input: what a caller sends, without being anybody's.

Versions of before carry five candidates of one shopper. They have no id, but a shopper who is
forgotten takes them along: `blank` writes zeros in their place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.shared.mlflow_server import require_reachable, translate_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient

_FILES: Final = ("input_example.json", "serving_input_example.json")


def typical(candidates: pa.Table) -> pa.Table:
    """One row of what many candidates have in common: medians of numbers, the most frequent code.

    Args:
        candidates: n rows, n may be 0.
    """
    if candidates.num_rows == 0:
        return candidates
    columns: dict[str, Any] = {}
    for field in candidates.schema:
        values: Any = candidates[field.name]
        if pa.types.is_floating(field.type):
            present = values.to_numpy()[~np.isnan(values.to_numpy())]
            middle = float(np.median(present)) if len(present) else np.nan
            columns[field.name] = pa.array([middle], field.type)
        elif pa.types.is_integer(field.type):
            most: Any = pc.mode(values).field("mode")
            columns[field.name] = most if len(most) else pa.nulls(1, field.type)
    return pa.table(columns)


def blank(uri: str, experiment: str) -> int:
    """Write zeros over the examples of several rows that the models of an experiment carry.

    Args:
        uri: MLflow's.

    Returns:
        The number of models changed; a rerun finds none.

    Raises:
        TrackingUnavailable: MLflow does not answer; the next call does the rest.
    """
    require_reachable(uri)
    import mlflow
    from mlflow import MlflowClient

    if not uri.startswith("http"):
        mlflow.set_tracking_uri(uri)
    with translate_errors(uri):
        client = MlflowClient(uri, uri)
        known = client.get_experiment_by_name(experiment)
        found = _models(client, str(known.experiment_id)) if known else ()
        return sum(_blank_model(client, uri, model) for model in sorted(found))


def _models(client: MlflowClient, experiment: str) -> Iterator[str]:
    """The ids of every model logged in an experiment."""
    token = None
    while True:
        page = client.search_logged_models([experiment], max_results=50, page_token=token)
        yield from (str(each.model_id) for each in page)
        if (token := page.token) is None:
            return


def _blank_model(client: MlflowClient, uri: str, model: str) -> bool:
    import mlflow

    held = {str(each.path) for each in client.list_logged_model_artifacts(model)}
    place = str(client.get_logged_model(model).artifact_location).rstrip("/")
    changed = False
    with TemporaryDirectory(prefix="freshrank-") as folder:
        for name in _FILES:
            if name not in held:
                continue
            path = mlflow.artifacts.download_artifacts(
                f"{place}/{name}", dst_path=folder, tracking_uri=uri
            )
            if (blanked := _blanked(json.loads(Path(path).read_text(encoding="utf-8")))) is None:
                continue
            Path(path).write_text(json.dumps(blanked), encoding="utf-8")
            client.log_model_artifact(model, str(path))
            changed = True
    return changed


def _blanked(example: dict[str, Any]) -> dict[str, Any] | None:
    """The example as one row of nothing; None if it has one row already."""
    table = example.get("dataframe_split", example)
    if len(table["data"]) <= 1:
        return None
    rows = zip(*table["data"], strict=True)
    numbers = [0.0 if any(isinstance(each, float) for each in column) else None for column in rows]
    blank = {**table, "index": [0], "data": [numbers]} if "index" in table else {
        **table, "data": [numbers]
    }  # fmt: skip
    return {"dataframe_split": blank} if "dataframe_split" in example else blank
