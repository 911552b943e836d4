"""``nestvirt kata-uninstall``: takes Kata off every node, and shows that nothing is left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from nestvirt.cli.kata_options import (
    cluster_options,
    consent_options,
    kata_timeout_option,
    kube_of,
    pod_options,
    target_of,
)
from nestvirt.cli.options import output_options, with_options
from nestvirt.cli.output import Progress, finish, reporting_errors


@click.command("kata-uninstall")
@with_options(
    consent_options,
    [
        click.option(
            "--force",
            is_flag=True,
            help="Go on although pods run under Kata's RuntimeClasses, or a Helm is at work on the release.",
        )
    ],
    cluster_options,
    pod_options,
    [kata_timeout_option],
    output_options,
)
@reporting_errors
def kata_uninstall(output: str, quiet: bool, **options: Any) -> int:
    """Remove Kata Containers from a cluster, and show that nothing of it is left.

    Refuses while pods run under its RuntimeClasses, and names them; and where Kata is that of another release
    or namespace. After Helm has removed the release, every node is looked at, and cleaned where the chart has
    forgotten it: /opt/kata, containerd's configuration, labels. It may be run again at any time, also after
    it was stopped in its middle.

    \b
    Examples:
      nestvirt kata-uninstall
      nestvirt kata-uninstall --dry-run
      nestvirt kata-uninstall --context lab --yes -o json
      nestvirt kata-uninstall --force --yes
    """
    from nestvirt.cli.kata_consent import ask
    from nestvirt.kata import uninstall
    from nestvirt.kata.helm import Helm

    progress = Progress(quiet=quiet or output != "text")
    kube = kube_of(options)
    helm, target = Helm.found(kube, options["release"], options["namespace"]), target_of(kube)
    work = uninstall.Work(kube, helm, target, options["image"], float(options["timeout"]), progress.tell)

    def consent(lines: Sequence[str]) -> None:
        ask(target, lines, progress, yes=options["yes"], question="Remove it?")

    try:
        report = uninstall.uninstall(
            work, consent=consent, force=options["force"], dry_run=options["dry_run"]
        )
    finally:
        progress.rest()
    return finish(report, output)
