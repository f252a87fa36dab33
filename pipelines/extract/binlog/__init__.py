"""Capture by the row binlog of MySQL and MariaDB."""
