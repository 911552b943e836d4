"""Naming many VMs on the command line, and how a run over them goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from nestvirt.cli.options import FILE, VM_FORMS, VMS

F = TypeVar("F", bound=Callable[..., Any])

NEWEST = "newest"
"""The ``--resume`` without a run."""

PARALLEL = 8

naming_options: list[Callable[[Any], Any]] = [
    click.argument("names", nargs=-1, metavar="[TARGET]..."),
    click.option("--targets", type=FILE, metavar="FILE", help="Many VMs: a fleet file (TOML)."),
    click.option(
        "--group",
        metavar="NAME",
        multiple=True,
        help="Only this group of the fleet file; can be given several times [all of them].",
    ),
]
pace_options: list[Callable[[Any], Any]] = [
    click.option(
        "--parallel",
        type=click.IntRange(1, 256),
        metavar="N",
        help=f"Many VMs: so many at once, within what each hypervisor bears [{PARALLEL}].",
    ),
    click.option(
        "--max-failures",
        type=click.IntRange(1),
        metavar="N",
        help="Many VMs: begin no more after N have failed [all are begun; with --batch, 1].",
    ),
]
batch_option = click.option(
    "--batch",
    type=click.IntRange(1),
    metavar="N",
    help="Many VMs: never more than N down at once, and the next N when these are proven.",
)
_drain_options: list[Callable[[Any], Any]] = [
    click.option(
        "--delete-emptydir-data",
        is_flag=True,
        help="With --drain-nodes: evict pods with emptyDir volumes, too; what is in them is lost.",
    ),
    click.option("--context", metavar="NAME", help="With --drain-nodes: the kubeconfig's context."),
    click.option("--kubeconfig", type=FILE, metavar="FILE", help="With --drain-nodes: the kubeconfig."),
]
batch_options: list[Callable[[Any], Any]] = [
    batch_option,
    click.option(
        "--resume",
        metavar="[RUN]",
        is_flag=False,
        flag_value=NEWEST,
        help="Many VMs: go on with a run that was stopped or died [the newest].",
    ),
    click.option(
        "--drain-nodes",
        is_flag=True,
        help="Many VMs that are Kubernetes nodes: cordon and drain each before it goes down, one at a time "
        "unless --batch says more; uncordon it when it is Ready.",
    ),
    *_drain_options,
]
undo_batch_options: list[Callable[[Any], Any]] = [
    batch_option,
    click.option(
        "--drain-nodes/--no-drain-nodes",
        default=None,
        help="Many VMs that are Kubernetes nodes: drain each, as with enable; --no-drain-nodes: none [as "
        "that run did].",
    ),
    *_drain_options,
]

_OF_MANY = ("group", "parallel", "max_failures", "batch", "delete_emptydir_data", "drain_nodes")
_OF_DRAIN = ("delete_emptydir_data", "context", "kubeconfig")
_OF_ONE = {
    "profile": "write it into the target: libvirt@PROFILE:NAME",
    "ssh": 'write it into the fleet file: [targets."libvirt:NAME"] ssh = "USER@HOST"',
    "machine": "write it into the target: vagrant:DIR#MACHINE",
    "with_host": "enable the hosts first: nestvirt enable host:ssh://root@node1 host:ssh://root@node2",
    "drain": "it is for a host; Kubernetes' nodes are drained with --drain-nodes",
    "upgrade_hardware": "nobody can undo it: raise one VM at a time, with --vsphere VM",
    "upgrade_version": "nobody can undo it: raise one VM at a time, with --hyperv VM",
    "discard_saved_state": "nobody can undo it: one VM at a time, with --hyperv VM",
    "root": "it judges one saved machine",
}


def names_many(options: Mapping[str, Any]) -> bool:
    """Whether a command is for many, as it names targets, a fleet file, or a run to go on with.

    Raises:
        UsageError: its options are for one and for many at once, or for many where none are named.
    """
    many = bool(options["names"] or options["targets"] or options.get("resume"))
    if not many:
        idle = [name for name in _OF_MANY if options.get(name)]
        if idle:
            told = f"--{idle[0].replace('_', '-')}"
            raise click.UsageError(
                f"{told} goes with many VMs: name them as TARGET…, or with --targets FILE."
            )
        return False
    plain = [name for name in options["names"] if ":" not in name]
    if plain:
        form = f"write backend[@profile]:name, such as libvirt:{plain[0]}; or name one with {VM_FORMS}"
        raise click.UsageError(f"{plain[0]!r} names no VM: {form}.")
    single = [f"--{backend}" for backend in VMS if options.get(backend) is not None]
    if single:
        raise click.UsageError(f"{single[0]} names one VM, beside others; write it as {single[0][2:]}:NAME.")
    for name, advice in _OF_ONE.items():
        if options.get(name):
            raise click.UsageError(f"--{name.replace('_', '-')} does not go with many: {advice}.")
    if options["group"] and not options["targets"]:
        raise click.UsageError("--group goes with --targets FILE.")
    if options.get("resume") and (options["names"] or options["targets"]):
        raise click.UsageError("--resume goes on with the targets of that run; name no others.")
    if not options.get("resume"):
        refuse_idle_drain(options)
    return True


def refuse_idle_drain(options: Mapping[str, Any]) -> None:
    """Refuse what is said of a drain where there is none.

    Raises:
        UsageError: something is.
    """
    idle = [name for name in _OF_DRAIN if options.get(name)]
    if idle and not options["drain_nodes"]:
        raise click.UsageError(f"--{idle[0].replace('_', '-')} goes with --drain-nodes.")


def refuse_of_many(options: Mapping[str, Any]) -> None:
    """Refuse what goes with undoing a run over many, where it is one VM's.

    Raises:
        UsageError: something does.
    """
    idle = [name for name in (*_OF_MANY, *_OF_DRAIN) if options.get(name)]
    if idle:
        told = idle[0].replace("_", "-")
        raise click.UsageError(f"--{told} goes with a run over many VMs; undo --list shows which are.")
    if options["output"] not in ("text", "json"):
        raise click.UsageError(f"-o {options['output']} goes with a run over many VMs; here: text or json.")
