"""The README's examples are real: its commands are run on a VM like the reader's, and print what it shows.

``python -m tests.e2e.test_readme`` writes the output anew.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.shown import without_figures
from tests.lab.k8s import ControlPlane
from tests.lab.kvmhost import KvmHost
from tests.lab.libvirtd import LibvirtLab
from tests.peers.hyperv.model import GIB, Guest
from tests.peers.hyperv_rig import HyperVLab, HyperVRig
from tests.peers.kubelet import Cluster, Kubelets, Machine
from tests.peers.proxmox_rig import ProxmoxRig
from tests.peers.pve_server import serve
from tests.peers.vsphere import VSphere
from tests.peers.winrm.pki import Certificates

README = Path(__file__).parents[2] / "README.md"
CONFIGURATION = re.compile(r"^```yaml\n# (?P<path>config/dev\.yaml)\n(?P<text>(?:.*\n)*?)```$", re.MULTILINE)
EXAMPLE = re.compile(r"^```console\n\$ (?P<command>nestvirt .*)\n(?P<output>(?:.*\n)*?)```$", re.MULTILINE)
VM, HOST = "web-01", "node1"
VMX = f'.encoding = "UTF-8"\nconfig.version = "8"\nvirtualHW.version = "19"\ndisplayName = "{VM}"\n'


@dataclass
class Places:
    """Where the reader's VMs are."""

    lab: LibvirtLab
    host: KvmHost
    vsphere: VSphere
    hyperv: HyperVLab
    cluster: Cluster


def outputs(places: Places, state: Path) -> list[str]:
    """What the README's commands print, in order: on VMs that run without it, a host that forbids it, and a
    cluster of which one node is such a VM."""
    lab, host = places.lab, places.host
    host.reload()
    host.write("/etc/modprobe.d/kvm.conf", "options kvm_amd nested=0\n")
    host.sh("modprobe -r kvm_amd; modprobe kvm_amd")
    ssh_config = state / "ssh_config"
    ssh_config.write_text(host.ssh_config.read_text().replace(f"Host {host.name}", f"Host {HOST}"))
    lab.define(VM, svm=False)
    lab.start(VM)
    lab.wait_agent(VM)
    with serve() as served:
        rig = ProxmoxRig(served)
        served.pve.add(VM, running=True, cpu="x86-64-v2-AES")
        environment = {
            **os.environ,
            "NESTVIRT_CONFIG": os.devnull,
            "NESTVIRT_STATE_DIR": str(state),
            "LIBVIRT_DEFAULT_URI": lab.uri,
            "PROXMOX_VE_ENDPOINT": served.url,
            "PROXMOX_VE_API_TOKEN": rig.token,
            "PROXMOX_CA_PATH": served.ca_file,
            "NESTVIRT_HOST_SSH_CONFIG": str(ssh_config),
        }
        environment |= for_vmware(places.vsphere, state) | for_hyperv(places.hyperv, state)
        environment |= for_the_cluster(places.cluster, state)
        return printed_in(environment, state)


def for_vmware(lab: VSphere, folder: Path) -> dict[str, str]:
    """A VM that runs on a vCenter, and one that is a folder with its file."""
    lab.make(VM)
    (folder / "vcenter-ca.pem").symlink_to(lab.ca_file)
    (folder / VM).mkdir()
    (folder / VM / f"{VM}.vmx").write_text(VMX)
    server = {"VSPHERE_SERVER": lab.address, "VSPHERE_USER": lab.user, "VSPHERE_PASSWORD": lab.password}
    guest = {"USERNAME": lab.guest_user, "PASSWORD": lab.guest_password}
    return server | {f"NESTVIRT_VSPHERE_GUEST_{name}": value for name, value in guest.items()}


def for_hyperv(lab: HyperVLab, folder: Path) -> dict[str, str]:
    """A VM with dynamic memory that runs on a Windows host."""
    rig = HyperVRig(lab)
    rig.make(name=VM, dynamic=True, startup=8 * GIB)
    (folder / "example-ca.pem").symlink_to(lab.endpoint.certificates.ca_file)
    server = {
        "ENDPOINT": rig.endpoint["endpoint"],
        "USERNAME": lab.endpoint.user,
        "PASSWORD": lab.endpoint.password,
    }
    guest = {"GUEST_USERNAME": Guest().user, "GUEST_PASSWORD": Guest().password}
    return {f"NESTVIRT_HYPERV_{name}": value for name, value in (server | guest).items()}


def for_the_cluster(cluster: Cluster, folder: Path) -> dict[str, str]:
    """Three nodes, of which one has no vmx or svm; in the folder, the README's own file, and the chart."""
    for name, kvm in (("worker-1", "works"), ("worker-2", "works"), ("worker-3", "no-flag")):
        cluster.add(name, Machine(kvm=kvm))
    shown = CONFIGURATION.search(README.read_text(encoding="utf-8"))
    assert shown is not None
    (folder / "config").mkdir()
    (folder / shown["path"]).write_text(shown["text"])
    chart = cluster.plane.chart_file("3.25.0")
    (folder / chart.name).symlink_to(chart)
    path = f"{cluster.plane.path()}{os.pathsep}{os.environ['PATH']}"
    return {"KUBECONFIG": cluster.kubeconfig, "PATH": path, "HELM_CACHE_HOME": str(folder / "helm")}


def printed_in(environment: dict[str, str], folder: Path) -> list[str]:
    """What the README's commands print in that environment and folder."""
    texts = []
    for example in EXAMPLE.finditer(README.read_text(encoding="utf-8")):
        program, *arguments = shlex.split(example["command"])
        command = [str(Path(sys.executable).with_name(program)), *arguments]
        done = subprocess.run(
            command,
            env=environment,
            cwd=folder,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            timeout=300,
        )
        told = done.stdout.replace(str(folder), "/home/USER/vmware")
        texts.append("\n".join(line.rstrip() for line in told.splitlines()) + "\n")
    return texts


def test_commands_print_what_the_readme_shows(
    libvirt_lab: LibvirtLab,
    kvm_host: KvmHost,
    vcenter: VSphere,
    hyperv_lab: HyperVLab,
    cluster: Cluster,
    tmp_path: Path,
) -> None:
    shown = [example["output"] for example in EXAMPLE.finditer(README.read_text(encoding="utf-8"))]
    assert len(shown) >= 10
    printed = outputs(Places(libvirt_lab, kvm_host, vcenter, hyperv_lab, cluster), tmp_path)
    libvirt_lab.remove(VM)
    kvm_host.reload()
    for now, then in zip(printed, shown, strict=True):
        assert without_figures(now) == without_figures(then)


def write() -> None:
    """Put the real output into the README."""
    with (
        LibvirtLab() as lab,
        KvmHost() as host,
        VSphere() as vsphere,
        Certificates() as certificates,
        HyperVLab(certificates) as hyperv,
        ControlPlane() as plane,
        Kubelets(plane) as kubelets,
        tempfile.TemporaryDirectory() as state,
    ):
        printed = iter(outputs(Places(lab, host, vsphere, hyperv, Cluster(kubelets)), Path(state)))
    text = README.read_text(encoding="utf-8")
    text = EXAMPLE.sub(lambda match: f"```console\n$ {match['command']}\n{next(printed)}```", text)
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
