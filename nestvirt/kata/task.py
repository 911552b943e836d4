"""What a short pod is made of: its task, as the objects that the API takes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from nestvirt.kata.api import Object

OURS = "app.kubernetes.io/managed-by=nestvirt"
RUN, TASK, LIFETIME = "nestvirt.io/run", "nestvirt.io/task", "nestvirt.io/lifetime"
CONTAINER = "task"
FOLDER = "/nestvirt"
"""Where a pod finds its files."""
GRACE = 5
"""Seconds for a pod to end: a VM's shim has to be stopped, and is not where it is killed at once."""
NOBODY = 65534


@dataclass(frozen=True)
class Task:
    """One short pod on one node.

    Attributes:
        purpose: a word of the pod's name.
        command: the program and its arguments; data for it goes into env and files.
        files: read-only in FOLDER; at most 1 MiB.
        runtime_class: the RuntimeClass that it runs under; None for the node's own runtime.
        privileged: it sees the node's processes, devices and network, and the node's / at /host.
        read_only_host: it cannot write there.
    """

    node: str
    purpose: str
    image: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    runtime_class: str | None = None
    privileged: bool = False
    read_only_host: bool = True


@dataclass(frozen=True)
class Setting:
    """Where the pods of a run are made.

    Attributes:
        run: the run's id; a part of every name.
        lifetime: seconds after which the cluster itself ends them, and any later run may delete them.
    """

    run: str
    namespace: str
    lifetime: int

    def pod_name(self, index: int, task: Task) -> str:
        """A DNS label, whatever the node is called."""
        word = re.sub(r"[^a-z0-9]+", "-", task.purpose.lower()).strip("-")[:30] or "task"
        return f"nestvirt-{word}-{self.run}-{index}"

    def files_name(self, files: Mapping[str, str]) -> str:
        """The ConfigMap of those files: equal ones are shared."""
        digest = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:8]
        return f"nestvirt-files-{self.run}-{digest}"

    def config_map(self, files: Mapping[str, str]) -> Object:
        """The ConfigMap of those files."""
        metadata = self._metadata(self.files_name(files))
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": dict(files)}

    def _metadata(self, name: str) -> Object:
        key, _, value = OURS.partition("=")
        return {
            "name": name,
            "namespace": self.namespace,
            "labels": {key: value, RUN: self.run},
            "annotations": {LIFETIME: str(self.lifetime)},
        }

    def pod(self, index: int, task: Task) -> Object:
        """The pod of a task."""
        mounts, volumes = [], []
        if task.files:
            mounts.append({"name": "files", "mountPath": FOLDER, "readOnly": True})
            config_map = {"name": self.files_name(task.files), "defaultMode": 0o555}
            volumes.append({"name": "files", "configMap": config_map})
        if task.privileged:
            mounts.append({"name": "host", "mountPath": "/host", "readOnly": task.read_only_host})
            volumes.append({"name": "host", "hostPath": {"path": "/", "type": "Directory"}})
        metadata = self._metadata(self.pod_name(index, task))
        metadata["labels"][TASK] = str(index)
        container = {
            "name": CONTAINER,
            "image": task.image,
            "command": list(task.command),
            "env": [{"name": k, "value": v} for k, v in task.env.items()],
            "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
            "securityContext": _ROOT if task.privileged else _RESTRICTED,
            "volumeMounts": mounts,
        }
        # The node's own network: such a pod starts also where the cluster's does not work.
        host = {"hostPID": True, "hostNetwork": True} if task.privileged else {}
        runtime = {"runtimeClassName": task.runtime_class} if task.runtime_class else {}
        spec = {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": GRACE,
            "activeDeadlineSeconds": self.lifetime,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "tolerations": [{"operator": "Exists"}],
            "affinity": _on(task.node),
            "containers": [container],
            "volumes": volumes,
            **host,
            **runtime,
        }
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


_ROOT: Object = {"privileged": True}
# What the PodSecurity level "restricted" asks for.
_RESTRICTED: Object = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": NOBODY,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def _on(node: str) -> Object:
    fields = [{"key": "metadata.name", "operator": "In", "values": [node]}]
    terms = {"nodeSelectorTerms": [{"matchFields": fields}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
