"""Running nestvirt's commands for Kata on a played cluster, as a user does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.peers.kubelet import Cluster

NESTVIRT = str(Path(sys.executable).with_name("nestvirt"))
SECONDS = 120

DEV = """\
kataContainers:
  version: "{version}"
  k8sDistribution: {distribution}
  debug: false
  createDefaultRuntimeClass: false
  shims:
    qemu: {{enabled: true}}
    clh: {{enabled: {clh}}}
    fc: {{enabled: false}}
    dragonball: {{enabled: false}}
"""
"""The issue's own configuration."""

POD = """\
{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "default"},
 "spec": {"runtimeClassName": "kata-qemu", "terminationGracePeriodSeconds": 0,
          "containers": [{"name": "a", "image": "b", "command": ["sleep", "600"]}]}}
"""
"""A user's pod under Kata."""


@dataclass(frozen=True)
class Ran:
    """A command's end."""

    code: int
    stdout: str
    stderr: str

    @property
    def report(self) -> dict[str, Any]:
        """What ``-o json`` printed."""
        read: dict[str, Any] = json.loads(self.stdout)
        return read

    def found(self, check: str, status: str | None = None) -> list[dict[str, str]]:
        """Its findings of a check."""
        findings = self.report["findings"]
        return [f for f in findings if f["check"] == check and status in (None, f["status"])]


def config(folder: Path, *, version: str = "3.25.0", distribution: str = "rke2", clh: bool = False) -> str:
    """A configuration file; its path."""
    path = folder / f"dev-{version}-{distribution}-{clh}.yaml"
    path.write_text(DEV.format(version=version, distribution=distribution, clh=str(clh).lower()))
    return str(path)


def words(cluster: Cluster, *more: str) -> list[str]:
    """A command's words, with the options that name the cluster."""
    return [NESTVIRT, *more, *cluster.options]


def environment(cluster: Cluster, helm: str = "3") -> Mapping[str, str]:
    """With that helm and its kubectl in front of PATH."""
    return {**os.environ, "PATH": f"{cluster.plane.path(helm)}:{os.environ['PATH']}", "NO_COLOR": "1"}


def run(cluster: Cluster, *more: str, helm: str = "3") -> Ran:
    """Run a command to its end."""
    done = subprocess.run(
        words(cluster, *more),
        env=environment(cluster, helm),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def install(cluster: Cluster, config: str, *more: str, helm: str = "3", version: str = "3.25.0") -> Ran:
    """``kata-install`` from a chart in a file, with JSON."""
    chart = ["--chart", str(cluster.plane.chart_file(version))]
    return run(cluster, "kata-install", "--config", config, *chart, "--yes", "-o", "json", *more, helm=helm)


def interrupt(cluster: Cluster, when: str, *more: str, again: Sequence[str] = ()) -> Ran:
    """Run a command, and send it SIGINT as soon as its progress has these words."""
    with subprocess.Popen(
        words(cluster, *more, *again),
        env=environment(cluster),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        said, deadline = [], time.monotonic() + SECONDS
        for line in process.stderr:
            said.append(line)
            if when in line:
                process.send_signal(signal.SIGINT)
                break
            assert time.monotonic() < deadline, said
        stdout, stderr = process.communicate(timeout=SECONDS)
    return Ran(process.returncode, stdout, "".join(said) + stderr)


def everything(cluster: Cluster) -> str:
    """All that a cluster has which a command could change, without what changes by itself."""
    kinds = "nodes,namespaces,configmaps,secrets,serviceaccounts,daemonsets,jobs,pods,runtimeclasses"
    kinds += ",clusterroles,clusterrolebindings,roles,rolebindings"
    listing = json.loads(cluster.kubectl("get", kinds, "--all-namespaces", "--output", "json"))["items"]
    kept = []
    for item in listing:
        meta = item["metadata"]
        for moving in ("resourceVersion", "managedFields"):
            meta.pop(moving, None)
        item.pop("status", None)
        kept.append(json.dumps(item, sort_keys=True))
    return "\n".join(sorted(kept))
