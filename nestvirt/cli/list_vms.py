"""``nestvirt list``: every VM of every hypervisor that is configured, and how each stands."""

from __future__ import annotations

from typing import Any

import click

from nestvirt.cli.options import ENDPOINT, endpoint_options, given, listing_output_options, with_options
from nestvirt.cli.output import reporting_errors


@click.command("list")
@click.argument("names", nargs=-1, metavar="[TARGET]...")
@click.option(
    "--profile", metavar="NAME", multiple=True, help="Only this profile; can be given more than once."
)
@with_options(endpoint_options, listing_output_options)
@reporting_errors
def list_vms(names: tuple[str, ...], profile: tuple[str, ...], **options: Any) -> int:
    """Every VM of every profile, and of the defaults: is nesting off, set but pending, or on? Proven when?

    It asks each hypervisor once, changes nothing, and looks into no guest: what a guest can do, check proves.
    TARGET is a VM or a pattern, as for check. Without any, all profiles of the configuration file are asked,
    and all hypervisors that the environment or the file's defaults name; where there are none, this
    machine's libvirt.

    \b
    Examples:
      nestvirt list
      nestvirt list --profile lab -o json
      nestvirt list 'vsphere: folder=/DC0/vm/k8s/*' 'libvirt: name=node-*'
      nestvirt list 'libvirt: *' --connect qemu+ssh://root@node1/system
    """
    from nestvirt import settings
    from nestvirt.cli.output import Progress, finish_list, leaving_at_once
    from nestvirt.cli.session import Chosen, settings_for
    from nestvirt.fleet.endpoints import Endpoints, Place
    from nestvirt.fleet.listing import chosen_places, inventory
    from nestvirt.fleet.proofs import Proofs
    from nestvirt.model import Target

    if names and profile:
        raise click.UsageError("--profile goes without a TARGET; write it into that: libvirt@PROFILE:NAME.")
    progress = Progress(quiet=options["quiet"] or options["output"] != "text")
    chosen = Chosen(endpoint=given(options, ENDPOINT))
    if chosen.endpoint and not names:
        raise click.UsageError(f"--{min(chosen.endpoint)} goes with a TARGET, such as 'libvirt: *'.")

    def settings_of(place: Place) -> Any:
        return settings_for(chosen, Target(place.backend, place.name or "*", place.profile), progress)

    endpoints = Endpoints(settings_of)
    try:
        with leaving_at_once():
            found = inventory(chosen_places(names, profile), endpoints, Proofs(settings.state_path()))
    finally:
        progress.rest()
        endpoints.close()
    return finish_list(found, options["output"])
