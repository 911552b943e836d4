"""What the API server says of Kata on a cluster: nodes, RuntimeClasses, kata-deploy; read, and not judged.

The objects are foreign: what is not of the form that is expected is left out, or is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nestvirt.kata.api import Object, at, name_of
from nestvirt.kata.chart import containerd_directory, distribution_of
from nestvirt.kata.kube import Kube
from nestvirt.kata.rollout import LABEL, node_of
from nestvirt.kata.shims import LINUX_ARCHES

DEPLOY = "kata-deploy"
"""How the name of kata-deploy's DaemonSet begins; a multi-install suffix may follow."""
FAMILY = "kata"
"""How the names of Kata's RuntimeClasses begin."""


@dataclass(frozen=True)
class Node:
    """A node, as its kubelet describes it.

    Attributes:
        ready: what it says of itself; None where nobody has heard of it for a while.
        why: its own words where it is not ready.
        boot_id: of the kernel that it runs, from /proc/sys/kernel/random/boot_id.
        runtime: ``containerd://1.7.23-k3s2``.
        handlers: of that runtime; None where the cluster does not tell (before Kubernetes 1.30).
        cordoned: no pods of its users go there.
    """

    name: str
    ready: bool | None = None
    why: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    kernel: str = ""
    boot_id: str = ""
    kubelet: str = ""
    runtime: str = ""
    arch: str = "amd64"
    os: str = "linux"
    handlers: frozenset[str] | None = None
    cordoned: bool = False

    @property
    def label(self) -> str | None:
        """What kata-deploy says of the node: true, false (4.x: not yet), or None."""
        return self.labels.get(LABEL)

    @property
    def distribution(self) -> str:
        """Of Kubernetes, where its version tells it; else k8s."""
        return distribution_of(self.kubelet) or "k8s"


@dataclass(frozen=True)
class RuntimeClass:
    """A RuntimeClass."""

    name: str
    handler: str
    selector: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Deploy:
    """A DaemonSet of kata-deploy.

    Attributes:
        desired: pods that there should be; None where its controller has not said so yet.
        env: what its pods are told.
        directory: of containerd's configuration, as it was mounted.
        release: Helm's, which has made it; empty where it was not Helm.
        pods: its pods, as the API has them, by the node that each is for.
        events: warnings about those that are not ready, and about itself, by name.
    """

    name: str
    namespace: str
    desired: int | None = None
    ready: int = 0
    image: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    directory: str = ""
    pods: Mapping[str, Object] = field(default_factory=dict)
    events: Mapping[str, tuple[Object, ...]] = field(default_factory=dict)
    release: str = ""

    def shims(self, arch: str) -> tuple[str, ...]:
        """The shims that it installs on such a node: by architecture from 3.22 on, before that one list."""
        linux = LINUX_ARCHES.get(arch, arch).upper()
        return tuple((self.env.get(f"SHIMS_{linux}") or self.env.get("SHIMS", "")).split())

    @property
    def suffix(self) -> str:
        """That of several installations beside each other, with its hyphen; commonly empty."""
        word = self.env.get("MULTI_INSTALL_SUFFIX", "")
        return f"-{word}" if word else ""

    @property
    def prefix(self) -> str:
        """Where Kata is on a node."""
        return f"{self.env.get('INSTALLATION_PREFIX', '')}/opt/kata{self.suffix}"

    def classes(self, arch: str) -> tuple[str, ...]:
        """The RuntimeClasses that come with it."""
        return tuple(f"kata-{shim}{self.suffix}" for shim in self.shims(arch))


@dataclass(frozen=True)
class Cluster:
    """Everything that the API server says of Kata."""

    version: tuple[int, int]
    nodes: tuple[Node, ...] = ()
    classes: tuple[RuntimeClass, ...] = ()
    deploys: tuple[Deploy, ...] = ()

    def node(self, name: str) -> Node | None:
        """A node by its name."""
        return next((node for node in self.nodes if node.name == name), None)

    def targets(self) -> tuple[Node, ...]:
        """The nodes on which there is to be Kata: where kata-deploy has a pod, or has left its label."""
        placed = {name for deploy in self.deploys for name in deploy.pods}
        return tuple(node for node in self.nodes if node.name in placed or node.label == "true")

    @property
    def empty(self) -> bool:
        """Whether there is nothing of Kata at all."""
        return not self.deploys and not self.classes and not any(node.label for node in self.nodes)


def read(kube: Kube, namespace: str) -> Cluster:
    """Read it all, in five requests; a few more where kata-deploy's pods are not ready.

    Args:
        namespace: where kata-deploy is; another is looked at where it is not there.
    """
    version = kube.version()
    nodes = tuple(_node(found) for found in kube.list("nodes"))
    classes = tuple(_runtime_class(found) for found in kube.list("runtimeclasses"))
    sets = [s for s in kube.list("daemonsets", namespace="*") if name_of(s).startswith(DEPLOY)]
    here = [s for s in sets if at(s, "metadata", "namespace") == namespace] or sets
    deploys = tuple(_deploy(kube, found) for found in here)
    return Cluster(version, nodes, tuple(c for c in classes if c.name.startswith(FAMILY)), deploys)


def _node(found: Object) -> Node:
    info = at(found, "status", "nodeInfo")
    conditions = at(found, "status", "conditions")
    listed = conditions if isinstance(conditions, list) else []
    ready = next((c for c in listed if at(c, "type") == "Ready"), None)
    state = {"True": True, "False": False}.get(str(at(ready, "status")))
    known = at(found, "status", "runtimeHandlers")
    handlers = {str(at(h, "name") or "") for h in known} if isinstance(known, list) else None
    return Node(
        name_of(found),
        state,
        "" if state else str(at(ready, "message") or "its kubelet has not been heard of"),
        _words(at(found, "metadata", "labels")),
        _text(info, "kernelVersion"),
        _text(info, "bootID"),
        _text(info, "kubeletVersion"),
        _text(info, "containerRuntimeVersion"),
        _text(info, "architecture") or "amd64",
        _text(info, "operatingSystem") or "linux",
        frozenset(handlers) if handlers is not None else None,
        at(found, "spec", "unschedulable") is True,
    )


def _runtime_class(found: Object) -> RuntimeClass:
    selector = _words(at(found, "scheduling", "nodeSelector"))
    return RuntimeClass(name_of(found), str(found.get("handler", "")), selector)


def _deploy(kube: Kube, found: Object) -> Deploy:
    name, namespace = name_of(found), str(at(found, "metadata", "namespace"))
    template = at(found, "spec", "template", "spec")
    containers = at(template, "containers")
    container = containers[0] if isinstance(containers, list) and containers else {}
    labels = _words(at(found, "spec", "selector", "matchLabels"))
    selector = ",".join(f"{key}={value}" for key, value in labels.items())
    pods = kube.list("pods", namespace=namespace, selector=selector) if selector else []
    desired = at(found, "status", "desiredNumberScheduled")
    ready = at(found, "status", "numberReady")
    whole = isinstance(desired, int) and desired == ready == len(pods) and desired > 0
    return Deploy(
        name,
        namespace,
        desired if isinstance(desired, int) else None,
        ready if isinstance(ready, int) else 0,
        _text(container, "image"),
        _env(at(container, "env")),
        _mounted(template, container),
        {node_of(pod): pod for pod in pods},
        {} if whole else _events(kube, namespace, name),
        _words(at(found, "metadata", "annotations")).get("meta.helm.sh/release-name", ""),
    )


def _events(kube: Kube, namespace: str, name: str) -> dict[str, tuple[Object, ...]]:
    """The warnings about a DaemonSet and its pods, by the name of what they are about."""
    found: dict[str, list[Object]] = {}
    for event in kube.list("events", namespace=namespace, fields="type=Warning"):
        about = str(at(event, "involvedObject", "name"))
        if about == name or about.startswith(f"{name}-"):
            found.setdefault(about, []).append(event)
    return {about: tuple(events) for about, events in found.items()}


def _mounted(template: object, container: Object) -> str:
    """The node's directory that the pods see as /etc/containerd."""
    mounts, volumes = (
        at(container, "volumeMounts"),
        at(template if isinstance(template, dict) else {}, "volumes"),
    )
    named = [at(m, "name") for m in mounts or () if str(at(m, "mountPath")).rstrip("/") == "/etc/containerd"]
    paths = [at(v, "hostPath", "path") for v in volumes or () if named and at(v, "name") == named[0]]
    return str(paths[0]).rstrip("/") if paths and paths[0] else ""


def directory_of(node: Node) -> str:
    """Where the node's containerd has its configuration, by its distribution."""
    return containerd_directory(node.distribution)


def _env(found: object) -> dict[str, str]:
    listed = found if isinstance(found, list) else []
    return {str(at(e, "name")): str(at(e, "value") or "") for e in listed if at(e, "name")}


def _words(found: object) -> dict[str, str]:
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def _text(found: object, key: str) -> str:
    value = at(found, key)
    return value if isinstance(value, str) else ""
