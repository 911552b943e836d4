"""``nestvirt kata-install``: every node is asked first; then Helm, the rollout, and the proof."""

from __future__ import annotations

from pathlib import Path
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
from nestvirt.cli.options import FILE, output_options, with_options
from nestvirt.cli.output import Progress, finish, reporting_errors

chart_options = [
    click.option(
        "--config", type=FILE, metavar="FILE", required=True, help="Kata's settings: kataContainers."
    ),
    click.option(
        "--chart",
        metavar="CHART",
        help="A mirror of the chart, oci://…, or a packaged chart or its folder [Kata's own registry].",
    ),
    click.option("--plain-http", is_flag=True, help="Ask the chart's registry without TLS."),
]
manner_options = [
    click.option("--show-values", is_flag=True, help="Print the chart's values as YAML; asks no cluster."),
    click.option("--preflight", is_flag=True, help="Ask every node whether VMs run there; install nothing."),
    click.option("--only-capable-nodes", is_flag=True, help="Leave out the nodes on which no VM runs."),
    click.option("--atomic", is_flag=True, help="Where it fails, put back what was there before."),
    click.option(
        "--force",
        is_flag=True,
        help="Take over a release that a killed Helm left pending, and objects that are not the release's.",
    ),
]


@click.command("kata-install")
@with_options(
    chart_options,
    manner_options,
    consent_options,
    cluster_options,
    pod_options,
    [kata_timeout_option],
    output_options,
)
@reporting_errors
def kata_install(config: str, output: str, quiet: bool, **options: Any) -> int:
    """Install Kata Containers on a cluster, after asking every node whether VMs run there.

    Each node is asked by a short privileged pod, in which guest code is run through its /dev/kvm. Where one
    cannot, nothing is changed, and its cause and cure are named. Then Helm installs or upgrades kata-deploy,
    and a pod under each RuntimeClass proves on every node that it runs in a VM of its own. A second run has
    nothing to do, and proves it again.

    \b
    Examples:
      nestvirt kata-install --config config/dev.yaml
      nestvirt kata-install --config config/dev.yaml --dry-run
      nestvirt kata-install --config config/dev.yaml --preflight -o json
      nestvirt kata-install --config config/dev.yaml --only-capable-nodes --yes
      nestvirt kata-install --config config/dev.yaml --show-values
      nestvirt kata-install --config config/dev.yaml --chart kata-deploy-3.25.0.tgz --image reg.lan/busybox:1
    """
    from nestvirt.kata import chart
    from nestvirt.kata.config import load

    if sum(bool(options[name]) for name in ("show_values", "preflight", "dry_run")) > 1:
        raise click.UsageError("--show-values, --preflight and --dry-run are three different things to do.")
    wanted = load(Path(config))
    if options["show_values"]:
        from nestvirt.kata.install_plan import CAPABLE, WORKS

        selector = {CAPABLE: WORKS} if options["only_capable_nodes"] else None
        for finding in chart.warnings(wanted):
            if finding.ill:
                click.echo(f"nestvirt: mind: {finding.evidence}; {finding.cure}", err=True)
        click.echo(chart.show_values(wanted, selector=selector), nl=False)
        return 0
    if options["chart"] is not None and not options["chart"].strip():
        raise click.UsageError("--chart was given an empty value; is a variable not set?")
    return _run(wanted, output, Progress(quiet=quiet or output != "text"), options)


def _run(config: Any, output: str, progress: Progress, options: dict[str, Any]) -> int:
    from nestvirt.cli.kata_consent import ask, refuse_unasked
    from nestvirt.kata import changing, chart, install, uninstall
    from nestvirt.kata.helm import Helm, Source
    from nestvirt.kata.install_plan import Planned

    kube = kube_of(options)
    helm = Helm.found(kube, options["release"], options["namespace"])
    target, timeout = target_of(kube), float(options["timeout"])
    work = uninstall.Work(kube, helm, target, options["image"], timeout, progress.tell)

    def consent(planned: Planned) -> None:
        ask(target, planned.lines, progress, yes=options["yes"], question="Do it?")

    session = changing.Session(kube, helm, target, progress.tell, lambda: uninstall.remove_all(work))
    wanted = changing.Wanted(
        config=config,
        source=Source(options["chart"] or chart.CHART, config.version, options["plain_http"]),
        image=options["image"],
        timeout=timeout,
        consent=consent,
        only_capable=options["only_capable_nodes"],
        force=options["force"],
        atomic=options["atomic"],
    )
    asked = {"dry_run": install.dry_run, "preflight": install.preflight_only}
    if not any((options["yes"], *(options[name] for name in asked))):
        refuse_unasked()  # before any pod is started
    do = next((deed for name, deed in asked.items() if options[name]), install.install)
    try:
        report = do(session, wanted)
    finally:
        progress.rest()
    return finish(report, output)
