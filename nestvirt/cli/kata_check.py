"""``nestvirt kata-check``: does Kata work on this cluster?"""

from __future__ import annotations

from typing import Any

import click

from nestvirt.cli.kata_options import (
    cluster_options,
    kata_timeout_option,
    kube_of,
    pod_options,
    target_of,
)
from nestvirt.cli.options import output_options, with_options
from nestvirt.cli.output import Progress, finish, reporting_errors
from nestvirt.model import Report


@click.command("kata-check")
@with_options(cluster_options, pod_options, [kata_timeout_option])
@click.option(
    "--node",
    "nodes",
    multiple=True,
    metavar="NAME",
    help="Only this node; may be repeated.",
)
@click.option("--no-pods", is_flag=True, help="Start no pod: read the API only, which proves nothing.")
@with_options(output_options)
@reporting_errors
def kata_check(
    output: str, quiet: bool, nodes: tuple[str, ...], no_pods: bool, timeout: int, **options: Any
) -> int:
    """Does Kata work on this cluster? Reads what is there, then proves it with a pod under each RuntimeClass.

    On each node, a short pod under each RuntimeClass has to show a kernel other than the node's and a
    hypervisor underneath, beside a standard pod that shows the node's own kernel. All pods are deleted again,
    also after Ctrl-C. What fails is explained, with one cure.

    \b
    Examples:
      nestvirt kata-check
      nestvirt kata-check --context prod --node worker-1 --node worker-2
      nestvirt kata-check --image registry.example.com/busybox:1.36 -o junit
      nestvirt kata-check --no-pods
    """
    from nestvirt.kata import validate

    kube = kube_of(options)
    progress = Progress(quiet=quiet or output != "text")
    try:
        manner = validate.Manner(
            options["namespace"],
            options["release"],
            options["image"],
            timeout,
            progress.tell,
            nodes,
            pods=not no_pods,
        )
        checked = validate.check(kube, manner)
        report = Report(
            target_of(kube), checked.findings, goal=None, remains=checked.remains, summary=checked.summary
        )
    finally:
        progress.rest()
    return finish(report, output)
