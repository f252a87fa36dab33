"""Trigger capture in SQLite."""
