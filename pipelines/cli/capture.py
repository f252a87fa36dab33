"""Commands on change capture: install, remove."""

from __future__ import annotations

from collections.abc import Callable

from pipelines.cli.terminal import ShopName, installation_of, say


def install(shop: ShopName = None) -> None:
    """Install change capture and take the tables' rows as the first changes."""
    from pipelines import extract

    _at_each_source(shop, "install", extract.install)


def remove(shop: ShopName = None) -> None:
    """Remove change capture and every trace of it."""
    from pipelines import extract

    _at_each_source(shop, "remove", extract.remove)


def _at_each_source(shop: str | None, name: str, action: Callable[..., object]) -> None:
    from pipelines import loop

    for part in loop.at_each_source(installation_of(shop), action):
        say.print(f"capture {name}: {part.source_name}: {', '.join(part.tables)}")
