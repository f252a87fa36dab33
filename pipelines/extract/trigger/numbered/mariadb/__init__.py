"""Trigger capture in MariaDB and MySQL."""
