"""``nestvirt enable``: plan, ask, stop, write, read back, start, and prove it in the guest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import click

from nestvirt.cli.fleet_options import batch_options, names_many, naming_options, pace_options
from nestvirt.cli.options import (
    change_options,
    drain_options,
    guest_options,
    output_options,
    target_options,
    with_host_options,
    with_options,
)
from nestvirt.cli.output import reporting_errors
from nestvirt.cli.session import reach_goal
from nestvirt.model import Goal

OLDEST_IN_USE = "vmx-13"
"""The hardware version of ESXi 6.5: every host that may still be met knows it."""


@click.command()
@with_options(naming_options, target_options, with_host_options, drain_options, change_options)
@with_options(pace_options, batch_options, guest_options, output_options)
@click.option(
    "--cpu",
    metavar="MODEL",
    help="libvirt: host-passthrough, host-model or a model; Proxmox: host, a vendor model, custom-NAME "
    "[what suits the VM].",
)
@click.option(
    "--upgrade-hardware",
    metavar="[VERSION]",
    is_flag=False,
    flag_value=OLDEST_IN_USE,
    help=f"vSphere: raise a hardware version below 9, to VERSION or {OLDEST_IN_USE}. Nobody can undo that.",
)
@click.option(
    "--upgrade-version",
    is_flag=True,
    help="Hyper-V: raise a configuration version that is too old. Nobody can undo that.",
)
@click.option(
    "--discard-saved-state",
    is_flag=True,
    help="Hyper-V: lose what a saved VM has in its memory; with --upgrade-version, also what its checkpoints "
    "have. Nobody can undo that.",
)
@click.option(
    "--mac-spoofing",
    is_flag=True,
    help="Hyper-V: let VMs inside be bridged to the network by their own MACs.",
)
@reporting_errors
def enable(
    cpu: str | None,
    upgrade_hardware: str | None,
    upgrade_version: bool,
    discard_saved_state: bool,
    mac_spoofing: bool,
    **options: Any,
) -> int:
    """Give VMs nested virtualization, and prove it by running guest code inside them.

    Shows what it would change, asks, and power-cycles a running VM. A second run changes nothing and verifies
    again. Where a step fails, everything is put back; what a run changed can be put back later with undo.

    \b
    Examples:
      nestvirt enable --libvirt web-01
      nestvirt enable --libvirt web-01 --dry-run
      nestvirt enable --libvirt web-01 --yes --timeout 300 --force-off
      nestvirt enable --libvirt web-01 --no-restart
      nestvirt enable --proxmox 100
      nestvirt enable --vsphere web-01
      nestvirt enable --hyperv web-01
      nestvirt enable --vmx machine.vmx
      nestvirt enable --vagrant .
      nestvirt enable --host ssh://root@node1
      nestvirt enable --libvirt web-01 --with-host
      nestvirt enable libvirt:web-01 libvirt:web-02 'proxmox@lab: tag=k8s-worker'
      nestvirt enable --targets fleet.toml --group workers --batch 2 --drain-nodes
      nestvirt enable --resume
    """
    goal = Goal(
        cpu=cpu,
        upgrade=upgrade_hardware,
        discard_saved_state=discard_saved_state,
        mac_spoofing=mac_spoofing,
        upgrade_version=upgrade_version,
    )
    if cpu is not None and not cpu.strip():
        raise click.UsageError("--cpu was given an empty name; is a variable not set?")
    if names_many({**options, **_lasting(goal)}):
        from nestvirt.cli.many import reach_many

        return reach_many(goal, {**options, "cpu": cpu, "mac_spoofing": mac_spoofing})
    _refuse_what_does_not_go_together(goal, options)
    return reach_goal(goal, **options)


def _lasting(goal: Goal) -> dict[str, object]:
    """What nobody can undo, by the options' names."""
    return {
        "upgrade_hardware": goal.upgrade,
        "upgrade_version": goal.upgrade_version,
        "discard_saved_state": goal.discard_saved_state,
    }


def _refuse_what_does_not_go_together(goal: Goal, options: Mapping[str, Any]) -> None:
    cpu, upgrade_hardware = goal.cpu, goal.upgrade
    of_hyperv = {
        "--upgrade-version": goal.upgrade_version,
        "--discard-saved-state": goal.discard_saved_state,
        "--mac-spoofing": goal.mac_spoofing,
    }
    if options["with_host"] is not None and options["no_restart"]:
        raise click.UsageError("--with-host needs the VM off for a moment; it does not go with --no-restart.")
    if cpu is not None and options["host"] is not None:
        raise click.UsageError("--cpu is for a VM; it does not go with --host.")
    apart = [f"--{backend}" for backend in ("vsphere", "hyperv", "vmx") if options[backend] is not None]
    if cpu is not None and apart:
        raise click.UsageError(f"--cpu does not go with {apart[0]}, where nesting is a setting of its own.")
    if options["with_host"] is not None and options["vsphere"] is not None:
        raise click.UsageError("--with-host is for hosts with KVM; an ESXi host has nothing to be changed.")
    if options["with_host"] is not None and options["hyperv"] is not None:
        raise click.UsageError("--with-host is for hosts with KVM; Hyper-V's has nothing to be changed.")
    if upgrade_hardware is not None and options["vsphere"] is None:
        raise click.UsageError("--upgrade-hardware goes with --vsphere.")
    if upgrade_hardware is not None and not re.fullmatch(r"vmx-(09|[1-9]\d)", upgrade_hardware):
        raise click.UsageError("--upgrade-hardware takes a version from vmx-09 on, such as vmx-19.")
    for option, given in of_hyperv.items():
        if given and options["hyperv"] is None:
            raise click.UsageError(f"{option} goes with --hyperv.")
