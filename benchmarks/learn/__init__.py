"""Incremental learning beside a full retrain, week after week."""
