"""Capture by PostgreSQL's log, through a logical slot."""
