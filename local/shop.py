"""The bundled shop's database, loaded once, with change capture installed."""

from datetime import datetime

from rich.console import Console

from local.servers.environment import SHOP
from local.servers.postgres import PostgresServer
from pipelines.shared.declaration import load_shop
from pipelines.shared.settings import PROJECT


def is_loaded(server: PostgresServer) -> bool:
    """Whether a whole shop is loaded, whatever its share and end."""
    with server.connect("shop") as connection:
        row = connection.execute("SELECT to_regclass('replay.loaded') IS NOT NULL").fetchone()
    return bool(row and row[0])


def load(server: PostgresServer, *, share: float, until: datetime, console: Console) -> None:
    """Fill the shop database with a share of the shoppers' history up to a time.

    Raises:
        FreshrankError: the packaged data is damaged, or the database went away.
    """
    from pipelines.extract import install, remove
    from shops.completejourney import load as load_history

    url = server.url("shop")
    declared = load_shop(SHOP, PROJECT / "shops")

    def reinstall(at: datetime) -> None:
        # The changes of a former shop are not this one's past.
        remove(url, declared)
        install(url, declared, at=at)

    load_history(url, share=share, until=until, install_capture=reinstall, console=console)
