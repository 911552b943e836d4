"""What would be done to many, shown once, and asked for once."""

from __future__ import annotations

import contextlib
import sys
from collections import defaultdict
from collections.abc import Sequence

import click

from nestvirt.cli.output import stderr_console
from nestvirt.cli.session import DECLINED
from nestvirt.errors import Error
from nestvirt.model import Ending, Report, Row, Status
from nestvirt.printable import printable

NAMED = 20
"""So many targets of one kind are named, and how many more there are; those to be changed are all named."""
_NOT_TOUCHED = "dry run, nothing was touched; it would "


def consent(rows: Sequence[Row], *, yes: bool, quiet: bool) -> None:
    """Show what is planned, and ask unless told not to; declining ends the command with 130."""
    planned = [row for row in rows if row.ending is Ending.PLAN]
    if not (yes and quiet):
        with contextlib.suppress(OSError):  # nobody looks; the work is what counts
            show(rows)
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("There is no terminal to ask at: consent with --yes, or try --dry-run.")
    try:
        click.confirm(f"Change {len(planned)} of {len(rows)}?", abort=True, err=True)
    except click.Abort:
        click.echo("Nothing was changed.", err=True)
        raise click.exceptions.Exit(DECLINED) from None


def show(rows: Sequence[Row]) -> None:
    """On stderr: what will be done to which, what blocks which, and which are as they should be."""
    told: dict[str, list[str]] = defaultdict(list)
    mind: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        told[_what(row)].append(row.label)
        if isinstance(row.outcome, Report) and row.outcome.planned:
            for finding in row.outcome.findings:
                if finding.status is Status.WARN:
                    mind[f"{finding.check}: {finding.evidence}"].append(row.label)
    console = stderr_console()
    for what, targets in sorted(told.items(), key=lambda item: not item[0].startswith("will")):
        limit = len(targets) if what.startswith("will") else NAMED
        console.print(f"{printable(what)}: {_names(targets, limit)}", soft_wrap=True)
    for what, targets in mind.items():
        console.print(f"  mind {printable(what)}: {_names(targets, NAMED)}", soft_wrap=True)


def _what(row: Row) -> str:
    if isinstance(row.outcome, Error):
        return f"cannot be changed ({row.outcome.message})"
    if row.outcome is None:
        return row.note or "is left alone"
    if row.outcome.planned:
        would = [line.removeprefix(_NOT_TOUCHED).removeprefix("it would ") for line in row.outcome.remains]
        return f"will {'; '.join(would)}" if would else "will be changed"
    if row.outcome.blockers:
        checks = dict.fromkeys(finding.check for finding in row.outcome.blockers)
        return f"is blocked by {', '.join(checks)}"
    return "has nothing to be changed"


def _names(targets: Sequence[str], limit: int) -> str:
    shown = ", ".join(target for target in targets[:limit])
    more = f" and {len(targets) - limit} more" if len(targets) > limit else ""
    return f"{shown}{more}"
