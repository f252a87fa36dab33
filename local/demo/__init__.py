"""The demo: a real shop's weeks through a real Airflow and a real MLflow."""
