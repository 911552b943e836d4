"""What a command is about to do to a cluster: shown on stderr, and asked."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence

import click

from nestvirt.cli.output import Progress, stderr_console
from nestvirt.cli.session import DECLINED
from nestvirt.printable import printable


def refuse_unasked() -> None:
    """Refuse where nobody could be asked.

    Raises:
        UsageError: there is no terminal.
    """
    if not sys.stdin.isatty():
        raise click.UsageError("There is no terminal to ask at: consent with --yes, or try --dry-run.")


def ask(target: str, lines: Sequence[str], progress: Progress, *, yes: bool, question: str) -> None:
    """Show the plan, and ask unless told not to; declining ends the command with 130.

    Raises:
        UsageError: there is nobody to ask.
    """
    if yes and progress.quiet:
        return
    progress.rest()
    with contextlib.suppress(OSError):  # nobody looks; the work is what counts
        console = stderr_console()
        console.print(printable(f"{target}: this will be done"), soft_wrap=True)
        for line in lines:
            console.print(f"  {printable(line)}", soft_wrap=True)
    if yes:
        return
    refuse_unasked()
    try:
        click.confirm(question, abort=True, err=True)
    except click.Abort:
        click.echo("Nothing was changed.", err=True)
        raise click.exceptions.Exit(DECLINED) from None
