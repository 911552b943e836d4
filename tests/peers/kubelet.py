"""Played kubelets on a real control plane, and the cluster that a test gets.

One watch follows the pods that the real scheduler has bound to any of the nodes.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import urllib3

from tests.lab import Closing, wait_for
from tests.lab.k8s import ControlPlane, run
from tests.lab.k8sapi import ApiError, Object
from tests.peers.kubelet_deploy import CLEANUP, INSTALL, REMOVAL, DeployPod
from tests.peers.kubelet_ills import Ill, Suffering
from tests.peers.kubelet_logs import Log, LogServer
from tests.peers.kubelet_machine import Machine
from tests.peers.kubelet_node import LABEL, Node
from tests.peers.kubelet_pod import Pod

__all__ = ["Cluster", "Ill", "Kubelets", "Machine", "Node"]

AT_ONCE = 64
SECONDS = 60
BOUND = "spec.nodeName!="
NAMESPACES = ("default", "kube-system")


class Kubelets(Closing):
    """All kubelets of a control plane."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane, self.api = plane, plane.api
        self.folder = Path(tempfile.mkdtemp(prefix="nv-nodes-"))
        self.nodes: dict[str, Node] = {}
        self.pods: dict[str, Pod] = {}
        self.sufferings: list[Suffering] = []
        self._drop: float | None = None
        self._dropping: threading.Thread | None = None
        self._closed = threading.Event()
        self._pool = ThreadPoolExecutor(AT_ONCE, "kubelet")
        self.failures: list[BaseException] = []
        self._server = LogServer(plane.authority, self._log)
        self._watcher = threading.Thread(target=self._watch, name="kubelets", daemon=True)
        self._watcher.start()

    def close(self) -> None:
        """End them, and what they run."""
        self._closed.set()
        for pod in list(self.pods.values()):
            pod.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._server.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- nodes

    def register(self, names: Sequence[str], machine: Machine) -> list[Node]:
        """Make nodes; return when the control plane lets pods onto those that are ready."""
        made = [Node(name, machine, self.folder / "nodes", self._server.port) for name in names]
        self.nodes |= {node.name: node for node in made}
        list(self._pool.map(lambda node: self.api.post("/api/v1/nodes", node.as_object()), made))
        wanted = set(names) if machine.ready else set()

        def seen() -> bool:
            taints = {
                n["metadata"]["name"]: n["spec"].get("taints", []) for n in self.api.items("/api/v1/nodes")
            }
            return not any(t["key"].endswith("/not-ready") for name in wanted for t in taints[name])

        wait_for(seen, SECONDS, "nodes without the taint not-ready")
        return made

    def label(self, node: str, labels: Mapping[str, str | None]) -> None:
        """Label a node; one that has gone needs none."""
        with contextlib.suppress(ApiError):
            self.api.patch(f"/api/v1/nodes/{node}", {"metadata": {"labels": dict(labels)}})

    # --- what goes wrong

    def suffers(self, ill: Ill, node: str, runtime_class: str | None, pod: str) -> bool:
        """Whether that ill befalls that pod."""
        return any(s.ill is ill and s.befalls(node, runtime_class, pod) for s in self.sufferings)

    def drop(self, seconds: float | None) -> None:
        """Let the API server be away that long when a runtime is restarted next; None: not any more."""
        if self._dropping is not None:
            self._dropping.join(SECONDS)
        self._drop, self._dropping = seconds, None

    def runtime_restarted(self) -> None:
        """A node's runtime was: the API server on it may go with it."""
        seconds, self._drop = self._drop, None
        if seconds is not None:
            self._dropping = threading.Thread(target=self._away, args=(seconds,), name="api-drop")
            self._dropping.start()
            self._dropping.join(SECONDS)

    def _away(self, seconds: float) -> None:
        self.plane.stop_api()
        self._closed.wait(seconds)
        self.plane.start_api()

    # --- pods

    def _watch(self) -> None:
        while not self._closed.is_set():
            try:
                listing = self.api.get("/api/v1/pods", fieldSelector=BOUND)
                for made in listing["items"]:
                    self._seen(made)
                version = str(listing["metadata"]["resourceVersion"])
                for event in self.api.watch("/api/v1/pods", version, fieldSelector=BOUND):
                    if event["type"] in ("ADDED", "MODIFIED"):
                        self._seen(event["object"])
                    elif event["type"] == "DELETED":
                        self._gone(event["object"])
            except (ApiError, urllib3.exceptions.HTTPError, OSError):
                self._closed.wait(0.1)  # the API server restarts; or this test is over

    def _seen(self, made: Object) -> None:
        uid, node = made["metadata"]["uid"], self.nodes.get(made["spec"]["nodeName"])
        if node is None or not node.machine.ready:
            return
        known = self.pods.get(uid)
        if known is None:
            names = {container["name"] for container in made["spec"]["containers"]}
            kind = DeployPod if names & {INSTALL, CLEANUP, REMOVAL} else Pod
            known = self.pods[uid] = kind(self, node, made, self.folder / "pods" / uid)
            if "deletionTimestamp" not in made["metadata"]:
                self._do(known.live, known)
        if "deletionTimestamp" in made["metadata"] and not known.ended.is_set():
            known.ended.set()
            known.wake.set()
            self._do(known.end)

    def _gone(self, made: Object) -> None:
        """Deleted without its kubelet's word."""
        known = self.pods.pop(made["metadata"]["uid"], None)
        if known is not None and not known.ended.is_set():
            self._do(known.end)

    def _do(self, work: Callable[[], None], living: Pod | None = None) -> None:
        """Do it in another thread; what befalls a pod that is deleted meanwhile does not matter."""

        def guarded() -> None:
            try:
                work()
            except (ApiError, OSError, urllib3.exceptions.HTTPError) as error:
                if not self._closed.is_set() and not (living and living.ended.is_set()):
                    self.failures.append(error)

        self._pool.submit(guarded)

    def _log(self, namespace: str, name: str, container: str) -> Log | None:
        for pod in list(self.pods.values()):
            if (pod.namespace, pod.name, pod.container["name"]) == (namespace, name, container):
                return Log(pod.log, pod.done.is_set)
        return None


class Cluster:
    """The cluster of one test: without nodes at its beginning, and all of it gone at its end.

    Attributes:
        plane: the control plane that it has for itself meanwhile.
        kubeconfig: the administrator's, as a path.
        options: the options that name it to kubectl, helm and nestvirt.
    """

    def __init__(self, kubelets: Kubelets) -> None:
        self.kubelets, self.plane, self.api = kubelets, kubelets.plane, kubelets.api
        self.kubeconfig = str(self.plane.kubeconfig)
        self.options = ["--kubeconfig", self.kubeconfig]

    # --- its nodes

    def add(self, name: str, machine: Machine | None = None) -> Node:
        """Add a node."""
        return self.kubelets.register([name], machine or Machine())[0]

    def add_many(self, count: int, machine: Machine | None = None) -> list[Node]:
        """Add worker-001 and so on, all alike."""
        names = [f"worker-{number:03d}" for number in range(1, count + 1)]
        return self.kubelets.register(names, machine or Machine())

    def node(self, name: str) -> Node:
        """A node that was added."""
        return self.kubelets.nodes[name]

    def lose(self, name: str) -> None:
        """Let a node be no longer ready: from now on its kubelet runs nothing and ends nothing."""
        node = self.node(name)
        node.machine = replace(node.machine, ready=False)
        conditions = node.as_object()["status"]["conditions"]
        self.api.patch(f"/api/v1/nodes/{name}/status", {"status": {"conditions": conditions}})

    def ill(
        self, ill: Ill, *, node: str | None = None, runtime_class: str | None = None, pod: str | None = None
    ) -> None:
        """Let something go wrong from now on.

        Args:
            node, runtime_class: where only; None for everywhere.
            pod: how the names begin of the pods that it befalls.
        """
        self.kubelets.sufferings.append(Suffering(ill, node, runtime_class, pod))

    def heal(self, ill: Ill | None = None) -> None:
        """Let it, or all of it, go wrong no more."""
        self.kubelets.sufferings[:] = [s for s in self.kubelets.sufferings if ill not in (None, s.ill)]
        for pod in list(self.kubelets.pods.values()):
            pod.wake.set()

    def api_drops(self, seconds: float = 2.0) -> None:
        """Let the API server be away for so long when kata-deploy restarts a node's runtime next."""
        self.kubelets.drop(seconds)

    # --- asking it

    def kubectl(self, *words: str, stdin: str = "") -> str:
        """What kubectl says.

        Raises:
            LabError: it failed.
        """
        return run([self.plane.kubectl, *self.options, *words], stdin=stdin)

    def objects(self, kind: str, namespace: str | None = None, selector: str = "") -> list[Object]:
        """Objects as kubectl has them; namespace None: all namespaces."""
        where = ["--namespace", namespace] if namespace else ["--all-namespaces"]
        found: list[Object] = json.loads(
            self.kubectl("get", kind, *where, "--selector", selector, "--output", "json")
        )["items"]
        return found

    def labelled(self) -> set[str]:
        """The nodes that have Kata's label, with the value true."""
        nodes = self.api.items("/api/v1/nodes", labelSelector=f"{LABEL}=true")
        return {node["metadata"]["name"] for node in nodes}

    # --- Kata

    def install(
        self, version: str = "3.25.0", shims: Sequence[str] = ("qemu",), *, helm: str = "3", wait: bool = True
    ) -> None:
        """Install a stub chart by helm itself, as the release kata-deploy in kube-system.

        Args:
            wait: return when each node is labelled.
        """
        chart = str(self.plane.chart_file(version))
        shown = self.plane.helm("show", "values", chart)
        known = [line.split(":")[0].strip() for line in shown.splitlines() if "supportedArches" in line]
        settings = [f"shims.{name}.enabled={'true' if name in shims else 'false'}" for name in known]
        distribution = next(iter(self.kubelets.nodes.values())).machine.distribution
        settings += [f"k8sDistribution={distribution}", f"defaultShim.amd64={shims[0]}"]
        words = [word for setting in settings for word in ("--set", setting)]
        self.plane.helm("install", "kata-deploy", chart, "--namespace", "kube-system", *words, helm=helm)
        if wait:
            wanted = {node.name for node in self.kubelets.nodes.values() if node.machine.ready}
            wait_for(lambda: self.labelled() >= wanted, SECONDS, "the label on every node")

    # --- its end

    def clear(self) -> None:
        """Remove everything that a test can have made."""
        self.kubelets.drop(None)
        if not self.api.answers():
            self.plane.start_api()
        self._delete_all()
        deadline = time.monotonic() + SECONDS
        while self.api.items("/api/v1/pods") and time.monotonic() < deadline:
            for namespace in NAMESPACES:
                self.api.delete(f"/api/v1/namespaces/{namespace}/pods", {"gracePeriodSeconds": 0})
        self.api.delete("/api/v1/nodes")
        self.kubelets.sufferings.clear()
        self.kubelets.nodes.clear()
        self.kubelets.pods.clear()
        for part in ("nodes", "pods"):
            shutil.rmtree(self.kubelets.folder / part, ignore_errors=True)

    def _delete_all(self) -> None:
        background = {"propagationPolicy": "Background", "gracePeriodSeconds": 0}
        for namespace in NAMESPACES:
            core = f"/api/v1/namespaces/{namespace}"
            for kind in ("daemonsets", "deployments"):
                self.api.delete(f"/apis/apps/v1/namespaces/{namespace}/{kind}", background)
            self.api.delete(f"/apis/batch/v1/namespaces/{namespace}/jobs", background)
            self.api.delete(f"{core}/pods", {"gracePeriodSeconds": 0})
            self.api.delete(f"{core}/secrets", labelSelector="owner=helm")
            self.api.delete(f"{core}/events")
            self._delete_named(f"{core}/configmaps", "nestvirt-", "kata-deploy")
            self._delete_named(f"{core}/serviceaccounts", "kata-deploy", "nestvirt-")
        self.api.delete("/apis/node.k8s.io/v1/runtimeclasses")
        for kind in ("clusterroles", "clusterrolebindings"):
            self._delete_named(f"/apis/rbac.authorization.k8s.io/v1/{kind}", "kata-deploy", "nestvirt-")

    def _delete_named(self, path: str, *beginnings: str) -> None:
        for found in self.api.items(path):
            name = found["metadata"]["name"]
            if name.startswith(beginnings):
                self.api.delete(f"{path}/{name}")
