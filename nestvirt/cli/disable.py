"""``nestvirt disable``: take nesting away again, unless something depends on it."""

from __future__ import annotations

from typing import Any

import click

from nestvirt.cli.fleet_options import batch_options, names_many, naming_options, pace_options
from nestvirt.cli.options import (
    change_options,
    drain_options,
    guest_options,
    output_options,
    target_options,
    with_options,
)
from nestvirt.cli.output import reporting_errors
from nestvirt.cli.session import reach_goal
from nestvirt.model import Goal


@click.command()
@with_options(naming_options, target_options, drain_options, change_options)
@with_options(pace_options, batch_options, guest_options, output_options)
@reporting_errors
def disable(**options: Any) -> int:
    """Take nested virtualization away from VMs.

    Refuses while VMs run inside the guest. To put back exactly what an earlier run changed, use undo instead.

    \b
    Examples:
      nestvirt disable --libvirt web-01
      nestvirt disable --libvirt web-01 --yes --no-restart
      nestvirt disable --proxmox 100
      nestvirt disable --vsphere web-01
      nestvirt disable --vmx machine.vmx
      nestvirt disable --host --dry-run
      nestvirt disable 'libvirt@lab: name=ci-*' --dry-run
    """
    if names_many(options):
        from nestvirt.cli.many import reach_many

        return reach_many(Goal(nested=False), options)
    return reach_goal(Goal(nested=False), **options)
