"""``nestvirt undo``: put back exactly what a run changed."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from nestvirt import engine, settings
from nestvirt.cli.options import (
    change_options,
    drain_options,
    endpoint_options,
    run_options,
    timeout_option,
    undo_output_options,
    with_options,
)
from nestvirt.cli.output import Progress, finish, reporting_errors, stdout_console
from nestvirt.cli.session import Chosen, consenting, opened
from nestvirt.journal import Journal, Run
from nestvirt.printable import printable
from nestvirt.report import SCHEMA_VERSION


@click.command()
@click.argument("run", required=False)
@click.option("--list", "listing", is_flag=True, help="List all runs, newest first.")
@with_options(
    run_options, drain_options, change_options, [timeout_option], endpoint_options, undo_output_options
)
@reporting_errors
def undo(
    run: str | None,
    listing: bool,
    dry_run: bool,
    yes: bool,
    no_restart: bool,
    force_off: bool,
    quiet: bool,
    output: str,
    **options: Any,
) -> int:
    """Put back exactly what RUN changed: the newest run that can be undone, where none is named.

    It works after a crash in the middle of the run, too, and can itself be repeated. It connects where the
    run did; only an option says otherwise. Passwords and tokens are not recorded, and looked for anew.

    \b
    Examples:
      nestvirt undo --list
      nestvirt undo
      nestvirt undo --libvirt web-01
      nestvirt undo --proxmox 100
      nestvirt undo --vsphere web-01
      nestvirt undo --vmx machine.vmx
      nestvirt undo 20260131-101500-1a2b3c --yes
    """
    journal, chosen = Journal(settings.state_path()), Chosen.of(options)
    backend, vm = chosen.vm or (None, None)
    if backend == "vmx" and vm is not None:
        from nestvirt.backends.workstation.vmfile import recorded_name  # when it is used, as a backend is

        vm = recorded_name(vm)
    if listing:
        if run is not None:
            raise click.UsageError("--list takes no RUN.")
        return _list(journal, output, vm, backend)
    recorded = journal.find(run, vm, backend)
    progress = Progress(quiet=quiet or output != "text")
    with opened(chosen, recorded.target, progress, recorded=recorded) as session:
        consent = consenting(session, progress, yes=yes, no_restart=no_restart)
        manner = engine.Manner(consent, not no_restart, force_off, dry_run)
        report = engine.undo(session, recorded, manner)
    return finish(report, output)


def _list(journal: Journal, output: str, vm: str | None = None, backend: str | None = None) -> int:
    runs = [(r, _state(journal, r)) for r in journal.runs() if r.is_of(vm, backend)]
    if output == "json":
        rows = [
            {"run": r.id, "time": r.time, "command": r.command, "target": str(r.target), "state": state}
            for r, state in runs
        ]
        click.echo(json.dumps({"schema_version": SCHEMA_VERSION, "runs": rows}, indent=2, ensure_ascii=False))
        return 0
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("run", min_width=22, no_wrap=True)  # never cut: it is what undo is told
    for name in ("time", "command", "target", "state"):
        table.add_column(name, overflow="fold")
    for r, state in runs:
        table.add_row(r.id, r.time, r.command, printable(str(r.target), 60), state)
    stdout_console(width=None if sys.stdout.isatty() else 120).print(table if runs else "no runs yet")
    return 0


def _state(journal: Journal, run: Run) -> str:
    under_way = run.outcome is None and journal.under_way(run.target.backend, run.vm) is not None
    return "under way" if under_way else run.state
