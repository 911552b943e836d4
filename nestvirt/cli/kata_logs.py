"""``nestvirt kata-logs``: what there is to read of Kata on a cluster, redacted, in one archive."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import click

from nestvirt.cli.kata_options import (
    cluster_options,
    kata_timeout_option,
    kube_of,
    pod_options,
    target_of,
)
from nestvirt.cli.options import FILE, with_options
from nestvirt.cli.output import Progress

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Span(click.ParamType):  # type: ignore[type-arg]
    """A span of time, such as 90m or 2d; in seconds."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it."""
        match = re.fullmatch(r"(\d{1,6})([smhd])", str(value))
        if match is None:
            self.fail(f"{value!r} is no span of time; for example: 90m, 12h, 2d", param, ctx)
        return int(match[1]) * UNITS[match[2]]


@click.command("kata-logs")
@with_options(cluster_options, pod_options, [kata_timeout_option])
@click.option(
    "-f", "--file", type=FILE, metavar="FILE.tar.gz", help="Where to write it [a new file in this folder]."
)
@click.option(
    "--node", "nodes", multiple=True, metavar="NAME", help="Only this node; may be repeated [the first ten]."
)
@click.option(
    "--since", type=Span(), default="1d", show_default=True, metavar="SPAN", help="How far back the logs go."
)
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
def kata_logs(
    file: str | None, nodes: tuple[str, ...], since: int, quiet: bool, timeout: int, **options: Any
) -> int:
    """Collect what there is to read of Kata into one archive, and print its path.

    It has kata-deploy's logs, each node's shim log, Kata's and containerd's configuration, events,
    RuntimeClasses, and the values of Helm's release. Passwords, tokens, keys and registries' credentials are
    taken out. The nodes' part is read by a short pod on each.

    \b
    Examples:
      nestvirt kata-logs
      nestvirt kata-logs --node worker-1 --since 2h
      nestvirt kata-logs --context prod --file prod-kata.tar.gz
    """
    from nestvirt.kata import bundle

    kube = kube_of(options)
    if file is not None and not file.strip():
        raise click.UsageError("--file was given an empty value; is a variable not set?")
    progress = Progress(quiet=quiet)
    path = Path(file or time.strftime("nestvirt-kata-%Y%m%dT%H%M%SZ.tar.gz", time.gmtime()))
    bundle.refuse(path)
    try:
        wish = bundle.Wish(
            options["namespace"], options["release"], options["image"], timeout, progress.tell, nodes, since
        )
        collected = bundle.collect(kube, wish, target=target_of(kube))
        bundle.write(collected.files, path)
        for line in collected.missing:
            progress.note(f"not in it: {line}")
    finally:
        progress.rest()
    click.echo(str(path))
    return 0
