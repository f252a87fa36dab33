"""Having the turn: waiting for it, giving signs of life in it, releasing it."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from pipelines.shared.errors import FreshrankError, TurnTaken
from pipelines.shared.ledger import Turn
from pipelines.shared.run import Run

BEAT_S: Final = 30.0
"""Between two signs of life: a tenth of what a turn lasts without one."""
PATIENCE_S: Final = 3600.0
"""A command waits for its turn; a run of one interval takes minutes, of a first load more."""
_ASK_S: Final = 2.0
_TELL_S: Final = 60.0
_BEAT_LOCK_S: Final = 5.0
_log = logging.getLogger(__name__)


@contextmanager
def held(run: Run, waiting: Callable[[str], None], patience_s: float = PATIENCE_S) -> Iterator[Run]:
    """Wait until it is the run's turn, have it during the block, and release it.

    Args:
        waiting: called with who is in the way, at once and then every minute.
        patience_s: for how many seconds it waits.

    Yields:
        The run with its turn.

    Raises:
        TurnTaken: somebody was in the way for too long.
        IntervalOverlaps: the interval overlaps one that is decided or running.
    """
    holder = f"{socket.gethostname()} process {os.getpid()} ({secrets.token_hex(4)})"
    try:
        with beating(run, _awaited(run, holder, waiting, patience_s)) as ready:
            yield ready
    finally:
        try:
            run.ledger.turns.release(holder)
        except FreshrankError as error:
            _log.warning("the turn of %s ends by itself: %s", holder, error)


def _awaited(run: Run, holder: str, waiting: Callable[[str], None], patience_s: float) -> Turn:
    began = time.monotonic()
    told = began - _TELL_S
    while True:
        try:
            return run.ledger.turns.take(run.interval, holder)
        except TurnTaken as taken:
            now = time.monotonic()
            if now - began >= patience_s:
                raise
            if now - told >= _TELL_S:
                waiting(str(taken))
                told = now
        time.sleep(min(_ASK_S, patience_s))


@contextmanager
def beating(run: Run, turn: Turn) -> Iterator[Run]:
    """Give signs of life in a turn while the block runs.

    With a ledger in SQLite, a sign of life waits while a stage holds a lock, which in SQLite is
    that of the whole file: one that takes longer than a turn lasts may lose it.

    Yields:
        The run with its turn.
    """
    over = threading.Event()
    beat = threading.Thread(target=_beat, args=(run, turn, over), name="turn", daemon=True)
    beat.start()
    try:
        yield replace(run, turn=turn)
    finally:
        over.set()


def _beat(run: Run, turn: Turn, over: threading.Event) -> None:
    while not over.wait(BEAT_S):
        try:
            if not run.open_ledger(_BEAT_LOCK_S).turns.beat(turn):
                _log.error("another run took over the turn of %s", turn.holder)
                return
        except FreshrankError as error:
            _log.warning("no sign of life in the ledger: %s", error)
