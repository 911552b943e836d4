"""``nestvirt undo``: put back exactly what a run changed."""

from __future__ import annotations

import json
import sys

import click

from nestvirt import engine, settings
from nestvirt.cli.options import change_options, output_options, timeout_option, with_options
from nestvirt.cli.output import Progress, finish, reporting_errors, stdout_console
from nestvirt.cli.session import Chosen, consenting, opened
from nestvirt.journal import Journal, Run
from nestvirt.printable import printable
from nestvirt.report import SCHEMA_VERSION


@click.command()
@click.argument("run", required=False)
@click.option("--list", "listing", is_flag=True, help="List all runs, newest first.")
@with_options(change_options, [timeout_option], output_options)
@reporting_errors
def undo(
    run: str | None,
    listing: bool,
    dry_run: bool,
    yes: bool,
    no_restart: bool,
    force_off: bool,
    timeout: float,
    quiet: bool,
    output: str,
) -> int:
    """Put back exactly what RUN changed: the newest run that can be undone, where none is named.

    It works after a crash in the middle of the run, too, and can itself be repeated.

    \b
    Examples:
      nestvirt undo --list
      nestvirt undo
      nestvirt undo 20260131-101500-1a2b3c --yes
    """
    journal = Journal(settings.state_path())
    if listing:
        return _list(journal.runs(), output)
    recorded = journal.find(run)
    progress = Progress(quiet=quiet or output == "json")
    with opened(Chosen(timeout=timeout), recorded.target, progress, recorded=recorded) as session:
        manner = engine.Manner(consenting(yes, session, progress), not no_restart, force_off, dry_run)
        report = engine.undo(session, recorded, manner)
    return finish(report, output)


def _list(runs: list[Run], output: str) -> int:
    if output == "json":
        rows = [
            {"run": r.id, "time": r.time, "command": r.command, "target": str(r.target), "state": r.state}
            for r in runs
        ]
        click.echo(json.dumps({"schema_version": SCHEMA_VERSION, "runs": rows}, indent=2, ensure_ascii=False))
        return 0
    from rich.table import Table

    table = Table("run", "time", "command", "target", "state", box=None, pad_edge=False)
    for r in runs:
        table.add_row(r.id, r.time, r.command, printable(str(r.target), 60), r.state)
    stdout_console(width=None if sys.stdout.isatty() else 120).print(table if runs else "no runs yet")
    return 0
