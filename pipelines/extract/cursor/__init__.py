"""Capture by a cursor column, with SELECT alone, from any database that SQLAlchemy knows."""
