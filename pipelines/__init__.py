"""Freshrank's stages. Nothing in here knows Airflow."""
