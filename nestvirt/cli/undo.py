"""``nestvirt undo``: put back exactly what a run changed, over one VM or many."""

from __future__ import annotations

from typing import Any

import click

from nestvirt import engine, settings
from nestvirt.cli.fleet_options import pace_options, refuse_of_many, undo_batch_options
from nestvirt.cli.options import (
    change_options,
    drain_options,
    endpoint_options,
    output_options,
    run_options,
    timeout_option,
    with_options,
)
from nestvirt.cli.output import Progress, finish, reporting_errors
from nestvirt.cli.runs import list_runs
from nestvirt.cli.session import Chosen, consenting, opened
from nestvirt.fleet.cordoned import cordoned_beside, cordoned_since
from nestvirt.fleet.record import FleetRuns
from nestvirt.journal import Journal, Run
from nestvirt.model import Report


@click.command()
@click.argument("run", required=False)
@click.option("--list", "listing", is_flag=True, help="List all runs, newest first.")
@with_options(run_options, drain_options, change_options, [timeout_option], endpoint_options)
@with_options(pace_options, undo_batch_options, output_options)
@reporting_errors
def undo(run: str | None, listing: bool, **options: Any) -> int:
    """Put back exactly what RUN changed: the newest run that can be undone, where none is named.

    The id of a run over many VMs takes all of it back, with one plan and one question; where that is stopped
    or dies, run it again. It goes on as that run did, with its --batch and --drain-nodes. Of one VM's run the
    report is text or JSON.

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
      nestvirt undo 20260131-101500-1a2b3c --dry-run -o html
    """
    notes = Progress(quiet=bool(options["quiet"]))
    journal = Journal(settings.state_path())
    fleets = FleetRuns(settings.state_path(), lambda ill: notes.note(f"{ill.message}, and is left out"))
    if run is not None and not listing and _is_of_many(run, journal, fleets):
        from nestvirt.cli.undo_many import undo_many

        return undo_many(run, fleets, options)
    refuse_of_many(options)
    chosen = Chosen.of(options)
    backend, vm = chosen.vm or (None, None)
    if backend == "vmx" and vm is not None:
        from nestvirt.backends.workstation.vmfile import recorded_name  # when it is used, as a backend is

        vm = recorded_name(vm)
    if listing:
        if run is not None:
            raise click.UsageError("--list takes no RUN.")
        return list_runs(journal, fleets, str(options["output"]), vm, backend)
    if run is not None:
        found = journal.find(run, vm, backend)
    else:
        found = _newest(journal, fleets, notes, vm, backend)
    found = journal.whole(found)
    report = _undo_one(found, chosen, **options)
    for line in cordoned_beside(fleets, found):
        notes.note(line)
    return finish(report, str(options["output"]))


def _newest(journal: Journal, fleets: FleetRuns, notes: Progress, vm: str | None, backend: str | None) -> Run:
    """The newest run that can be undone. One over many that died in a drain has none; it is told of."""
    since = ""
    try:
        found = journal.find(None, vm, backend)
        since = found.id
        return found
    finally:
        for line in cordoned_since(fleets, since):
            notes.note(line)


def _is_of_many(run: str, journal: Journal, fleets: FleetRuns) -> bool:
    return fleets.get(run) is not None and not journal.runs(run)


def _undo_one(
    recorded: Run,
    chosen: Chosen,
    *,
    dry_run: bool,
    yes: bool,
    no_restart: bool,
    force_off: bool,
    quiet: bool,
    output: str,
    **_options: Any,
) -> Report:
    progress = Progress(quiet=quiet or output != "text")
    with opened(chosen, recorded.target, progress, recorded=recorded) as session:
        consent = consenting(session, progress, yes=yes, no_restart=no_restart)
        manner = engine.Manner(consent, not no_restart, force_off, dry_run)
        return engine.undo(session, recorded, manner)
