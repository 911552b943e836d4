"""The options that the commands for Kata on a cluster share, and what they name."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nestvirt.cli.options import FILE

if TYPE_CHECKING:  # kubectl's side is imported when a cluster is asked
    from nestvirt.kata.kube import Kube

NAMESPACE, RELEASE = "kube-system", "kata-deploy"
IMAGE = "docker.io/library/busybox:1.36.1"
"""A shell and its usual companions (chroot, df, nsenter) are all that the pods on the nodes need."""
_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
FORMS = {
    "namespace": (_LABEL, "up to 63 lower-case letters, digits and -"),
    "release": (rf"(?=.{{1,53}}$){_LABEL}(\.{_LABEL})*", "up to 53 lower-case letters, digits, - and ."),
    "image": (r"\S+", "no white space"),
}
"""What a value has to be (Kubernetes' and Helm's own rules), for programs and for people."""

cluster_options = [
    click.option(
        "--context", metavar="NAME", help="The cluster: a context of the kubeconfig [the current one]."
    ),
    click.option(
        "--kubeconfig", type=FILE, metavar="FILE", help="The kubeconfig [KUBECONFIG, ~/.kube/config]."
    ),
    click.option(
        "-n",
        "--namespace",
        default=NAMESPACE,
        show_default=True,
        metavar="NAME",
        help="Where kata-deploy and the short pods run. It must admit privileged pods.",
    ),
    click.option(
        "--release", default=RELEASE, show_default=True, metavar="NAME", help="Helm's release of kata-deploy."
    ),
]
pod_options = [
    click.option(
        "--image",
        default=IMAGE,
        show_default=True,
        metavar="IMAGE",
        help="Image of the short pods on the nodes; a shell and chroot are enough. A cluster that cannot "
        "pull this one names its own.",
    ),
]
kata_timeout_option = click.option(
    "--timeout",
    type=click.IntRange(1, 86400),
    default=600,
    show_default=True,
    metavar="S",
    help="Seconds for each wait: the pods on the nodes, the rollout, the proof.",
)
consent_options = [
    click.option(
        "--dry-run", is_flag=True, help="Show what would be done; change nothing, and start no pod."
    ),
    click.option("-y", "--yes", is_flag=True, help="Do not ask."),
]


def kube_of(options: dict[str, Any]) -> Kube:
    """The cluster that a command's options name.

    Raises:
        UsageError: one of them is empty, or no cluster could have what it names.
        SettingsError: KUBECONFIG names files of which none is there.
    """
    from nestvirt.kata.kube import Kube
    from nestvirt.printable import printable

    for name in ("context", "kubeconfig", "namespace", "release", "image"):
        value = options.get(name)
        if value is not None and not value.strip():
            raise click.UsageError(f"--{name} was given an empty value; is a variable not set?")
        form, wanted = FORMS.get(name, ("", ""))
        if form and value is not None and not re.fullmatch(form, value):
            raise click.UsageError(f"--{name} cannot be {printable(value, 100)!r}: it has to be {wanted}.")
    if options["kubeconfig"] is None:
        _require_kubeconfig()
    return Kube(context=options["context"], kubeconfig=options["kubeconfig"])


def _require_kubeconfig() -> None:
    """kubectl passes over a KUBECONFIG that is not there, and then asks localhost."""
    from nestvirt.errors import SettingsError
    from nestvirt.printable import printable

    named = os.environ.get("KUBECONFIG", "")
    files = [file for file in named.split(os.pathsep) if file]
    in_a_pod = "KUBERNETES_SERVICE_HOST" in os.environ  # then kubectl uses its service account
    if files and not in_a_pod and not any(Path(file).exists() for file in files):
        raise SettingsError(
            f"KUBECONFIG={printable(named, 300)} does not exist",
            evidence="kubectl would pass over it, and ask no cluster",
            cure="correct KUBECONFIG, or unset it, or name the file with --kubeconfig",
        )


def target_of(kube: Kube) -> str:
    """What a report calls the cluster: by its context, also where that is the current one."""
    from nestvirt.errors import SettingsError
    from nestvirt.printable import printable

    try:
        named = kube.context or kube.run("config", "current-context").decode(errors="replace")
    except SettingsError:  # there is no context inside of a pod, whose service account kubectl uses
        named = ""
    return f"cluster {printable(named, 200)}".strip() if named else "this cluster"
