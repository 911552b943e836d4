"""What a cluster is asked, and how long its nodes take to be asked: 200 of them beside one.

All played nodes share this machine's CPUs, as no real ones do. So for the time they answer with what one of
them has really said, after the seconds that a real node takes to start a pod.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self
from unittest.mock import patch

from benchmarks.proxmox import Count
from tests.lab.k8s import ControlPlane
from tests.peers import kubelet
from tests.peers.kubelet import Cluster, Kubelets, Machine
from tests.peers.kubelet_pod import Pod
from tests.peers.kubelet_run import Container

MANY = 200
POD_SECONDS = 3.0
"""Until a pod has run on a real node that has its image: sandbox, network, probe, and its end told."""
CHART = "3.25.0"
CONFIG = 'kataContainers: {version: "%s", shims: {qemu: {enabled: true}}}\n'
INSTALL_AIM, CHECK_AIM, MANY_AIM = 130, 40, 80


class Distant(Pod):
    """A pod on a node that works on CPUs of its own."""

    said = b""

    def _run(self, container: Container) -> None:
        if not Distant.said:  # once for real
            super()._run(container)
            Distant.said = self.log.read_bytes()
        elif not self.ended.wait(POD_SECONDS):
            self.log.write_bytes(Distant.said)
            self.finish(0)


class KataBench:
    """A real control plane, and played nodes."""

    def __init__(self, nestvirt: str, folder: Path) -> None:
        self._nestvirt = nestvirt
        self._config = folder / "dev.yaml"
        self._config.write_text(CONFIG % CHART)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._plane = self._stack.enter_context(ControlPlane())
        self._stack.enter_context(patch.object(kubelet, "AT_ONCE", MANY))
        self._kubelets = self._stack.enter_context(Kubelets(self._plane))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def preflight(self, nodes: int) -> float:
        """Seconds of ``kata-install --preflight`` on so many nodes."""
        cluster = Cluster(self._kubelets)
        cluster.add_many(nodes, Machine())
        try:
            with patch.object(kubelet, "Pod", Distant):
                start = time.perf_counter()
                self._run(cluster, "kata-install", *self._chart(), "--preflight")
                return time.perf_counter() - start
        finally:
            cluster.clear()

    def counts(self) -> list[Count]:
        """Requests of an installation and of a check, on two nodes; and of the preflight of many."""
        cluster = Cluster(self._kubelets)
        cluster.add_many(2, Machine())
        install = self._requests(cluster, "kata-install", *self._chart(), "--yes")
        check = self._requests(cluster, "kata-check")
        cluster.clear()
        cluster.add_many(MANY, Machine())
        many = self._requests(cluster, "kata-install", *self._chart(), "--preflight")
        cluster.clear()
        # A pod that is made and a log that is read is a request each, whoever asks.
        beside = many.total() - many["create pods"] - many["get pods"]
        return [
            Count("Kata: install on two nodes, with its proof", install.total(), INSTALL_AIM),
            Count("Kata: check of two nodes", check.total(), CHECK_AIM),
            Count(f"Kata: preflight of {MANY} nodes beside pods and logs", beside, MANY_AIM),
        ]

    def _chart(self) -> list[str]:
        return ["--config", str(self._config), "--chart", str(self._plane.chart_file(CHART))]

    def _requests(self, cluster: Cluster, *words: str) -> Counter[str]:
        self._plane.forget_requests()
        self._run(cluster, *words)
        asked = self._plane.requests()
        # Discovery is kept on the disk by kubectl and Helm, and asked for once in a while.
        found = {what: n for what, n in asked.items() if not what.startswith(("get /api", "get /openapi"))}
        return Counter(found)

    def _run(self, cluster: Cluster, *words: str) -> None:
        environment = {**os.environ, "PATH": f"{self._plane.path('3')}:{os.environ['PATH']}"}
        subprocess.run(
            [self._nestvirt, *words, "--quiet", *cluster.options],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            check=True,
        )
