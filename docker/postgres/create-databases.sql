-- Runs once, when the volume is new.
CREATE DATABASE shop;
CREATE DATABASE ledger;
CREATE DATABASE mlflow;
CREATE DATABASE airflow;
