"""Forgets shoppers, step by step; a step that was done finds nothing left to do.

That forgetting began is recorded first. From then on extraction leaves the shopper out, and what
follows can be repeated after a kill at any point, until it is recorded that all is erased.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import pyarrow.compute as pc

from pipelines.maintain import backup
from pipelines.maintain.forget.erase import erase
from pipelines.maintain.forget.places import Family, count, families, partitions
from pipelines.maintain.upkeep import lock
from pipelines.shared.columns import FOUND, MATURE_AT, MEMORY, SHOPPER
from pipelines.shared.errors import ChangedMeanwhile, NamesTheShopper, NotThere, TurnTaken
from pipelines.shared.forgotten import Forgotten, PersonHash
from pipelines.shared.intervals import utc
from pipelines.shared.ledger import Forgetting
from pipelines.shared.run import Installation

_FOLDERS: Final = "folders"
"""In the details on record: folders of the lake whose earlier versions have to go."""
_VERSIONS: Final = "versions"
_ROWS: Final = "rows"


@dataclass(frozen=True)
class Forgot:
    """What was erased. It does not say who was forgotten."""

    shop: str
    rows: dict[str, int]
    """Table → rows erased by this call; `published` are those in the shop's database."""
    versions: tuple[int, ...]
    """Registered versions that learned from the shopper. While one of them is champion, the next
    run trains a new model on what is left."""
    copies: int
    """Files deleted from the backup."""

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON-able values."""
        return asdict(self) | {"versions": list(self.versions)}


@dataclass(frozen=True)
class _Found:
    """What the lake holds of some shoppers."""

    rows: dict[str, int]
    folders: tuple[str, ...]


def forget(installation: Installation, shopper: str, reason: str, actor: str) -> Forgot:
    """Forget a shopper of a shop. No update may be running.

    Forgettings that were interrupted are finished first, each by itself: their manifests may be
    amended and their rows not erased yet.

    Args:
        shopper: the id, as the shop has it.
        reason: for the record, which must not say who it is.
        actor: who asks for it.

    Raises:
        SettingsError: there is no key for the hash, or it is another one than before.
        NotThere: nothing of the shopper is stored, and they were never forgotten.
        TurnTaken: an update is at work.
        NamesTheShopper: the reason holds the id.
        CorruptPartition: a partition that the shopper is in is damaged.
        ChangedMeanwhile: something wrote rows of the shopper meanwhile; call again.
        LedgerUnavailable, SourceUnavailable, TableUnusable, LakeFull: see there; the same call goes
            on where this one stopped.
    """
    hashed = PersonHash.of(installation.settings)
    person = hashed.of_raw(shopper)
    for text in (reason, actor):
        _require_nameless(text, shopper)
    known = Forgotten.of(installation)
    unfinished = _finish_others(installation, known, person)
    whom = Forgotten(installation.shop, frozenset({person}), hashed)
    if unfinished is None:
        found = _look(installation, whom)
        if not found.rows and person not in known.persons:
            raise NotThere(
                f"shop {installation.shop.shop} has no shopper with this id: no row in its lake "
                "names them; give the id as the shop's own tables have it (also where it is "
                "pseudonymised)"
            )
        unfinished = _begin(installation, whom, found, reason, actor)
    return _finish(installation, whom, unfinished)


def forget_again(installation: Installation, reason: str, actor: str) -> Forgot:
    """Erase whatever is stored of anybody on record as forgotten: after an old copy came back.

    Raises:
        NotThere: nobody was ever forgotten.
        Exception: see `forget`.
    """
    known = Forgotten.of(installation)
    if not known.persons:
        raise NotThere(f"no shopper of {installation.shop.shop} is on record as forgotten")
    _finish_others(installation, known, "")
    begun = _begin(installation, known, _look(installation, known), reason, actor)
    return _finish(installation, known, begun)


def unfinished(installation: Installation) -> list[Forgetting]:
    """The last step on record of each shopper whose forgetting began and did not end."""
    last = {each.person: each for each in installation.ledger.forgettings()}
    return [each for each in last.values() if each.event == "begun"]


def _finish_others(installation: Installation, known: Forgotten, person: str) -> Forgetting | None:
    """Finish what was interrupted, but that of one person, which is returned.

    Raises:
        TurnTaken: an update is at work.
    """
    turn = installation.ledger.turns.standing()
    if turn is not None and turn.alive:
        raise TurnTaken(f"{turn}; let it end, then forget again")
    own = None
    for each in unfinished(installation):
        if each.person == person:
            own = each
        else:
            _finish(installation, replace(known, persons=frozenset({each.person})), each)
    return own


def _look(installation: Installation, whom: Forgotten) -> _Found:
    rows: dict[str, int] = {}
    folders: list[str] = []
    for family in families(installation, whom):
        held = {
            table: sum(
                count(whom.theirs(part, family.columns))
                for _, part in partitions(installation.lake, family, table)
            )
            for table in family.tables
        }
        if any(held.values()):
            rows |= {table: number for table, number in held.items() if number}
            folders += _folders(family)
    return _Found(rows, tuple(folders))


def _folders(family: Family) -> list[str]:
    """The folders of the lake that hold a family's rows."""
    if family.source is None:
        return list(family.tables)
    beside = ("key_index", "taken", "validation")
    return [*family.tables, *(f"{each}/{family.source}" for each in beside)]


def _begin(
    installation: Installation, whom: Forgotten, found: _Found, reason: str, actor: str
) -> Forgetting:
    """Record that forgetting began, with what has to be known until it has ended."""
    from pipelines.train.learned import MODELS, learners

    assert whom.hashed is not None  # noqa: S101 - only nobody has none
    models = learners(installation, _learnable(installation, whom))
    versions = [
        each.version for each in installation.ledger.versions() if each.content_hash in models
    ]
    details = {
        _FOLDERS: list(found.folders),
        _ROWS: found.rows,
        MODELS: sorted(models),
        _VERSIONS: sorted(versions),
    }
    for person in sorted(whom.persons):
        begun = Forgetting(person, whom.hashed.check, "begun", actor, reason, details)
        installation.ledger.record_forgetting(begun)
    return begun


def _learnable(installation: Installation, whom: Forgotten) -> list[Any]:
    """The times of their groups that a model may have learned."""
    from pipelines.train.learned import GroupTime

    names = [SHOPPER, MATURE_AT, MEMORY, FOUND]
    times = []
    index = f"group_index/{installation.shop.surface.name}"
    for key, rows in installation.lake.partitions(index, names):
        own = rows.filter(whom.theirs(rows, {SHOPPER: whom.pseudonymised}))
        taught = own.filter(~pc.field(MEMORY) & (pc.field(FOUND) > 0))
        matured: list[Any] = taught[MATURE_AT].to_pylist()
        times += [GroupTime(utc(key), utc(at)) for at in matured]
    return times


def _finish(installation: Installation, whom: Forgotten, begun: Forgetting) -> Forgot:
    """Erase everything, and record that it is erased."""
    from pipelines import publish
    from pipelines.evaluate.tracking import examples

    rows = Counter(published=publish.erase(installation, whom))
    if installation.ledger.versions():
        shop = installation.shop
        uri = installation.settings.mlflow_uri.get_secret_value()
        examples.blank(uri, f"{shop.shop}/{shop.surface.name}")
    folders = list(begun.details[_FOLDERS])
    for family in families(installation, whom):
        erased = erase(installation, whom, family)
        rows += erased
        folders += _folders(family) if erased else []
    _purge(installation, dict.fromkeys(folders))
    copies = 0
    if installation.settings.backup:
        backup.back_up(installation)
        copies = backup.purge(installation, dict.fromkeys(folders))
    if left := _look(installation, whom).rows:
        raise ChangedMeanwhile(
            f"{', '.join(left)} of {installation.shop.shop} got rows of the shopper while they "
            "were erased; let no update run, then forget again"
        )
    versions = tuple(begun.details[_VERSIONS])
    details = {_ROWS: dict(rows), _VERSIONS: list(versions)}
    for person in sorted(whom.persons):
        done = replace(begun, person=person, event="erased", details=details)
        installation.ledger.record_forgetting(done)
    return Forgot(installation.shop.shop, dict(rows), versions, copies)


def _purge(installation: Installation, folders: Iterable[str]) -> None:
    """Delete the earlier versions of the tables among some folders of the lake."""
    for folder in folders:
        with lock(installation, folder):
            installation.lake.keep_only_present(folder)


def _require_nameless(text: str, shopper: str) -> None:
    if re.search(rf"(?<!\w){re.escape(shopper)}(?!\w)", text):
        raise NamesTheShopper(
            "the record of a forgotten shopper must not say who it was, but the reason, or who "
            "asks, holds the id; word it without, for example with the number of the request"
        )
