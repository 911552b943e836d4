"""Nodes that a run which died has left cordoned: what to say of them to who undoes one VM's run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from nestvirt.fleet.endpoints import address_of
from nestvirt.fleet.record import FleetRuns
from nestvirt.journal import Run


def cordoned_beside(runs: FleetRuns, undone: Run) -> Iterator[str]:
    """What to say of a VM's node to who has put back one run on the VM, and knows nothing of nodes.

    Args:
        undone: that run.
    """
    back = {"enable": "disable", "disable": "enable"}
    backend = undone.target.backend
    there = address_of(backend, undone.endpoint)
    for run in runs.leaving_nodes():
        for name, known in run.known.items():
            node = run.details.get(name, {}).get("node", undone.vm.name)
            own = known.vm == undone.vm.id and address_of(backend, known.endpoint) == there
            if own and node in run.cordoned:
                words = ["nestvirt", back.get(run.command, run.command), name, "--drain-nodes"]
                for option in ("context", "kubeconfig"):
                    if run.options.get(option):
                        words += [f"--{option}", str(run.options[option])]
                yield (
                    f"run {run.id} has left its node {node} cordoned; when that is Ready, this uncordons it: "
                    f"{run.again if run.undoes else shlex.join(words)}"
                )


def cordoned_since(runs: FleetRuns, since: str) -> Iterator[str]:
    """The same, of runs over many that are newer than what is undone: they died before anything of a VM was
    changed, so that there is no run on a VM.

    Args:
        since: the run that is undone; empty where there is none.
    """
    for run in runs.leaving_nodes():
        if run.cordoned and run.id > since and not runs.under_way(run):
            nodes = ", ".join(run.cordoned)
            back = f"nestvirt undo {run.undoes or run.id}"
            yield f"run {run.id} has left {nodes} cordoned; this takes it back, and uncordons: {back}"
