"""A played node: its machine's files, its containerd, and the Node object that it registers."""

from __future__ import annotations

import datetime
import threading
from pathlib import Path
from typing import Any

from tests.peers import kubelet_kata
from tests.peers.kubelet_machine import Machine, lay_out

LABEL = "katacontainers.io/kata-runtime"
ROOM = {"cpu": "64", "memory": "256Gi", "pods": "250", "ephemeral-storage": "100Gi"}


def now() -> str:
    """This moment, as the API writes it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Node:
    """One node.

    Attributes:
        name: of the Node object.
        machine: what it is like.
    """

    def __init__(self, name: str, machine: Machine, folder: Path, port: int) -> None:
        self.name, self.machine = name, machine
        self._folder, self._port = folder, port
        self._lock = threading.Lock()
        self._handlers: frozenset[str] = frozenset()
        self._restarts = 0

    @property
    def root(self) -> Path:
        """Its /, as a folder of this machine; made when it is first asked for."""
        with self._lock:
            root = self._folder / self.name
            if not root.exists():
                lay_out(root, self.name, self.machine)
            return root

    def read(self, path: str) -> str:
        """The text of a file on it."""
        return (self.root / path.lstrip("/")).read_text()

    @property
    def played(self) -> tuple[str, ...]:
        """The words with which its systemctl, modprobe and ctr were called."""
        log = self.root / "played.log"
        return tuple(log.read_text().splitlines()) if log.exists() else ()

    @property
    def handlers(self) -> frozenset[str]:
        """What its running containerd knows, beside runc: what it read when it was last started."""
        restarts = sum(line.startswith("systemctl restart") for line in self.played)
        if restarts > self._restarts:
            self._restarts = restarts
            self.restart()
        return self._handlers

    def restart(self) -> None:
        """Start its containerd anew."""
        self._handlers = kubelet_kata.restart(self.root, self.machine)

    def as_object(self) -> dict[str, Any]:
        """What its kubelet registers."""
        machine = self.machine
        labels = {
            f"kubernetes.io/{key}": value
            for key, value in (("hostname", self.name), ("arch", "amd64"), ("os", "linux"))
        }
        role = {"node-role.kubernetes.io/control-plane": "true"} if machine.control_plane else {}
        taints = [{"key": key, "value": "true", "effect": "NoSchedule"} for key in role]
        info = {
            "machineID": self.name,
            "systemUUID": self.name,
            "bootID": machine.boot(self.name),
            "kernelVersion": machine.kernel,
            "osImage": "Lab Linux 9",
            "containerRuntimeVersion": f"containerd://{machine.containerd}",
            "kubeletVersion": machine.version,
            "kubeProxyVersion": machine.version,
            "operatingSystem": "linux",
            "architecture": "amd64",
        }
        word = ("True", "KubeletReady", "kubelet is posting ready status")
        if not machine.ready:
            word = ("False", "KubeletNotReady", "container runtime network not ready")
        ready = {"type": "Ready", "status": word[0], "reason": word[1], "message": word[2]}
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name, "labels": labels | role | dict(machine.labels)},
            "spec": {"taints": taints, "unschedulable": not machine.schedulable},
            "status": {
                "capacity": ROOM,
                "allocatable": ROOM,
                "addresses": [
                    {"type": "InternalIP", "address": "127.0.0.1"},
                    {"type": "Hostname", "address": self.name},
                ],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": self._port}},
                "conditions": [ready | {"lastHeartbeatTime": now(), "lastTransitionTime": now()}],
                "nodeInfo": info,
            },
        }
