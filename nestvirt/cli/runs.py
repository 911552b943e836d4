"""``nestvirt undo --list``: all runs, over one VM and over many."""

from __future__ import annotations

import json
import sys

import click

from nestvirt.cli.output import stdout_console
from nestvirt.fleet.record import FleetRuns
from nestvirt.journal import Journal, Run
from nestvirt.printable import printable
from nestvirt.report import SCHEMA_VERSION

Told = dict[str, str | int | None]
"""A run, by what is told of it."""


def list_runs(
    journal: Journal, fleets: FleetRuns, output: str, vm: str | None = None, backend: str | None = None
) -> int:
    """Print them, newest first.

    Args:
        vm: only the runs of that VM, as for Run.is_of; runs over many are then left out.
        backend: that VM's.
    """
    single = [
        {"run": run_id, **_known(run), "state": "unreadable" if ill or run is None else _state(journal, run)}
        for run_id, run, ill in journal.records()
        if run is None or run.is_of(vm, backend)
    ]
    of_many = _of_many(fleets) if (vm, backend) == (None, None) else []
    if output == "json":
        told = {"schema_version": SCHEMA_VERSION, "runs": single, "fleet_runs": of_many}
        click.echo(json.dumps(told, indent=2, ensure_ascii=False))
        return 0
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("run", min_width=22, no_wrap=True)  # never cut: it is what undo is told
    for name in ("time", "command", "target", "state"):
        table.add_column(name, overflow="fold")
    runs = sorted([*single, *of_many], key=lambda told: str(told["run"]), reverse=True)
    for run in runs:
        target = f"{run['targets']} targets" if "targets" in run else run["target"]
        cells = {**run, "target": printable(str(target), 60) if target is not None else None}
        table.add_row(*(str(cells[name] or "?") for name in ("run", "time", "command", "target", "state")))
    stdout_console(width=None if sys.stdout.isatty() else 120).print(table if runs else "no runs yet")
    return 0


def _known(run: Run | None) -> Told:
    """What a run's first line says; nothing, where not even that can be read."""
    if run is None:
        return {"time": None, "command": None, "target": None}
    return {"time": run.time, "command": run.command, "target": str(run.target)}


def _of_many(runs: FleetRuns) -> list[Told]:
    return [
        {
            "run": run.id,
            "time": run.time,
            "command": run.command,
            "targets": len(run.names),
            "state": "under way" if runs.under_way(run) else run.state,
        }
        for run in runs.runs()
    ]


def _state(journal: Journal, run: Run) -> str:
    under_way = run.outcome is None and journal.under_way(run.target.backend, run.vm) is not None
    return "under way" if under_way else run.state
