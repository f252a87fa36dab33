"""The served model: raw feature columns in, a score a candidate out.

MLflow stores this file with each model version and runs it in a clean process, so it may import
nothing of this project. The folder is no package: it is shipped, never imported.
"""

import hashlib
import json
from typing import Any

import lightgbm as lgb
import mlflow
import numpy as np
import pandas as pd

UNKNOWN = -1


class Ranker(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """A LightGBM ranker with the vocabulary it was trained with (artifacts `model`, `card`)."""

    def load_context(self, context: Any) -> None:
        """Read the model text and its card.

        Raises:
            ValueError: the text is not the one that the card was written for.
        """
        with open(context.artifacts["card"], encoding="utf-8") as file:  # noqa: PTH123
            self.card = json.load(file)
        with open(context.artifacts["model"], "rb") as file:  # noqa: PTH123
            text = file.read()
        if hashlib.sha256(text).hexdigest() != self.card["sha256"]:
            raise ValueError(
                f"{context.artifacts['model']} is not the model that was trained (SHA-256 on its "
                f"card {self.card['sha256'][:12]}…); download the version again, or register it "
                "again by running its interval's stage evaluate"
            )
        self.booster = lgb.Booster(model_str=text.decode())

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> np.ndarray:
        """Score n candidates.

        A categorical feature may come as the shop's own value or as its stored code; a value
        that the model never saw, or none, counts as unknown.

        Returns:
            float64 array of n scores; within one list, higher ranks first.
        """
        encoded = {
            name: self._codes(name, model_input[name])
            if name in self.card["categorical"]
            else pd.to_numeric(model_input[name]).astype("float64")
            for name in self.card["features"]
        }
        return np.asarray(self.booster.predict(pd.DataFrame(encoded).to_numpy()))

    def _codes(self, name: str, values: pd.Series) -> pd.Series:
        if pd.api.types.is_numeric_dtype(values):
            return values.astype("float64")
        known = self.card["vocabulary"].get(name, {})
        return values.map(known).fillna(UNKNOWN).astype("float64")


mlflow.models.set_model(Ranker())
