"""Any database that SQLAlchemy knows."""
