"""The tiny shop in a private MariaDB."""

from __future__ import annotations

from typing import Any

from pipelines.shared.declaration import Shop
from tests.extract.postgres_shop import tiny as tiny_in_postgres

TABLES = """
    CREATE TABLE users (uid varchar(40) PRIMARY KEY, email text, city text);
    CREATE TABLE articles (sku varchar(40) COLLATE utf8mb4_bin PRIMARY KEY, kind mediumtext,
                           maker text, amount decimal(10, 2));
    CREATE TABLE shown (list_id varchar(40), sku varchar(40), uid text, place int,
                        shown_at timestamp(6) NULL, PRIMARY KEY (list_id, sku));
    CREATE TABLE actions (action_id varchar(40) PRIMARY KEY, type text, uid text, sku text,
                          at datetime(6), pieces int, paid decimal(10, 2));
"""


def tiny(schema: str, **source: Any) -> Shop:
    """The tiny shop, captured from the binlog of a database."""
    shop = tiny_in_postgres()
    changed = {"capture": "binlog", "schema_name": schema, **source}
    return shop.model_copy(update={"sources": {"shop": shop.source.model_copy(update=changed)}})
