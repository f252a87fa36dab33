"""The bundled shop: builds a grocer's database and replays the year 2017 in it."""

from shops.completejourney.life import OPENING, Life
from shops.completejourney.load import load
from shops.completejourney.package import PackageDamaged

__all__ = ["OPENING", "Life", "PackageDamaged", "load"]
