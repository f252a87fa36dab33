"""A challenger as a servable MLflow model: its files, an example of its input, its requirements."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from pipelines.evaluate.tracking.tracker import ModelReport
from pipelines.shared.errors import PermanentError
from pipelines.shared.models import booster
from pipelines.shared.models.booster import ModelCard

if TYPE_CHECKING:
    import pandas as pd

CODE = Path(__file__).parent / "model_code" / "freshrank_ranker.py"
"""Runs where the model is served; imports nothing of this project."""


def save(folder: Path, model: ModelReport, sample: pa.Table, model_id: str) -> Path:
    """Write a challenger as MLflow's pyfunc model; returns the subfolder that is to be uploaded.

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
            f"challenger {model.strategy} cannot be packaged for MLflow: {error}"
        ) from error
    return folder / "model"


def _files(folder: Path, model: ModelReport) -> dict[str, str]:
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
