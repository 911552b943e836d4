"""``nestvirt check``: the whole chain of one VM, or of this machine."""

from __future__ import annotations

from typing import Any

import click

from nestvirt.cli.fleet_options import names_many, naming_options, pace_options
from nestvirt.cli.options import (
    ENDPOINT,
    VM_FORMS,
    given,
    guest_options,
    named,
    output_options,
    root_option,
    target_options,
    with_options,
)
from nestvirt.cli.output import Progress, finish, reporting_errors
from nestvirt.guest import verify
from nestvirt.model import Goal, Report


@click.command()
@with_options(naming_options, target_options, pace_options, guest_options, output_options)
@root_option
@reporting_errors
def check(output: str, quiet: bool, root: str | None, **options: Any) -> int:
    """Does nesting work? Says what is broken first, with evidence and a cure, and proves what works.

    Without a VM, it checks this machine: guest code is run through /dev/kvm here. --host asks of a machine
    whether its VMs can nest.

    \b
    Examples:
      nestvirt check
      nestvirt check --libvirt web-01
      nestvirt check --libvirt web-01 --connect qemu+ssh://root@node1/system -o json
      nestvirt check --libvirt web-01 --ssh admin@web-01
      nestvirt check --proxmox 100 --connect https://pve1.example.com:8006
      nestvirt check --vmx machine.vmx --ssh admin@192.168.17.130
      nestvirt check --host ssh://root@node1
      nestvirt check libvirt:web-01 'proxmox@lab: tag=k8s-worker' 'vsphere: folder=/DC0/vm/k8s/*'
      nestvirt check --targets fleet.toml --group workers -o html
    """
    if names_many({**options, "root": root}):
        from nestvirt.cli.many import check_many

        return check_many({**options, "output": output, "quiet": quiet})
    if named(options) is None:
        idle = given(options, ("profile", *ENDPOINT, "ssh", "ssh-config"))
        if idle:
            told = ", ".join(f"--{name}" for name in idle)
            raise click.UsageError(f"{told}: that goes with a VM; name one with {VM_FORMS}.")
        probed = verify.probe_here(root=verify.saved_machine(root), load_modules=options["load_modules"])
        return finish(Report(root or "this machine", probed.findings, proof=probed.proof), output)
    if root is not None:
        raise click.UsageError("--root judges a saved machine; it does not go with a VM.")
    # A VM needs the engine and its backend; this machine's own check starts quicker without them.
    from nestvirt import engine, settings
    from nestvirt.cli.session import Chosen, opened
    from nestvirt.fleet.proofs import Proofs

    chosen = Chosen.of(options)
    progress = Progress(quiet=quiet or output != "text")
    with opened(chosen, chosen.target(), progress) as session:
        report = engine.check(session, Goal())
        Proofs(settings.state_path()).keep(session.target.backend, session.vm, report)
    return finish(report, output)
