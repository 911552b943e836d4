"""What a command prints: the report on stdout, everything else on stderr."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from nestvirt import report
from nestvirt.errors import Error
from nestvirt.model import Report
from nestvirt.printable import printable

if TYPE_CHECKING:  # rich is imported when text is printed
    from rich.console import Console
    from rich.status import Status

F = TypeVar("F", bound=Callable[..., Any])


def finish(result: Report, output: str) -> int:
    """Print the report on stdout; return the exit code."""
    if output == "json":
        click.echo(report.to_json(result))
    elif output == "junit":
        from nestvirt import junit  # imported when it is asked for

        click.echo(junit.to_junit(result))
    else:
        console = stdout_console()
        width = console.width if sys.stdout.isatty() else None
        console.print(report.to_text(result, width), soft_wrap=width is None)
    return report.exit_code(result)


def reporting_errors(function: F) -> F:
    """With ``-o json`` or ``junit``, an error is in that form on stdout too; the words on stderr stay."""

    @functools.wraps(function)
    def wrapped(*args: object, **options: object) -> object:
        try:
            return function(*args, **options)
        except Error as error:
            if options.get("output") == "json":
                click.echo(report.error_to_json(error))
            elif options.get("output") == "junit":
                from nestvirt import junit

                click.echo(junit.error_to_junit(error))
            raise

    return wrapped  # type: ignore[return-value]


def stderr_console() -> Console:
    """Rich's console on stderr: styled on a terminal only, and plain where NO_COLOR is set."""
    return _console(stderr=True)


def stdout_console(width: int | None = None) -> Console:
    """The same on stdout."""
    return _console(stderr=False, width=width)


def _console(*, stderr: bool, width: int | None = None) -> Console:
    from rich.console import Console

    styled = None if _wants_style() else False  # rich's own no_color keeps bold, and what else is no colour
    return Console(
        stderr=stderr, force_terminal=styled, highlight=False, emoji=False, markup=False, width=width
    )


def _wants_style() -> bool:
    return not os.environ.get("NO_COLOR")


class Progress:
    """What is under way, on stderr: one live line on a terminal, else a line a step, or nothing at all."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self._live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and _wants_style()
        self._status: Status | None = None

    def tell(self, step: str, detail: str) -> None:
        """Show one step. Nobody looking any more is no reason to stop the work."""
        if self.quiet:
            return
        try:
            self._show(f"{step} {printable(detail)}")
        except OSError:
            self.quiet = True

    def note(self, line: str) -> None:
        """Tell what must not be overlooked: a line that stays."""
        self.rest()
        if not self.quiet:
            with contextlib.suppress(OSError):
                click.echo(f"nestvirt: {printable(line)}", err=True)

    def _show(self, line: str) -> None:
        if not self._live:
            click.echo(f"nestvirt: {line}", err=True)
            return
        from rich.text import Text

        if self._status is None:
            self._status = stderr_console().status("")
            self._status.start()
        self._status.update(Text(line))

    def rest(self) -> None:
        """Leave the terminal alone, for a question or for the end."""
        if self._status is not None:
            self._status.stop()
            self._status = None
