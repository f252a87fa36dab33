"""Extraction beside other ways to bring a table from a database to disk."""
