"""Progress of the demo, which a person can follow in a terminal or a log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


@dataclass(frozen=True)
class Bar:
    """Lines of progress, one a task."""

    progress: Progress

    def track(self, title: str, total: int) -> Callable[[int, str], None]:
        """Begin a line; call the result with what is done and a word about now."""
        line = self.progress.add_task(title, total=total, now="")
        console = self.progress.console
        printed = -1

        def update(done: int, now: str) -> None:
            nonlocal printed
            self.progress.update(line, completed=done, now=now)
            # Where a bar cannot move, in a log, each step is a line.
            if not console.is_terminal and done > printed:
                console.print(f"{title}: {done}/{total}", soft_wrap=True)
                printed = done

        return update


@contextmanager
def bar(console: Console) -> Iterator[Bar]:
    """A bar on a console, for the length of a with block."""
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description:<34}"),
        BarColumn(30),
        TextColumn("{task.completed:>3.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[now]}"),
        console=console,
    ) as progress:
        yield Bar(progress)
