"""``nestvirt probe``: the standalone probe, run here or printed to be carried elsewhere."""

from __future__ import annotations

import click

from nestvirt.cli.options import root_option
from nestvirt.guest import verify


@click.command()
@click.option("--print", "print_it", is_flag=True, help="Write the probe's source to stdout.")
@root_option
@click.option("--load-modules", is_flag=True, help="Load the CPU's kvm module where it is not loaded.")
def probe(print_it: bool, root: str | None, load_modules: bool) -> int:
    """Run the probe on this machine, and print its own JSON; or print it, to run it anywhere.

    It is one file for Python 3.6 or newer, needs nothing installed, and changes nothing.

    \b
    Examples:
      nestvirt probe
      nestvirt probe --print | ssh web-01 python3 -I -
      nestvirt probe --print > probe.py
    """
    if print_it:
        click.echo(verify.probe_source(), nl=False)
        return 0
    from nestvirt.guest import probe as program

    loading = ["--load-modules"] if load_modules else []
    return program.main([*loading, "--root", verify.saved_machine(root), "--pretty"])
