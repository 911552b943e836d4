"""One pod on a played node: its status, its events, its container's process, its end."""

from __future__ import annotations

import subprocess
import threading
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.lab.k8sapi import Api, ApiError, Object
from tests.peers import kubelet_run
from tests.peers.kubelet_ills import BACK_OFF, OF_SANDBOXES, PULL, Ill
from tests.peers.kubelet_machine import kernel_files, write
from tests.peers.kubelet_node import Node, now
from tests.peers.kubelet_run import Container, Mount

if TYPE_CHECKING:
    from tests.peers.kubelet import Kubelets

RETRIES = (0.3, *([10.0] * 60))
"""Seconds until a kubelet tries again; a real one takes ten the first time, too."""
SHORT = 0.5
"""Seconds within which a container that ends is never seen running."""
GUEST_KERNEL = "6.12.47"
GUESTS = {
    "fc": None,
    "dragonball": None,
    "clh": ("Cloud Hypervisor", "cloud-hypervisor"),
    "cloud-hypervisor": ("Cloud Hypervisor", "cloud-hypervisor"),
}
QEMU = ("QEMU", "Standard PC (Q35 + ICH9, 2009)")


class Pod:
    """A pod that the scheduler has bound to a played node.

    Attributes:
        ended: set when it is to end, for it is deleted.
        wake: set when it is to look again at what is wrong.
        log: what its container writes.
    """

    def __init__(self, kubelets: Kubelets, node: Node, made: Object, folder: Path) -> None:
        self.kubelets, self.node, self.made, self.folder = kubelets, node, made, folder
        self.api: Api = kubelets.api
        self.ended, self.done, self.wake = threading.Event(), threading.Event(), threading.Event()
        self.log = folder / "log"
        self.container: Object = made["spec"]["containers"][0]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        return str(self.made["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.made["metadata"]["namespace"])

    @property
    def path(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"

    @property
    def runtime_class(self) -> str | None:
        found: str | None = self.made["spec"].get("runtimeClassName")
        return found

    def suffers(self, ill: Ill) -> bool:
        """Whether that befalls it."""
        return self.kubelets.suffers(ill, self.node.name, self.runtime_class, self.name)

    def write(self, text: str) -> None:
        """Add to the log what a played program says."""
        with self.log.open("a") as log:
            log.write(text)

    # --- its life

    def live(self) -> None:
        """From a bound pod to one that runs, or has ended."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.status("Pending", {"waiting": {"reason": "ContainerCreating"}})
        handler = self._handler()
        if self._wait_while(lambda: self._sandbox_ill(handler), self._no_sandbox(handler)):
            return
        if self._wait_while(lambda: Ill.IMAGE_PULL if self.suffers(Ill.IMAGE_PULL) else None, self._no_image):
            return
        try:
            container = self._contained(handler)
        except FileNotFoundError as error:
            self.event("FailedMount", f'MountVolume.SetUp failed for volume "host": {error}')
            return
        self._run(container)

    def _wait_while(self, ill: Callable[[], Ill | None], complain: Callable[[Ill, int], None]) -> bool:
        """Try again and again, as a kubelet does; return whether the pod was deleted over it."""
        for number, seconds in enumerate(RETRIES):
            found = ill()
            if found is None:
                return self.ended.is_set()
            complain(found, number)
            if self.pause(seconds):
                break
        return True

    def pause(self, seconds: float) -> bool:
        """Wait so long, or until something was healed; return whether it is to end."""
        self.wake.wait(seconds)
        self.wake.clear()
        return self.ended.is_set()

    def _run(self, container: Container) -> None:
        process = self._process = kubelet_run.start(container)
        try:
            process.wait(SHORT)
        except subprocess.TimeoutExpired:
            self.status("Running", {"running": {"startedAt": now()}}, ready=True)
            process.wait()
        if not self.ended.is_set():
            self.finish(process.returncode if process.returncode >= 0 else 128 - process.returncode)

    def finish(self, code: int) -> None:
        """The container has ended."""
        reason = "Completed" if code == 0 else "Error"
        ended = {"exitCode": code, "reason": reason, "startedAt": now(), "finishedAt": now()}
        self.done.set()
        self.status("Failed" if code else "Succeeded", {"terminated": ended})

    def stop(self) -> None:
        """End its process."""
        self.ended.set()
        self.wake.set()
        if self._process is not None:
            kubelet_run.stop(self._process)
            self._process.wait()
        self.done.set()

    def end(self) -> None:
        """It was deleted: end it, and tell the API server that it is gone."""
        self.stop()
        uid = self.made["metadata"]["uid"]
        self.api.delete(self.path, {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}})
        kubelet_run.remove(self.folder)

    # --- what goes wrong

    def _handler(self) -> str | None:
        """The handler of its RuntimeClass; None for the node's own runtime."""
        if self.runtime_class is None:
            return None
        try:
            found = self.api.get(f"/apis/node.k8s.io/v1/runtimeclasses/{self.runtime_class}")
        except ApiError:
            return self.runtime_class
        return str(found["handler"])

    def _sandbox_ill(self, handler: str | None) -> Ill | None:
        if handler is None:
            return None
        told = [ill for ill in Ill if ill in OF_SANDBOXES and self.suffers(ill)]
        return told[0] if told else self._consequence(handler)

    def _consequence(self, handler: str) -> Ill | None:
        """What follows from the machine."""
        machine = self.node.machine
        if handler not in self.node.handlers:
            return Ill.NO_HANDLER
        if machine.kvm != "works":
            return Ill.NO_KVM
        if handler.startswith("kata-fc") and not machine.devmapper:
            return Ill.NO_DEVMAPPER
        uses_vhost = handler.startswith("kata-qemu")
        vsock = {"missing": Ill.VSOCK_MISSING, "busy": Ill.VSOCK_BUSY}.get(machine.vhost_vsock)
        return vsock if uses_vhost else None

    def _no_sandbox(self, handler: str | None) -> Callable[[Ill, int], None]:
        identity = uuid.uuid4().hex * 2

        def complain(ill: Ill, number: int) -> None:
            text = ill.value.format(handler=handler, id=identity)
            self.event("FailedCreatePodSandBox", text, count=number + 1)

        return complain

    def _no_image(self, ill: Ill, number: int) -> None:
        image = self.container["image"]
        words = {"image": image, "host": image.split("/")[0]}
        pull, back_off = PULL.format(**words), BACK_OFF.format(**words)
        self.event("Failed", pull, count=number + 1)
        self.event("Failed", "Error: ErrImagePull", count=number + 1)
        waiting = {"reason": "ErrImagePull", "message": pull}
        if number:
            self.event("BackOff", back_off, kind="Normal", count=number)
            waiting = {"reason": "ImagePullBackOff", "message": back_off}
        self.status("Pending", {"waiting": waiting})

    # --- its container

    def _contained(self, handler: str | None) -> Container:
        context = self.made["spec"].get("securityContext", {}) | self.container.get("securityContext", {})
        machine = self.node.root
        if handler is not None and not self.suffers(Ill.NOT_ISOLATED):
            machine = self._guest(handler)
        mounts = sorted(self.container.get("volumeMounts", []), key=lambda mount: str(mount["mountPath"]))
        volumes = {volume["name"]: volume for volume in self.made["spec"].get("volumes", [])}
        return Container(
            folder=self.folder,
            machine=machine,
            command=[*self.container.get("command", ["/bin/sh"]), *self.container.get("args", [])],
            env=self.env(),
            mounts=[
                Mount(self._volume(volumes[mount["name"]]), mount["mountPath"], mount.get("readOnly", False))
                for mount in mounts
            ],
            privileged=bool(context.get("privileged")),
            user=int(context.get("runAsUser", 0)),
        )

    def env(self) -> dict[str, str]:
        """The container's environment."""
        found = {"HOSTNAME": self.name}
        for variable in self.container.get("env", []):
            found[variable["name"]] = variable.get("value", "")
            if "fieldRef" in variable.get("valueFrom", {}):
                value: Any = self.made
                for part in variable["valueFrom"]["fieldRef"]["fieldPath"].split("."):
                    value = value.get(part, {})
                found[variable["name"]] = value if isinstance(value, str) else ""
        return found

    def config_map(self, name: str) -> Mapping[str, str]:
        """What is in a ConfigMap of its namespace; nothing where there is none."""
        try:
            found = self.api.get(f"/api/v1/namespaces/{self.namespace}/configmaps/{name}")
        except ApiError:
            return {}
        data: Mapping[str, str] = found.get("data") or {}
        return data

    def _volume(self, volume: Object) -> Path:
        folder = self.folder / "volumes" / str(volume["name"])
        if "hostPath" in volume:
            path = self.node.root / str(volume["hostPath"]["path"]).lstrip("/")
            if volume["hostPath"].get("type", "") in ("Directory", "File") and not path.exists():
                raise FileNotFoundError(
                    f"hostPath type check failed: {volume['hostPath']['path']} is not there"
                )
            if not path.exists():
                path.mkdir(parents=True)
            return path
        folder.mkdir(parents=True)
        if "configMap" in volume:
            mode = int(volume["configMap"].get("defaultMode", 0o644))
            for name, text in self.config_map(volume["configMap"]["name"]).items():
                (folder / name).write_text(text)
                (folder / name).chmod(mode)
        return folder

    def _guest(self, handler: str) -> Path:
        """The files of the VM that this handler would have made."""
        folder = self.folder / "guest"
        shim = handler.removeprefix("kata-")
        files: dict[str, str | None] = dict(
            kernel_files(GUEST_KERNEL, str(uuid.uuid4()), self.name, " hypervisor", ())
        )
        names = GUESTS.get(shim, QEMU)
        if names is not None:
            files |= {
                f"sys/class/dmi/id/{key}": f"{name}\n"
                for key, name in zip(("sys_vendor", "product_name"), names, strict=True)
            }
        write(folder, files)
        for name in ("sys", "dev"):
            (folder / name).mkdir(exist_ok=True)
        return folder

    # --- what it tells

    def status(
        self, phase: str, state: Object, *, ready: bool = False, restarts: int = 0, last: Object | None = None
    ) -> None:
        """Tell the API server how it is; that a deleted one is gone does not matter.

        Args:
            last: the state before this one, of a container that was started again.
        """
        word = "True" if ready else "False"
        conditions = [
            {"type": kind, "status": value, "lastTransitionTime": now()}
            for kind, value in (
                ("Initialized", "True"),
                ("Ready", word),
                ("ContainersReady", word),
                ("PodScheduled", "True"),
            )
        ]
        container = {
            "name": self.container["name"],
            "image": self.container["image"],
            "imageID": "",
            "ready": ready,
            "started": ready,
            "restartCount": restarts,
            "state": state,
            "lastState": last or {},
        }
        places = {"hostIP": "127.0.0.1", "podIP": "127.0.0.1", "startTime": now()}
        told = {"phase": phase, "conditions": conditions, "containerStatuses": [container], **places}
        try:
            self.api.patch(f"{self.path}/status", {"status": told})
        except ApiError as error:
            if error.status != 404:
                raise

    def event(self, reason: str, text: str, *, kind: str = "Warning", count: int = 1) -> None:
        """Make an event about it, or count it once more."""
        meta = self.made["metadata"]
        events = f"/api/v1/namespaces/{self.namespace}/events"
        name = f"{self.name}.{uuid.uuid5(uuid.UUID(meta['uid']), reason + text[:40]).hex[:16]}"
        about = {"kind": "Pod", "apiVersion": "v1", "name": self.name, "namespace": self.namespace}
        if count > 1:
            self.api.patch(f"{events}/{name}", {"count": count, "lastTimestamp": now(), "message": text})
            return
        self.api.post(
            events,
            {
                "metadata": {"name": name, "namespace": self.namespace},
                "involvedObject": about | {"uid": meta["uid"]},
                "reason": reason,
                "message": text,
                "type": kind,
                "count": 1,
                "firstTimestamp": now(),
                "lastTimestamp": now(),
                "source": {"component": "kubelet", "host": self.node.name},
            },
        )
