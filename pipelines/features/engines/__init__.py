"""Where feature expressions run: DuckDB on one machine, Spark on many."""
