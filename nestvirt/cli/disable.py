"""``nestvirt disable``: take nesting away again, unless something depends on it."""

from __future__ import annotations

from typing import Any

import click

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
@with_options(target_options, drain_options, change_options, guest_options, output_options)
@reporting_errors
def disable(**options: Any) -> int:
    """Take nested virtualization away from a VM.

    Refuses while VMs run inside the guest. To put back exactly what an earlier run changed, use undo instead.

    \b
    Examples:
      nestvirt disable --libvirt web-01
      nestvirt disable --libvirt web-01 --yes --no-restart
      nestvirt disable --proxmox 100
      nestvirt disable --vsphere web-01
      nestvirt disable --vmx machine.vmx
      nestvirt disable --host --dry-run
    """
    return reach_goal(Goal(nested=False), **options)
