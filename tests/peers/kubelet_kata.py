"""kata-deploy as it is played: what each release does to a node, and what containerd makes of it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.peers.kubelet_machine import Machine, write

DROP_IN = "/opt/kata/containerd/config.d/kata-deploy.toml"
IMPORTS = f'imports = ["{DROP_IN}"]\n'
PROGRAMS = (
    *("kata-runtime", "containerd-shim-kata-v2", "qemu-system-x86_64"),
    *("cloud-hypervisor", "firecracker", "jailer"),
)
RUNTIME = """\
[plugins."{plugin}".containerd.runtimes.{handler}]
runtime_type = "io.containerd.{handler}.v2"
runtime_path = "{shim}"
privileged_without_host_devices = true
pod_annotations = ["io.katacontainers.*"]
{snapshotter}
[plugins."{plugin}".containerd.runtimes.{handler}.options]
ConfigPath = "{config}"

"""
CONFIGURATION = """\
# This file is generated.
[hypervisor.{hypervisor}]
path = "/opt/kata/bin/{program}"
kernel = "/opt/kata/share/kata-containers/vmlinux.container"
image = "/opt/kata/share/kata-containers/kata-containers.img"
enable_debug = {debug}

[agent.kata]
enable_debug = {debug}
{timeout}
[runtime]
enable_debug = {debug}
"""
HYPERVISORS = {
    "clh": ("clh", "cloud-hypervisor"),
    "cloud-hypervisor": ("cloud-hypervisor", "cloud-hypervisor"),
    "clh-runtime-rs": ("cloud-hypervisor", "cloud-hypervisor"),
    "fc": ("firecracker", "firecracker"),
    "dragonball": ("dragonball", ""),
}


@dataclass(frozen=True)
class Deployed:
    """What a pod of kata-deploy was told by its environment.

    Attributes:
        version: the tag of its image.
        shims: those that it sets up.
    """

    version: tuple[int, ...]
    shims: tuple[str, ...]
    debug: bool
    suffix: str

    @classmethod
    def of(cls, image: str, env: Mapping[str, str]) -> Deployed:
        """Read it."""
        numbers = re.findall(r"\d+", image.rpartition(":")[2]) or ["3", "25"]
        shims = tuple(env.get("SHIMS_X86_64", "").split())
        suffix = env.get("MULTI_INSTALL_SUFFIX", "")
        return cls(tuple(map(int, numbers)), shims, env.get("DEBUG") == "true", suffix)

    @property
    def is_new(self) -> bool:
        """Whether it is of 4.x."""
        return self.version >= (4,)

    @property
    def cleans_each_node(self) -> bool:
        """Whether its pods clean their node when they end; before 3.27 one Job cleans one node."""
        return self.version >= (3, 27)

    def handlers(self) -> tuple[str, ...]:
        """The runtimes that containerd is to know."""
        end = f"-{self.suffix}" if self.suffix else ""
        names = [f"kata-{shim}{end}" for shim in self.shims]
        return (*names, *(f"{name}-debug" for name in names if self.is_new and self.debug))

    def configuration(self, shim: str) -> str:
        """The path of the shim's configuration, relative to /."""
        rust = "runtime-rs/" if _is_rust(shim) else ""
        folder = f"runtimes/{shim}/" if self.is_new else ""
        return f"opt/kata/share/defaults/kata-containers/{rust}{folder}configuration-{shim}.toml"

    def files(self, drop_ins: Mapping[str, str]) -> dict[str, str | None]:
        """Everything that it unpacks and writes below /opt/kata.

        Args:
            drop_ins: shim to a part of its configuration, as the chart's values have it.
        """
        found: dict[str, str | None] = {f"opt/kata/bin/{name}": "#!/bin/sh\n" for name in PROGRAMS}
        found |= {
            f"opt/kata/share/kata-containers/{name}": "x\n"
            for name in ("vmlinux.container", "kata-containers.img")
        }
        found |= {
            "opt/kata/libexec/virtiofsd": "x\n",
            "opt/kata/VERSION": ".".join(map(str, self.version)) + "\n",
        }
        found["opt/kata/runtime-rs/bin/containerd-shim-kata-v2"] = "#!/bin/sh\n"
        found |= {self.configuration(shim): self._configured(shim) for shim in self.shims}
        for shim, text in drop_ins.items():
            folder = self.configuration(shim).rpartition("/")[0]
            found[f"{folder}/config.d/50-user.toml"] = text
        found[DROP_IN.lstrip("/")] = "".join(self._runtime(handler) for handler in self.handlers())
        return found

    def _configured(self, shim: str) -> str:
        hypervisor, program = HYPERVISORS.get(shim, ("qemu", "qemu-system-x86_64"))
        timeout = "reconnect_timeout_ms = 3000\n" if _is_rust(shim) else ""
        debug = "true" if self.debug else "false"
        return CONFIGURATION.format(hypervisor=hypervisor, program=program, timeout=timeout, debug=debug)

    def _runtime(self, handler: str) -> str:
        shim = handler.removeprefix("kata-").removesuffix("-debug").removesuffix(f"-{self.suffix}")
        rust = "runtime-rs/" if _is_rust(shim) else ""
        return RUNTIME.format(
            plugin="io.containerd.grpc.v1.cri",
            handler=handler,
            shim=f"/opt/kata/{rust}bin/containerd-shim-kata-v2",
            config=f"/{self.configuration(shim)}",
            snapshotter='snapshotter = "devmapper"' if shim == "fc" else "",
        )


def _is_rust(shim: str) -> bool:
    return shim in ("dragonball", "cloud-hypervisor") or shim.endswith("-runtime-rs")


def install(
    root: Path, machine: Machine, deployed: Deployed, folder: str, drop_ins: Mapping[str, str]
) -> None:
    """Do to a node what kata-deploy does before it restarts the runtime.

    Args:
        folder: that of containerd's configuration, as the chart has mounted it: rightly or not.
    """
    write(root, deployed.files(drop_ins))
    plain = root / folder / "config.toml"
    plain.parent.mkdir(parents=True, exist_ok=True)
    plain.touch()
    if _generates(folder):
        third = machine.containerd.startswith("2") and deployed.is_new  # older ones do not know that name
        template = plain.with_name("config-v3.toml.tmpl" if third else "config.toml.tmpl")
        if not template.exists():
            shutil.copyfile(plain, template)
        plain = template
    else:
        shutil.copyfile(plain, plain.with_name("config.toml.bak"))
    text = plain.read_text()
    if DROP_IN not in text:
        plain.write_text(IMPORTS + text)


def clean(root: Path, folder: str) -> None:
    """Undo it, as kata-deploy's own cleanup does."""
    shutil.rmtree(root / "opt/kata", ignore_errors=True)
    for name in ("config.toml", "config.toml.tmpl", "config-v3.toml.tmpl"):
        path = root / folder / name
        if path.exists():
            path.write_text(path.read_text().replace(IMPORTS, ""))
            if name.endswith(".tmpl"):
                path.unlink()
    (root / folder / "config.toml.bak").unlink(missing_ok=True)


def restart(root: Path, machine: Machine) -> frozenset[str]:
    """Start the runtime anew; return the handlers that it then knows."""
    plain = root / machine.config / "config.toml"
    if _generates(machine.config):
        third = machine.containerd.startswith("2")
        template = plain.with_name("config-v3.toml.tmpl" if third else "config.toml.tmpl")
        base = plain.read_text().replace(IMPORTS, "")
        plain.write_text(template.read_text() if template.exists() else base)
    config = plain.read_text() if plain.exists() else ""
    drop_in = root / DROP_IN.lstrip("/")
    more = drop_in.read_text() if DROP_IN in config and drop_in.exists() else ""
    return frozenset(re.findall(r'runtimes\."?(kata[\w-]*)"?\]', config + more))


def _generates(folder: str) -> bool:
    """Whether the distribution writes config.toml there anew at each start, from a template if it has one."""
    return "rancher" in folder
