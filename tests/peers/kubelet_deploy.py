"""The pods of the kata-deploy chart on a played node: they do to it what the real ones do."""

from __future__ import annotations

from pathlib import Path

from tests.lab.k8sapi import Object
from tests.peers import kubelet_kata
from tests.peers.kubelet_ills import AVC, CRASHED, DENIED, Ill
from tests.peers.kubelet_kata import Deployed
from tests.peers.kubelet_node import LABEL, now
from tests.peers.kubelet_pod import RETRIES, Pod
from tests.peers.kubelet_run import Container

INSTALL, CLEANUP, REMOVAL = "kube-kata", "kube-kata-cleanup", "rb-cleanup"
"""The names of their containers."""
INSTANCE = "kata-deploy.katacontainers.io/default"
LABEL_SECONDS = 0.2
"""From a pod that is ready to its node's label: 3.25 has no probe that would tell."""


class DeployPod(Pod):
    """A pod of the DaemonSet, or of a hook's Job."""

    def _contained(self, handler: str | None) -> Container:
        return Container(self.folder, Path(), ())

    @property
    def deployed(self) -> Deployed:
        """What it was told."""
        return Deployed.of(self.container["image"], self.env())

    def _run(self, container: Container) -> None:
        if self.container["name"] == CLEANUP:
            self.clean()
            self.finish(0)
        elif self.container["name"] == REMOVAL:
            self._remove_kept()
            self.finish(0)
        elif self.suffers(Ill.SELINUX):
            (self.node.root / "var/log/audit").mkdir(exist_ok=True)
            (self.node.root / "var/log/audit/audit.log").write_text(AVC)
            self._crash(DENIED)
        elif self.suffers(Ill.DEPLOY_CRASH):
            self._crash(CRASHED)
        else:
            self._install()

    def _install(self) -> None:
        deployed, running = self.deployed, {"running": {"startedAt": now()}}
        self.write(f"Action:\n* install\nShims: {' '.join(deployed.shims)}\n")
        self.status("Running", running, ready=not deployed.is_new)
        if deployed.is_new:
            self.label("false")
        drop_ins = {}
        for volume in self.made["spec"].get("volumes", []):
            if volume["name"] == "drop-ins":
                drop_ins = dict(self.config_map(volume["configMap"]["name"]))
        kubelet_kata.install(self.node.root, self.node.machine, deployed, self._directory(), drop_ins)
        self.write("restarting the container runtime\n")
        self.node.restart()
        self.kubelets.runtime_restarted()
        if self.ended.wait(LABEL_SECONDS) or self.suffers(Ill.NO_LABEL):
            return
        self.label("true")
        self.write("Kata Containers is installed\n")
        if deployed.is_new:
            self.status("Running", running, ready=True)

    def _directory(self) -> str:
        paths = [
            v["hostPath"]["path"] for v in self.made["spec"]["volumes"] if v["name"] == "containerd-conf"
        ]
        return str(paths[0]).strip("/")

    def _crash(self, words: str) -> None:
        for number, seconds in enumerate(RETRIES):
            self.write(words)
            ended = {"exitCode": 1, "reason": "Error", "startedAt": now(), "finishedAt": now()}
            last: Object = {"terminated": ended}
            self.status("Running", last, restarts=number)
            if number:
                back_off = "back-off 10s restarting failed container=kube-kata"
                waiting = {"reason": "CrashLoopBackOff", "message": back_off}
                self.event("BackOff", "Back-off restarting failed container", count=number)
                self.status("Running", {"waiting": waiting}, restarts=number, last=last)
            if self.pause(seconds):
                return

    def clean(self) -> None:
        """What kata-deploy does to its node as it goes."""
        kubelet_kata.clean(self.node.root, self._directory())
        self.label(None)
        self.node.restart()
        self.kubelets.runtime_restarted()

    def end(self) -> None:
        """Newer ones clean their node first."""
        self.ended.set()
        if self.container["name"] == INSTALL and self.deployed.cleans_each_node:
            self.clean()
        super().end()

    def label(self, value: str | None) -> None:
        """Label its node."""
        labels = {LABEL: value}
        if self.deployed.is_new:
            labels[INSTANCE] = "true" if value == "true" else None
        self.kubelets.label(self.node.name, labels)

    def _remove_kept(self) -> None:
        """4.1's Job: when the pods have gone, it deletes what they needed until then."""
        env = self.env()
        pods = f"/api/v1/namespaces/{env['NAMESPACE']}/pods"
        while self.api.items(pods, labelSelector=env["DAEMONSET_POD_LABEL"]):
            if self.ended.wait(0.1):
                return
        roles = "/apis/rbac.authorization.k8s.io/v1"
        self.api.delete(f"{roles}/clusterrolebindings/{env['CLUSTER_ROLE_BINDING_NAME']}")
        self.api.delete(f"{roles}/clusterroles/{env['CLUSTER_ROLE_NAME']}")
        accounts = f"/api/v1/namespaces/{env['NAMESPACE']}/serviceaccounts"
        self.api.delete(f"{accounts}/{env['SERVICE_ACCOUNT_NAME']}")
