"""Freshrank's settings from Airflow's connections.

| connection | setting |
|---|---|
| `freshrank_ledger` | `ledger_url` |
| `freshrank_mlflow` | `mlflow_uri` |
| `freshrank_<name>` | `connections[<name>]`, for each connection that the shop names |

What Airflow has no connection for is read from the environment (`FRESHRANK_…`).
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException

from pipelines.shared.declaration import load_shop
from pipelines.shared.settings import Settings, load_settings

_DRIVERS = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "sqlite": "sqlite",
}


def settings_for(shop: str | None) -> Settings:
    """The installation's settings, with the connections of one shop; default FRESHRANK_SHOP.

    Raises:
        SettingsError: something is neither a connection nor in the environment.
        DeclarationError: the shop is unknown or wrongly declared.
    """
    overrides: dict[str, Any] = {}
    if (ledger := _connection("freshrank_ledger")) is not None:
        overrides["ledger_url"] = database_url(ledger)
    if (mlflow := _connection("freshrank_mlflow")) is not None:
        overrides["mlflow_uri"] = server_url(mlflow)
    settings = load_settings(**overrides)
    declared = load_shop(shop or settings.shop, settings.shops)
    names = {each.connection.lower() for each in declared.sources.values()}
    connections = {name: _connection(f"freshrank_{name}") for name in sorted(names)}
    if urls := {name: database_url(each) for name, each in connections.items() if each}:
        settings = load_settings(**overrides, connections=urls)
    return settings


def _connection(name: str) -> Connection | None:
    try:
        connection: Connection = Connection.get(name)
    except AirflowNotFoundException:
        return None
    return connection


def database_url(connection: Connection) -> str:
    """An Airflow connection as a SQLAlchemy URL."""
    kind = str(connection.conn_type)
    url = sa.URL.create(
        _DRIVERS.get(kind, kind),
        username=connection.login or None,
        password=connection.password or None,
        host=connection.host or None,
        port=connection.port,
        database=connection.schema or None,
        query={key: str(value) for key, value in connection.extra_dejson.items()},
    )
    return url.render_as_string(hide_password=False)


def server_url(connection: Connection) -> str:
    """An Airflow HTTP connection as a URL."""
    scheme = connection.schema or (
        connection.conn_type if connection.conn_type in ("http", "https") else "http"
    )
    port = f":{connection.port}" if connection.port else ""
    return f"{scheme}://{connection.host}{port}"
