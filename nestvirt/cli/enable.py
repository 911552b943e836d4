"""``nestvirt enable``: plan, ask, stop, write, read back, start, and prove it in the guest."""

from __future__ import annotations

from typing import Any

import click

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


@click.command()
@with_options(target_options, with_host_options, drain_options, change_options, guest_options, output_options)
@click.option(
    "--cpu",
    metavar="MODEL",
    help="libvirt: host-passthrough, host-model or a model; Proxmox: host, a vendor model, custom-NAME "
    "[what suits the VM].",
)
@reporting_errors
def enable(cpu: str | None, **options: Any) -> int:
    """Give a VM nested virtualization, and prove it by running guest code inside it.

    Shows what it would change, asks, and power-cycles a running VM. A second run changes nothing and verifies
    again. Where a step fails, everything is put back; what a run changed can be put back later with undo.

    \b
    Examples:
      nestvirt enable --libvirt web-01
      nestvirt enable --libvirt web-01 --dry-run
      nestvirt enable --libvirt web-01 --yes --timeout 300 --force-off
      nestvirt enable --libvirt web-01 --no-restart
      nestvirt enable --proxmox 100
      nestvirt enable --vagrant .
      nestvirt enable --host ssh://root@node1
      nestvirt enable --libvirt web-01 --with-host
    """
    if cpu is not None and not cpu.strip():
        raise click.UsageError("--cpu was given an empty name; is a variable not set?")
    if options["with_host"] is not None and options["no_restart"]:
        raise click.UsageError("--with-host needs the VM off for a moment; it does not go with --no-restart.")
    if cpu is not None and options["host"] is not None:
        raise click.UsageError("--cpu is for a VM; it does not go with --host.")
    return reach_goal(Goal(nested=True, cpu=cpu), **options)
