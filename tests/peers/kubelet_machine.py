"""A played node's machine: what it is like, and the files in which it says so."""

from __future__ import annotations

import os
import re
import stat
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.peers.guest_answers import BROKEN, NO_FLAG, WORKS, probe_answer

DIRECTORIES = {
    "k8s": "etc/containerd",
    "k3s": "var/lib/rancher/k3s/agent/etc/containerd",
    "rke2": "var/lib/rancher/rke2/agent/etc/containerd",
    "k0s": "etc/k0s",
    "microk8s": "var/snap/microk8s/current/args",
}
KUBELETS = {"rke2": "v1.30.6+rke2r1", "k3s": "v1.30.6+k3s1", "k0s": "v1.30.6+k0s.0"}
UNITS = {
    "rke2": "rke2-agent",
    "k3s": "k3s-agent",
    "k0s": "k0sworker",
    "microk8s": "snap.microk8s.daemon-containerd",
}

# The node's programs that say what the machine is told to say, and note what they were asked.
NOTE = '#!/bin/sh\necho "${0##*/} $*" 2>/dev/null >>/played.log\n'
PYTHON = "#!/bin/sh\n[ ! -p /dev/stdin ] || :\nexec cat /var/lib/played/probe.json\n"
SYSTEMCTL = f"""{NOTE}for unit; do :; done
[ "$1" != is-active ] || [ -e "/var/lib/played/units/${{unit%.service}}" ]
"""
CTR = f"{NOTE}exec cat /var/lib/played/plugins\n"
PLUGINS = """\
TYPE                            ID                       PLATFORMS      STATUS
io.containerd.snapshotter.v1    devmapper                linux/amd64    {devmapper}
io.containerd.snapshotter.v1    overlayfs                linux/amd64    ok
io.containerd.grpc.v1           cri                      linux/amd64    ok
"""
CPUINFO = """\
processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 106
model name\t: Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz
flags\t\t: fpu vme de pse tsc msr pae cx8 sep pge cmov pat clflush mmx fxsr sse sse2 ht nx lm sse4_1{more}

"""


@dataclass(frozen=True)
class Machine:
    """What a node is like; sound unless told otherwise.

    Attributes:
        distribution: rke2, k3s, k8s, k0s or microk8s.
        kubelet: its version; empty for one of that distribution.
        kvm: "works", or what is wrong: "no-flag", "no-device", "no-module", "broken" (a VM cannot be made).
        python: whether it has one; it prints the probe's answer, whatever it is given.
        virtual: it is a VM itself.
        vhost_vsock: "present", "missing" or "busy" (VMware's transport holds it).
        devmapper: whether containerd has that snapshotter.
        control_plane: it has that role's label and taint.
        ready: what its kubelet says of it.
        schedulable: not cordoned.
        labels: further ones.
        files: path to text, over those that are made; None for a file that is not there.
    """

    distribution: str = "rke2"
    kubelet: str = ""
    containerd: str = "1.7.23-k3s2"
    kernel: str = "5.14.0-427.13.1.el9_4.x86_64"
    boot_id: str = ""
    kvm: str = "works"
    python: bool = True
    virtual: bool = True
    selinux: str = "Disabled"
    devmapper: bool = False
    vhost_vsock: str = "present"
    control_plane: bool = False
    ready: bool = True
    schedulable: bool = True
    labels: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """The kubelet's."""
        return self.kubelet or KUBELETS.get(self.distribution, "v1.30.6")

    def boot(self, name: str) -> str:
        """The boot id of a node of that name."""
        return self.boot_id or str(uuid.uuid5(uuid.NAMESPACE_DNS, name))

    @property
    def config(self) -> str:
        """containerd's directory, relative to /."""
        return DIRECTORIES[self.distribution]

    @property
    def units(self) -> tuple[str, ...]:
        """The services that run: a server node of rke2 and k3s has another than a worker."""
        unit = UNITS.get(self.distribution, "containerd")
        return (unit.replace("-agent", "-server") if self.control_plane else unit,)


def kernel_files(
    kernel: str, boot_id: str, host: str, flags: str, modules: tuple[str, ...]
) -> dict[str, str]:
    """What /proc says of a kernel and its CPU."""
    text = f"Linux version {kernel} (build@lab) (gcc 11.4.1) #1 SMP PREEMPT_DYNAMIC"
    return {
        "proc/version": f"{text}\n",
        "proc/sys/kernel/ostype": "Linux\n",
        "proc/sys/kernel/osrelease": f"{kernel}\n",
        "proc/sys/kernel/version": "#1 SMP PREEMPT_DYNAMIC\n",
        "proc/sys/kernel/hostname": f"{host}\n",
        "proc/sys/kernel/random/boot_id": f"{boot_id}\n",
        "proc/cmdline": "quiet\n",
        "proc/cpuinfo": CPUINFO.format(more=flags),
        "proc/modules": "".join(f"{name} 16384 0 - Live 0x0000000000000000\n" for name in modules),
        "proc/mounts": "/dev/vda / ext4 rw,relatime 0 0\n",
        "proc/uptime": "4242.42 4242.42\n",
    }


def lay_out(root: Path, name: str, machine: Machine) -> None:
    """Write the machine's files below its /."""
    flags = (" vmx" if machine.kvm != "no-flag" else "") + (" hypervisor" if machine.virtual else "")
    modules = _modules(machine)
    files: dict[str, str | None] = dict(
        kernel_files(machine.kernel, machine.boot(name), name, flags, modules)
    )
    files["proc/misc"] = ("232 kvm\n" if "kvm" in modules else "") + "238 vhost-net\n"
    files |= (
        _systems(machine) | _programs(machine) | {f"sys/module/{module}/refcnt": "0\n" for module in modules}
    )
    if "kvm_intel" in modules:
        files |= {
            "sys/module/kvm_intel/parameters/nested": "Y\n",
            "sys/module/kvm_intel/parameters/ept": "Y\n",
        }
    files[f"lib/modules/{machine.kernel}/modules.dep"] = (
        "kernel/drivers/vhost/vhost_net.ko.xz:\nkernel/drivers/vhost/vhost_vsock.ko.xz:\n"
    )
    files |= machine.files
    for folder in (
        "bin",
        "dev",
        "opt",
        "run",
        "sys/module",
        "tmp",
        "usr/local/bin",
        "var/log",
        machine.config,
    ):
        (root / folder).mkdir(parents=True, exist_ok=True)
    write(root, files)
    _devices(root / "dev", machine)


def write(root: Path, files: Mapping[str, str | None]) -> None:
    """Write files; those below a bin folder can be run."""
    for path, text in files.items():
        target = root / path
        if text is None:
            target.unlink(missing_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        if re.search(r"(^|/)s?bin/[^/]+$", path):
            target.chmod(0o755)


def _modules(machine: Machine) -> tuple[str, ...]:
    found = ["vhost", "vhost_net"]
    if machine.kvm in ("works", "broken", "no-device"):
        found += ["kvm", "kvm_intel"]
    vsock = {"present": ("vhost_vsock", "vsock"), "busy": ("vmw_vsock_vmci_transport", "vmw_vmci", "vsock")}
    return (*found, *vsock.get(machine.vhost_vsock, ()))


def _systems(machine: Machine) -> dict[str, str | None]:
    """Its hypervisor, its distribution, its containerd."""
    vendor, product = ("VMware, Inc.", "VMware20,1") if machine.virtual else ("Dell Inc.", "PowerEdge R760")
    units = {f"var/lib/played/units/{unit}": "" for unit in machine.units}
    enforcing = {"Enforcing": "1", "Permissive": "0"}.get(machine.selinux)
    generated = "# File generated by rke2. DO NOT EDIT.\n" if "rancher" in machine.config else ""
    version = 3 if machine.containerd.startswith("2") else 2
    return {
        "sys/class/dmi/id/sys_vendor": f"{vendor}\n",
        "sys/class/dmi/id/product_name": f"{product}\n",
        "sys/fs/selinux/enforce": enforcing,
        "etc/os-release": 'PRETTY_NAME="Lab Linux 9"\nID=lab\nVERSION_ID=9\n',
        "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
        f"{machine.config}/config.toml": f'{generated}version = {version}\nroot = "/var/lib/containerd"\n',
        **units,
    }


def _programs(machine: Machine) -> dict[str, str | None]:
    status = "ok" if machine.devmapper else "error"
    inside = {"works": WORKS, "no-flag": NO_FLAG}.get(machine.kvm, BROKEN)
    ctr = {f"{folder}/ctr": CTR for folder in ("usr/bin", "var/lib/rancher/rke2/bin")}
    return {
        "usr/bin/python3": PYTHON if machine.python else None,
        "usr/bin/systemctl": SYSTEMCTL,
        "usr/sbin/modprobe": NOTE,
        "usr/local/bin/k3s": CTR,
        "usr/local/bin/k0s": CTR,
        "snap/bin/microk8s.ctr": CTR,
        "var/lib/played/plugins": PLUGINS.format(devmapper=status),
        "var/lib/played/probe.json": f"{probe_answer(inside)}\n",
        **ctr,
    }


def _devices(folder: Path, machine: Machine) -> None:
    """Character devices with the numbers of the real ones; /dev/null is one."""
    numbers = {"null": (1, 3), "zero": (1, 5), "vhost-net": (10, 238)}
    if machine.kvm in ("works", "broken"):
        numbers["kvm"] = (10, 232)
    if machine.vhost_vsock != "missing":
        numbers["vhost-vsock"] = (10, 241)
    for name, (major, minor) in numbers.items():
        os.mknod(folder / name, stat.S_IFCHR | 0o600, os.makedev(major, minor))
        (folder / name).chmod(0o666 if name in ("null", "zero") else 0o660)
