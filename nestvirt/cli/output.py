"""What a command prints: the report on stdout, everything else on stderr."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from nestvirt import report
from nestvirt.errors import Error
from nestvirt.model import Fleet, Report, Row
from nestvirt.printable import printable

if TYPE_CHECKING:  # rich is imported when text is printed
    from rich.console import Console
    from rich.status import Status

    from nestvirt.report_list import Inventory

F = TypeVar("F", bound=Callable[..., Any])
STOPPED = 130
"""The exit code of a command that its user has stopped."""
PLUGIN_UNKNOWN = 3
"""The state, and exit code, of a monitoring plugin that could not find out."""


def finish(result: Report, output: str) -> int:
    """Print the report on stdout; return the exit code."""
    if output == "text":
        _print_text(result)
        return report.exit_code(result)
    click.echo(_report_as(result, output))
    if output == "nagios":
        from nestvirt import nagios

        return nagios.state(result)
    return report.exit_code(result)


def _print_text(result: Report) -> None:
    console = stdout_console()
    width = console.width if sys.stdout.isatty() else None
    console.print(report.to_text(result, width), soft_wrap=width is None)


def _report_as(result: Report, output: str) -> str:
    """What is rarely asked for is imported when it is."""
    if output == "jsonl":
        from nestvirt import report_fleet

        return report_fleet.row_to_json(Row(result.target, result))
    if output == "junit":
        from nestvirt import junit

        return junit.to_junit(result)
    if output == "html":
        from nestvirt import report_html

        return report_html.to_html(result, _now())
    if output == "nagios":
        from nestvirt import nagios

        return nagios.to_nagios(result)
    return report.to_json(result)


def finish_fleet(fleet: Fleet, output: str) -> int:
    """Print what came of many; return the exit code. With jsonl, each has its line already."""
    from nestvirt import report_fleet

    code = report_fleet.exit_code(fleet)
    if output == "json":
        for part in report_fleet.to_json(fleet):
            click.echo(part, nl=False)
        click.echo()
    elif output == "jsonl":
        click.echo(report_fleet.summary_to_json(fleet))
    elif output == "junit":
        from nestvirt import junit

        for part in junit.fleet_to_junit(fleet):
            click.echo(part, nl=False)
        click.echo()
    elif output == "html":
        from nestvirt import report_html

        click.echo(report_html.fleet_to_html(fleet, _now()))
    elif output == "nagios":
        from nestvirt import nagios

        click.echo(nagios.fleet_to_nagios(fleet))
        code = nagios.fleet_state(fleet)
    else:
        alone = report_fleet.alone(fleet)
        if alone is not None:
            _print_text(alone)
        else:
            stdout_console().print(report_fleet.to_text(fleet), soft_wrap=True)
    return code


class JsonLines:
    """A line on stdout for each target as it ends, for ``-o jsonl``. Several threads may tell."""

    def __init__(self) -> None:
        self._one_at_a_time = threading.Lock()
        self._read = True

    def tell(self, row: Row) -> None:
        """Write one down at once. Nobody reading any more is no reason to stop the work, but to be told."""
        from nestvirt import report_fleet

        line = report_fleet.row_to_json(row)
        with self._one_at_a_time:
            if not self._read:
                return
            try:
                click.echo(line)
            except OSError as error:
                self._read = False
                with contextlib.suppress(OSError):
                    click.echo(f"nestvirt: stdout cannot be written ({error}); the work goes on", err=True)


def finish_list(inventory: Inventory, output: str) -> int:
    """Print which VMs there are; return the exit code."""
    from nestvirt import report_list

    if output == "json":
        click.echo(report_list.to_json(inventory))
    elif output == "jsonl":
        for line in report_list.to_jsonl(inventory):
            click.echo(line)
    elif output == "html":
        click.echo(report_list.to_html(inventory, _now()))
    elif sys.stdout.isatty():
        console = stdout_console()
        for line, style in report_list.to_lines(inventory):
            console.print(line, style=style or None, soft_wrap=True)
    else:
        click.echo("\n".join(line for line, _ in report_list.to_lines(inventory)))
    return inventory.exit_code


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def reporting_errors(function: F) -> F:
    """With any form but text, an error is in that form on stdout too; the words on stderr stay."""

    @functools.wraps(function)
    def wrapped(*args: object, **options: object) -> object:
        try:
            return function(*args, **options)
        except Error as error:
            said = _error_as(error, str(options.get("output")))
            if said:
                click.echo(said)
            raise

    return wrapped  # type: ignore[return-value]


def _error_as(error: Error, output: str) -> str:
    if output == "junit":
        from nestvirt import junit

        return junit.error_to_junit(error)
    if output == "html":
        from nestvirt import report_html

        return report_html.error_to_html(error, _now())
    if output == "nagios":
        from nestvirt import nagios

        return nagios.error_to_nagios(error)
    if output == "jsonl":
        return json.dumps(json.loads(report.error_to_json(error)), ensure_ascii=False)
    return report.error_to_json(error) if output == "json" else ""


def plugin_code(code: int, words: Sequence[str], said: str = "") -> int:
    """The exit code of a run that ended without a report: with ``-o nagios`` it is UNKNOWN, whatever it was.

    Args:
        code: the one of our own table.
        words: the command line, which may be what is wrong.
        said: what is to be told on stdout, where a monitor looks.
    """
    if not re.search(r"(^|\n)(-\w*o|--output)[=\n]?nagios($|\n)", "\n".join(words)):
        return code
    if said:
        with contextlib.suppress(OSError):
            click.echo(f"NESTVIRT UNKNOWN - {printable(said).replace('|', '¦')}")
    return PLUGIN_UNKNOWN


def leave(code: int) -> NoReturn:
    """End the process with what was printed, and wait for no thread that waits for an answer itself."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)


@contextlib.contextmanager
def leaving_at_once() -> Iterator[None]:
    """Hypervisors are asked, and nothing is touched: Ctrl-C waits for no answer."""
    try:
        yield
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):
            click.echo("nestvirt: stopping; nothing was touched", err=True)
        leave(plugin_code(STOPPED, sys.argv[1:], "it was stopped"))


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
        self._told: set[tuple[str, str]] = set()

    def tell(self, step: str, detail: str) -> None:
        """Show one step. Nobody looking any more is no reason to stop the work."""
        if self.quiet:
            return
        try:
            self._show(f"{step} {printable(detail)}")
        except OSError:
            self.quiet = True

    def tell_once(self, step: str, detail: str) -> None:
        """The same, but for what was told before: several targets may be reached in the same way."""
        if (step, detail) not in self._told:
            self._told.add((step, detail))
            self.tell(step, detail)

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
