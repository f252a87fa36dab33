"""The checks of an installation; each finding says what to do about what is wrong."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipelines.inspect import freshness
from pipelines.shared.errors import FreshrankError, SourceUnavailable, TrackingUnavailable
from pipelines.shared.ledger import champion_of
from pipelines.shared.mlflow_server import require_reachable
from pipelines.shared.run import Installation
from pipelines.shared.settings import PROJECT, Settings, without_secrets

MIN_FREE_GB = 5.0
_PACKAGES = (
    "apache-airflow", "mlflow", "lightgbm", "pandas", "great-expectations", "sqlalchemy",
    "duckdb", "deltalake", "ibis-framework", "pyarrow",
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One check: its subject, whether all is well, and what was observed or is to be done."""

    subject: str
    well: bool
    message: str


def examine(settings: Settings, shop: str) -> Iterator[Finding]:
    """Check Python, package versions, disk, the shop, its sources, the ledger and MLflow."""
    yield _python()
    yield from _versions()
    yield _disk(settings)
    try:
        installation = Installation.open(settings, shop)
    except FreshrankError as error:
        yield Finding("shop", False, str(error))
        return
    declared = installation.shop
    yield Finding("shop", True, f"{declared.title}: {len(declared.tables)} tables")
    yield from _sources(installation)
    try:
        yield Finding("ledger", True, f"{len(installation.ledger.decisions())} decisions")
        yield _turn(installation)
        yield from _forgotten(installation)
        yield from _pending(installation)
    except FreshrankError as error:
        yield Finding("ledger", False, str(error))
        yield _mlflow(settings)
        return
    yield (reached := _mlflow(settings))
    if reached.well:
        yield from _registry(installation)


def _python() -> Finding:
    installed = ".".join(str(part) for part in sys.version_info[:3])
    well = sys.version_info[:2] == (3, 11)
    message = installed if well else f"{installed}; use Python 3.11 (`make setup`)"
    return Finding("python", well, message)


def _versions() -> Iterator[Finding]:
    lock = (PROJECT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    locked = dict(line.split("==") for line in lock if "==" in line and not line.startswith(" "))
    wrong = []
    for package in _PACKAGES:
        try:
            installed = version(package)
        except PackageNotFoundError:
            wrong.append(f"{package} is missing")
            continue
        if installed != locked.get(package):
            wrong.append(f"{package} is {installed}, locked is {locked.get(package)}")
    message = "; ".join(wrong) + "; run `make setup`" if wrong else f"{len(_PACKAGES)} as locked"
    yield Finding("packages", not wrong, message)


def _disk(settings: Settings) -> Finding:
    if "://" in settings.lake:
        return Finding("lake", True, f"{settings.lake} (object store)")
    folder = Path(settings.lake)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    message = f"{free:.0f} GB free at {settings.lake}"
    if free < MIN_FREE_GB:
        return Finding("lake", False, f"{message}; make room, or set FRESHRANK_LAKE elsewhere")
    return Finding("lake", True, message)


def _sources(installation: Installation) -> Iterator[Finding]:
    from pipelines import extract

    for part in installation.shop.parts():
        name = part.source_name
        try:
            url = installation.settings.connection(part.source.connection)
            faults = extract.check(url, part)
        except SourceUnavailable as error:
            faults = [f"{error}; meanwhile {', '.join(sorted(part.tables))} wait"]
        except FreshrankError as error:
            faults = [str(error)]
        for fault in faults:
            yield Finding("source", False, f"{name}: {fault}")
        if not faults:
            yield Finding("source", True, f"{name}: tables as declared, changes captured")


def _turn(installation: Installation) -> Finding:
    """Who is at work; a holder that gives no sign of life is in nobody's way."""
    turn = installation.ledger.turns.standing()
    if turn is None:
        return Finding("turn", True, "nobody is at work")
    return Finding("turn", True, f"{turn}{'' if turn.alive else '; the next run takes it over'}")


def _forgotten(installation: Installation) -> Iterator[Finding]:
    """Whether somebody is to be forgotten and still is not."""
    from pipelines.maintain.forget.stage import unfinished

    if begun := unfinished(installation):
        reasons = ", ".join(repr(each.reason) for each in begun)
        message = (
            f"{len(begun)} begun and not ended ({reasons}); `python -m pipelines forget --again "
            "--reason …` goes on"
        )
        yield Finding("forgotten", False, message)


def _pending(installation: Installation) -> Iterator[Finding]:
    """What is pending at each source, where its capture mode knows."""
    for state in freshness.sources(installation):
        pending = [
            f"{each.pending_rows:,} of {each.table}" for each in state.tables if each.pending_rows
        ]
        behind = max((each.pending_bytes or 0 for each in state.tables), default=0)
        if behind:
            pending.append(f"{behind:,} bytes of log")
        if state.answers and state.fault:
            yield Finding("pending", False, f"{state.source}: {state.fault}")
        elif not state.fault:
            message = f"{state.source}: not extracted yet: {', '.join(pending) or 'nothing'}"
            yield Finding("pending", True, message)
        if state.ahead:
            message = (
                f"{state.source}: stamped in the future, so that no interval takes them before: "
                f"{'; '.join(state.ahead)}; correct the column in those rows (`commit_time` or "
                "`cursor` of the table), or the clock that stamped them and write the rows again"
            )
            yield Finding("pending", False, message)


def _mlflow(settings: Settings) -> Finding:
    uri = settings.mlflow_uri.get_secret_value()
    try:
        require_reachable(uri)
    except TrackingUnavailable as error:
        return Finding("mlflow", False, str(error))
    return Finding("mlflow", True, without_secrets(uri))


def _registry(installation: Installation) -> Iterator[Finding]:
    """Whether MLflow's alias is at the ledger's champion; of a server alone, which can be asked."""
    uri = installation.settings.mlflow_uri.get_secret_value()
    decisions = installation.ledger.decisions()
    if not uri.startswith("http") or not decisions:
        return
    from pipelines.promote.registry import MlflowRegistry

    shop, last = installation.shop, decisions[-1]
    try:
        fault = MlflowRegistry(uri, shop.shop, shop.surface.name).fault(champion_of(decisions))
    except TrackingUnavailable as error:
        fault = str(error)
    if not fault:
        yield Finding("registry", True, "the alias is at the ledger's champion")
        return
    edges = f"--start {last.interval.start:%FT%TZ} --end {last.interval.end:%FT%TZ}"
    yield Finding(
        "registry",
        False,
        f"{fault}; clear the task `{last.outcome}` of the last decided interval, or run `python -m "
        f"pipelines run --shop {shop.shop} {edges}`: a missing version is registered again from "
        "the lake, and the alias follows the ledger",
    )
