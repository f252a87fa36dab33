"""A model of the lake as MLflow serves it."""
