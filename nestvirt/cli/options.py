"""The options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

FILE, DIRECTORY = click.Path(), click.Path(file_okay=False)  # for completion; what is there is checked later

timeout_option = click.option(
    "--timeout",
    type=click.IntRange(1, 86400),
    default=120,
    show_default=True,
    metavar="S",
    help="Seconds for each wait: the guest's shutdown, its start, its first answer.",
)
root_option = click.option(
    "--root",
    type=DIRECTORY,
    metavar="DIR",
    help="Judge a saved machine: its / is DIR.",
)
output_options = [
    click.option(
        "-o",
        "--output",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="How to report on stdout.",
    ),
    click.option("-q", "--quiet", is_flag=True, help="No progress on stderr."),
]
target_options = [
    click.option("--libvirt", metavar="NAME", help="A libvirt VM: its name, UUID, or id."),
    click.option(
        "--connect",
        metavar="URI",
        help="libvirt's URI [from the environment or the configuration file, else qemu:///system].",
    ),
    click.option("--profile", metavar="NAME", help="A profile of the configuration file."),
]
guest_options = [
    click.option("--ssh", metavar="USER@HOST", help="Look inside the guest over SSH instead of its agent."),
    click.option("--ssh-config", type=FILE, metavar="FILE", help="ssh_config to use with --ssh."),
    click.option("--load-modules", is_flag=True, help="Load the kvm module where it is not loaded."),
    timeout_option,
]
change_options = [
    click.option("--dry-run", is_flag=True, help="Show what would be done; touch nothing."),
    click.option("-y", "--yes", is_flag=True, help="Do not ask."),
    click.option("--no-restart", is_flag=True, help="Write the setting, and leave the running VM as it is."),
    click.option(
        "--force-off", is_flag=True, help="Cut the power where the guest does not shut down in time."
    ),
]


def with_options(*groups: list[Callable[[F], F]]) -> Callable[[F], F]:
    """Give a command groups of options, in that order."""

    def decorate(function: F) -> F:
        for option in reversed([option for group in groups for option in group]):
            function = option(function)
        return function

    return decorate
