"""How a run over many goes, on stderr: a bar on a terminal, else a line for each that ends; or nothing."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from nestvirt.cli.output import stderr_console
from nestvirt.engine import Step
from nestvirt.errors import Error
from nestvirt.fleet.selection import Member
from nestvirt.model import Ending, Report, Row
from nestvirt.printable import printable

if TYPE_CHECKING:  # rich is imported when a bar is shown
    from rich.live import Live
    from rich.progress import Progress

SHOWN = 10
"""So many of those under way have a line of their own."""
_STYLES = {Ending.PASS: "green", Ending.FAIL: "bold red", Ending.UNKNOWN: "magenta"}


class Screen:
    """A Watcher; see there.

    Args:
        quiet: show nothing.
        tell: told of each row as it ends, for the form of output that has a line for each.
    """

    def __init__(self, *, quiet: bool, tell: Callable[[Row], None] = lambda _row: None) -> None:
        self._quiet = quiet
        self._tell = tell
        self._live = (
            sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")
        )
        self._bar: Progress | None = None
        self._shown: Live | None = None
        self._lines: dict[str, str] = {}
        self._all: Any = None
        self._total = self._done = 0
        self._in_lines = True

    @contextmanager
    def showing(self, what: str, total: int, *, lines: bool) -> Iterator[None]:
        """One pass over so many.

        Args:
            what: it is, for people.
            total: how many.
            lines: whether each that ends is told where there is no bar.
        """
        self._total, self._done, self._in_lines = total, 0, lines
        if self._quiet or not self._live:
            if not lines:
                self.note(f"{what} {total}")
            yield
            return
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns)
        self._all = self._bar.add_task(what, total=total)
        with Live(get_renderable=self._rendered, console=stderr_console(), transient=True) as self._shown:
            yield
        self._shown, self._lines = None, {}

    def _rendered(self) -> Any:
        """The bar, and a line for each of the first few that are under way."""
        from rich.console import Group
        from rich.text import Text

        lines = [Text(f"  {line}", style="dim", overflow="ellipsis") for line in list(self._lines.values())]
        return Group(self._bar, *lines[:SHOWN]) if self._bar is not None else ""

    def begun(self, member: Member) -> None:
        """See Watcher."""
        self._lines[member.written] = printable(member.written, 100)

    def step(self, member: Member, step: Step, detail: str) -> None:
        """See Watcher."""
        self._lines[member.written] = printable(f"{member.written}: {step} {detail}", 100)

    def ended(self, member: Member, row: Row) -> None:
        """See Watcher."""
        self._done += 1
        self._lines.pop(member.written, None)
        self._tell(row)
        if self._quiet:
            return
        line = f"{row.label}: {row.ending} in {row.seconds:.1f} s{_why(row)}"
        with contextlib.suppress(OSError):
            if self._shown is None or self._bar is None:
                if self._in_lines:
                    click.echo(f"nestvirt: [{self._done}/{self._total}] {line}", err=True)
                return
            self._bar.advance(self._all)
            if row.ending not in (Ending.PASS, Ending.PLAN):
                self._shown.console.print(line, style=_STYLES.get(row.ending))

    def stopping(self, left: int, *, at_once: bool) -> None:
        """See Watcher."""
        words = f"stopping: {left} under way are finished; Ctrl-C once more stops them, too"
        if at_once:
            back = "what was begun is put back, or, where only the proof is missing, left as it is"
            words = f"stopping {left} under way at their next step; {back}"
        self.note(words)

    def note(self, line: str) -> None:
        """Tell what must not be overlooked."""
        if self._quiet:
            return
        with contextlib.suppress(OSError):
            if self._shown is not None:
                self._shown.console.print(line)
            else:
                click.echo(f"nestvirt: {line}", err=True)


def _why(row: Row) -> str:
    if isinstance(row.outcome, Error):
        return f": {printable(row.outcome.message, 200)}"
    if isinstance(row.outcome, Report) and row.outcome.first_broken is not None:
        return f": {row.outcome.first_broken.check}"
    return ""
