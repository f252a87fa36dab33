"""Trigger capture in PostgreSQL."""
