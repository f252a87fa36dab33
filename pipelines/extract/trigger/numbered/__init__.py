"""Trigger capture in databases without PostgreSQL's snapshots: changes are numbered."""
