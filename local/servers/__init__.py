"""The servers that Freshrank needs: PostgreSQL, MLflow and Airflow."""
