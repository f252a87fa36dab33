"""A model as MLflow serves it: its files, an example of its input, its requirements."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from pipelines.shared.errors import PermanentError
from pipelines.shared.mlflow_server import CONTENT_TAG
from pipelines.shared.models import booster
from pipelines.shared.models.booster import ModelCard

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient

CODE = Path(__file__).parent / "model_code" / "freshrank_ranker.py"
"""Runs where the model is served; imports nothing of this project."""


@dataclass(frozen=True)
class StoredModel:
    """A model of the lake."""

    strategy: str
    model: Path
    """Its text; the card lies beside it."""
    card: ModelCard
    content_hash: str


def logged_model(
    client: MlflowClient,
    experiment: str,
    name: str,
    run_id: str | None,
    model: StoredModel,
    sample: pa.Table,
    folder: Path,
) -> str:
    """The id of a model with its files in MLflow, of a run or else of a name of its own.

    What was begun before is completed, not doubled. `folder` is for the files until they are there.
    """
    query = f"source_run_id = '{run_id}'" if run_id else f"name = '{name}'"
    logged = next(iter(client.search_logged_models([experiment], query)), None)
    if logged is None:
        tags = {CONTENT_TAG: model.content_hash}
        logged = client.create_logged_model(
            experiment, name, run_id, tags=tags, model_type="ranker"
        )
    model_id = str(logged.model_id)
    if str(logged.status) != "READY":
        client.log_model_artifacts(model_id, str(save(folder, model, sample, model_id)))
        client.finalize_logged_model(model_id, "READY")
    return model_id


def save(folder: Path, model: StoredModel, sample: pa.Table, model_id: str) -> Path:
    """Write a model as MLflow's pyfunc model; returns the subfolder that is to be uploaded.

    Raises:
        PermanentError: MLflow refuses the model.
    """
    import mlflow
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import AnyType

    card = model.card
    # A category may be sent as the shop's value or as its stored code, or not be known.
    inputs = [
        ColSpec(AnyType(), name, required=False)
        if name in card.categorical
        else ColSpec("double", name)
        for name in card.features
    ]
    try:
        mlflow.pyfunc.save_model(
            str(folder / "model"),
            python_model=str(CODE),
            artifacts=_files(folder, model),
            signature=ModelSignature(Schema(inputs), Schema([ColSpec("double")])),
            input_example=example(sample, card),
            # Named, since MLflow takes ten seconds to infer them.
            pip_requirements=[
                f"{name}=={version(name)}" for name in ("mlflow", "lightgbm", "numpy", "pandas")
            ],
            mlflow_model=Model(model_id=model_id),
        )
    except mlflow.exceptions.MlflowException as error:
        raise PermanentError(
            f"the model {model.model} cannot be packaged for MLflow: {error}"
        ) from error
    return folder / "model"


def _files(folder: Path, model: StoredModel) -> dict[str, str]:
    """Write the card beside the model text; artifact name → path."""
    card = folder / "card.json"
    text = folder / "model.txt"
    text.write_text(booster.read(model.model), encoding="utf-8")
    held = asdict(model.card) | {"sha256": hashlib.sha256(text.read_bytes()).hexdigest()}
    card.write_text(json.dumps(held, sort_keys=True), encoding="utf-8")
    return {"model": str(text), "card": str(card)}


def example(sample: pa.Table, card: ModelCard) -> pd.DataFrame:
    """A few candidates as a caller would send them: categories by the shop's own values.

    The sample has stored codes, may lack features and may be empty. At least one row is returned,
    with a column for each feature of the card, in its order.
    """
    import pandas as pd

    rows = sample.to_pandas() if sample.num_rows else pd.DataFrame(index=range(1))
    columns = {}
    for name in card.features:
        values = rows[name] if name in rows else pd.Series(0.0, index=rows.index)
        if name in card.categorical:
            by_code = {code: value for value, code in card.vocabulary.get(name, {}).items()}
            columns[name] = values.map(by_code).astype("object")
        else:
            columns[name] = values.astype("float64")
    return pd.DataFrame(columns)
