"""A real control plane on loopback: etcd, API server, controllers, scheduler; and a registry of charts.

It has no nodes: tests.peers.kubelet plays them.
"""

from __future__ import annotations

import collections
import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tests.lab import Closing, LabError, wait_for
from tests.lab.k8sapi import Api
from tests.lab.k8sbuild import Programs, programs
from tests.lab.k8spki import CONTEXT, Authority

START_SECONDS = 60
CHARTS = Path(__file__).parents[1] / "charts"
CHART = "kata-deploy"
USERS = {
    "admin": ("lab-admin", "system:masters"),
    "kubelet": ("lab-kubelet", "system:masters"),
    # Masters, so that they need not wait for the roles that the API server makes at its first start.
    "controllers": ("system:kube-controller-manager", "system:masters"),
    "scheduler": ("system:kube-scheduler", "system:masters"),
    "apiserver-client": ("kube-apiserver-kubelet-client", "system:masters"),
}
CONTROLLERS = (
    *("serviceaccount", "serviceaccount-token", "root-ca-cert-publisher", "namespace", "garbagecollector"),
    *("daemonset", "job", "podgc", "nodelifecycle"),
)
# What the admin asks, that is kubectl and helm. Watches are written when they begin.
AUDIT = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata, users: [lab-admin]}, {level: None}]
"""
REGISTRY = """\
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {folder}/registry}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


class ControlPlane(Closing):
    """The control plane; a context manager.

    Attributes:
        folder: its files, and one log of each program.
        kubeconfig: the administrator's; its context is called "lab".
        authority: who signs its certificates.
        kubectl, helm3, helm4: paths of the programs.
        chart_url: the stub charts, for helm with ``--plain-http``.
    """

    context = CONTEXT

    def __init__(self) -> None:
        self._programs: Programs = programs()
        self.folder = Path(tempfile.mkdtemp(prefix="nv-k8s-"))
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._audited = 0
        self.kubectl, self.helm3, self.helm4 = (
            str(path) for path in (self._programs.kubectl, self._programs.helm3, self._programs.helm4)
        )
        try:
            self._ports = dict(zip(("etcd", "peer", "api", "registry"), free_ports(4), strict=True))
            self.server = f"https://127.0.0.1:{self._ports['api']}"
            self.registry = f"127.0.0.1:{self._ports['registry']}"
            self.chart_url = f"oci://{self.registry}/charts/{CHART}"
            self._certify()
            self.api = Api(self.server, self.folder, "kubelet")
            self._begin()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End all of it, and remove its files."""
        for name in reversed(list(self._running)):
            self._end(name)
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self, name: str) -> str:
        """What etcd, api, controllers, scheduler or registry said."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    # --- what others run against it

    def path(self, helm: str = "3") -> str:
        """A folder with ``kubectl`` and that ``helm``, for a PATH."""
        folder = self.folder / f"bin{helm}"
        if not folder.exists():
            folder.mkdir()
            (folder / "helm").symlink_to(self.helm3 if helm == "3" else self.helm4)
            (folder / "kubectl").symlink_to(self.kubectl)
        return str(folder)

    def helm(self, *words: str, helm: str = "3") -> str:
        """What a helm says; with homes of its own and the administrator's kubeconfig.

        Raises:
            LabError: it failed.
        """
        home = self.folder / f"helm{helm}"
        environment = os.environ | {"HELM_CACHE_HOME": f"{home}/cache", "HELM_CONFIG_HOME": f"{home}/config"}
        environment |= {"HELM_DATA_HOME": f"{home}/data", "KUBECONFIG": str(self.kubeconfig)}
        return run([f"{self.path(helm)}/helm", *words], environment)

    def chart_file(self, version: str) -> Path:
        """The packaged stub chart of a version: 3.24.0, 3.25.0 or 4.1.0."""
        packed = self.folder / f"{CHART}-{version}.tgz"
        if not packed.exists():
            # 3.24 reads what 3.25 reads: only its version tells them apart here.
            source = CHARTS / f"{CHART}-{'4.1' if version.startswith('4.') else '3.25'}"
            words = ("--version", version, "--app-version", version, "--destination", str(self.folder))
            self.helm("package", str(source), *words)
        return packed

    def requests(self) -> collections.Counter[str]:
        """What kubectl and helm asked since forget_requests(): "get pods" to how often."""
        asked: collections.Counter[str] = collections.Counter()
        with (self.folder / "audit.log").open() as log:
            log.seek(self._audited)
            for line in log:
                event = json.loads(line)
                what = event.get("objectRef", {}).get("resource") or event["requestURI"].split("?")[0]
                asked[f"{event['verb']} {what}"] += 1
        return asked

    def forget_requests(self) -> None:
        """Count requests from here on."""
        self._audited = (self.folder / "audit.log").stat().st_size

    # --- its life

    def stop_api(self) -> None:
        """End the API server, as a node's runtime does that is started anew."""
        self._end("api")

    def start_api(self) -> None:
        """Start the API server; return when it answers."""
        self._start_api()
        self._wait_for_api()

    def pid(self, name: str) -> int | None:
        """The process of etcd, api, controllers, scheduler or registry; None while there is none."""
        process = self._running.get(name)
        return None if process is None else process.pid

    def _certify(self) -> None:
        authority = self.authority = Authority(self.folder)
        hosts = ("127.0.0.1", "10.0.0.1", "localhost")
        authority.issue("server", "kube-apiserver", hosts=hosts)
        authority.key("accounts")
        for name, (common, group) in USERS.items():
            authority.issue(name, common, group)
        configs = {name: authority.kubeconfig(name, self.server) for name in USERS}
        self.kubeconfig = configs["admin"]

    def _begin(self) -> None:
        self._start("etcd", self._programs.etcd, self._etcd_words())
        self.start_api()  # controllers that find it silent for 10 s end
        self._start("registry", self._programs.registry, ["serve", str(self._registry_file())])
        throughput = ["--kube-api-qps=500", "--kube-api-burst=1000", "--leader-elect=false"]
        nobody_asks = ["--port=0", "--secure-port=0"]
        plane, pki = self._programs.plane, self.folder
        controllers = [
            f"--kubeconfig={pki}/controllers.kubeconfig",
            f"--service-account-private-key-file={pki}/accounts.key",
            f"--root-ca-file={pki}/ca.crt",
            f"--controllers={','.join(CONTROLLERS)}",
            "--node-monitor-period=1s",
            "--node-monitor-grace-period=24h",  # played nodes send no heartbeats
        ]
        self._start("controllers", plane / "kube-controller-manager", controllers + throughput + nobody_asks)
        scheduler = [f"--kubeconfig={pki}/scheduler.kubeconfig"]
        self._start("scheduler", plane / "kube-scheduler", scheduler + throughput + nobody_asks)
        for namespace in ("default", "kube-system"):
            wait_for(partial(self._has_account, namespace), START_SECONDS, f"{namespace}'s account")

    def _has_account(self, namespace: str) -> bool:
        """Whether pods can be made there: their service account is, with its token."""
        found = self.api.items(f"/api/v1/namespaces/{namespace}/serviceaccounts")
        return any(account["metadata"]["name"] == "default" and account.get("secrets") for account in found)

    def _etcd_words(self) -> list[str]:
        client, peer = (f"http://127.0.0.1:{self._ports[name]}" for name in ("etcd", "peer"))
        words = [f"--data-dir={self.folder}/etcd", "--unsafe-no-fsync", "--log-level=error"]
        words += [f"--listen-client-urls={client}", f"--advertise-client-urls={client}"]
        words += [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"]
        return [*words, f"--initial-cluster=default={peer}"]

    def _start_api(self) -> None:
        pki = self.folder
        (pki / "audit.yaml").write_text(AUDIT)
        (pki / "audit.log").touch()
        words = [
            f"--etcd-servers=http://127.0.0.1:{self._ports['etcd']}",
            *("--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--insecure-port=0"),
            f"--secure-port={self._ports['api']}",
            *(f"--tls-cert-file={pki}/server.crt", f"--tls-private-key-file={pki}/server.key"),
            f"--client-ca-file={pki}/ca.crt",
            f"--kubelet-client-certificate={pki}/apiserver-client.crt",
            f"--kubelet-client-key={pki}/apiserver-client.key",
            f"--kubelet-certificate-authority={pki}/ca.crt",
            "--kubelet-preferred-address-types=InternalIP",
            *(f"--service-account-{kind}-file={pki}/accounts.key" for kind in ("key", "signing-key")),
            "--service-account-issuer=https://kubernetes.default.svc",
            *("--service-cluster-ip-range=10.0.0.0/24", "--authorization-mode=RBAC"),
            *("--allow-privileged=true", "--profiling=false", "--shutdown-delay-duration=0s"),
            *(f"--audit-policy-file={pki}/audit.yaml", f"--audit-log-path={pki}/audit.log"),
            "--audit-log-mode=blocking",
        ]
        self._start("api", self._programs.plane / "kube-apiserver", words)

    def _registry_file(self) -> Path:
        path = self.folder / "registry.yaml"
        path.write_text(REGISTRY.format(folder=self.folder, port=self._ports["registry"]))
        return path

    def push_charts(self, *versions: str) -> None:
        """Put the stub charts of those versions into the registry."""
        for version in versions:
            self.helm("push", str(self.chart_file(version)), f"oci://{self.registry}/charts", "--plain-http")

    def _start(self, name: str, program: Path, words: Sequence[str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                [str(program), *words],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C is not meant for it
            )

    def _end(self, name: str) -> None:
        process = self._running.pop(name, None)
        if process is not None:
            process.kill()  # nothing of it is to be kept
            process.wait(START_SECONDS)

    def _wait_for_api(self) -> None:
        def ready() -> bool:
            for name, process in list(self._running.items()):
                if process.poll() is not None:
                    raise LabError(f"{name} ended: {self.log(name)[-2000:]}")
            return self.api.answers()

        wait_for(ready, START_SECONDS, "the API server")


def run(command: Sequence[str], environment: dict[str, str] | None = None, stdin: str = "") -> str:
    """What a program writes.

    Raises:
        LabError: it failed; with what it said.
    """
    done = subprocess.run(command, env=environment, input=stdin, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that are free now, and differ."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
