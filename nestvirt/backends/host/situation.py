"""What a host says of itself, parsed strictly. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from nestvirt.backends.host.modprobe import Word, words
from nestvirt.errors import ConnectionFailed
from nestvirt.printable import printable

MODULES = {"intel": "kvm_intel", "amd": "kvm_amd"}
FLAGS = {"intel": "vmx", "amd": "svm"}
OTHERS = {"vboxdrv": "VirtualBox", "vmmon": "VMware", "xen_evtchn": "Xen"}
"""Modules of hypervisors that take the CPU's virtualization for themselves."""

MOST_PARTS = 4000


@dataclass(frozen=True)
class User:
    """A process that holds KVM.

    Attributes:
        name: the VM's, where its command line tells.
        manager: libvirt, proxmox, or empty for one that was started by other means.
        identity: what the manager knows it by, beside its name: the UUID, or the VM's number.
    """

    pid: int
    program: str
    name: str
    manager: str = ""
    identity: str = ""

    def __str__(self) -> str:
        return f"{self.name or self.program} (pid {self.pid})"

    @property
    def key(self) -> str:
        """What it can be shut down and started by: manager and identity; empty where nothing can."""
        return f"{self.manager}:{self.identity}" if self.manager and self.identity else ""

    def is_called(self, name: str) -> bool:
        """Whether a person means it by that name."""
        return bool(name) and name in (self.name, self.identity)


@dataclass(frozen=True)
class Image:
    """The initramfs of the running kernel.

    Attributes:
        modules: kvm_intel, kvm_amd, where it has them.
        configs: names of the modprobe.d files in it.
        newer: paths of modprobe.d files that were written after it was built.
    """

    path: str
    modules: frozenset[str]
    configs: frozenset[str]
    newer: frozenset[str] = frozenset()


@dataclass(frozen=True)
class HostSituation:
    """One host.

    Attributes:
        vendor: intel, amd, or None for another.
        loaded: module name to the number of its users.
        nested: the parameter in effect, Y, N, 1, 0; None where no module is loaded.
        paging: npt or ept as it is in effect.
        module_file: where the vendor's module is; ``(builtin)``; empty where the kernel has none.
        configs: every file of modprobe.d; its text only where it speaks of kvm.
        offers: whether KVM says that its VMs may have vmx or svm; None where it was not asked.
        tools: programs that are there, of those that build an initramfs or a boot entry.
        sources: ``path:line`` of files that the boot loader's command line is made from and that set nested.
        said: the kernel's last lines about kvm.
    """

    hostname: str
    machine: str
    kernel: str
    system: frozenset[str]
    vendor: str | None
    model: str
    flags: frozenset[str]
    cmdline: str
    loaded: Mapping[str, int]
    device: bool
    nested: str | None
    paging: str | None
    module_file: str
    configs: Mapping[str, str]
    writable: bool
    users: tuple[User, ...]
    image: Image | None
    tools: frozenset[str]
    sources: tuple[str, ...] = ()
    said: tuple[str, ...] = ()
    offers: bool | None = None
    offers_evidence: str = ""
    words: tuple[Word, ...] = field(default=())

    @property
    def module(self) -> str | None:
        """The kvm module of this CPU's vendor."""
        return MODULES.get(self.vendor or "")

    @property
    def built_in(self) -> bool:
        """Whether the module is part of the kernel, so that modprobe.d does not count."""
        return self.module_file == "(builtin)"

    @property
    def on(self) -> bool | None:
        """Whether nesting is in effect; None where no module is loaded."""
        return None if self.nested is None else self.nested in ("Y", "1")

    @property
    def next(self) -> bool | None:
        """What the next load gives; None where nothing says it, so that it is the kernel's default."""
        counting = [word for word in self.words if not (self.built_in and word.line)]
        return counting[-1].on if counting else None

    @property
    def deciding(self) -> Word | None:
        """The place that decides it."""
        counting = [word for word in self.words if not (self.built_in and word.line)]
        return counting[-1] if counting else None


def parse(text: str) -> tuple[str, HostSituation]:
    """Read the answer of reading.sh.

    Returns:
        The machine's id, and what it said.

    Raises:
        ConnectionFailed: it is not that answer.
    """
    parts = _parts(text)
    if "end" not in parts or len(parts) > MOST_PARTS:
        raise ConnectionFailed(
            "the host's answer is not the one that was asked for",
            evidence=printable(text[-200:]) or "it said nothing",
            cure="see that the login has a POSIX shell and prints nothing of its own: ssh HOST true",
        )
    cpu = dict(re.findall(r"^(\w+(?: \w+)?)\s*:\s*(.*)$", parts.get("cpu", ""), re.MULTILINE))
    flags = frozenset(cpu.get("flags", "").split())
    maker = cpu.get("vendor_id", "")
    vendor = {"GenuineIntel": "intel", "AuthenticAMD": "amd", "HygonGenuine": "amd"}.get(maker)
    module = MODULES.get(vendor or "", "none")
    configs = {
        name.removeprefix("config "): body for name, body in parts.items() if name.startswith("config ")
    }
    cmdline = parts.get("cmdline", "").strip()
    modules = re.findall(r"^(\w+) \d+ (\d+)", parts.get("modules", ""), re.MULTILINE)
    situation = HostSituation(
        hostname=_line(parts, "hostname"),
        machine=_line(parts, "machine"),
        kernel=_line(parts, "kernel"),
        system=frozenset(re.findall(r"[a-z]+", parts.get("system", "").lower())) - {"id", "like"},
        vendor=vendor,
        model=printable(str(cpu.get("model name") or maker), 100),
        flags=flags,
        cmdline=cmdline,
        loaded={name: int(count) for name, count in modules},
        device="/dev/kvm" in parts.get("device", ""),
        nested=_line(parts, f"parameter /sys/module/{module}/parameters/nested") or None,
        paging=next((_line(parts, name) for name in parts if re.search("/(ept|npt)$", name)), None),
        module_file=_line(parts, f"file {module}"),
        configs=configs,
        writable=bool(parts.get("writable", "").strip()),
        users=tuple(_user(name, body) for name, body in parts.items() if name.startswith("user ")),
        image=next((_image(n, body) for n, body in parts.items() if n.startswith("initramfs ")), None),
        tools=frozenset(name.removeprefix("tool ") for name in parts if name.startswith("tool ")),
        sources=tuple(_lines(parts, "sources")),
        said=tuple(_lines(parts, "said")),
        words=tuple(words(configs, cmdline, module, "nested")),
    )
    return _line(parts, "id") or situation.hostname, situation


def _parts(text: str) -> dict[str, str]:
    parts: dict[str, str] = {}
    name = None
    for line in text.split("\n"):
        if line.startswith("@ "):
            name = line[2:]
            parts[name] = ""
        elif name is not None and line.startswith(" "):
            parts[name] += line[1:] + "\n"
    return parts


def _line(parts: Mapping[str, str], name: str) -> str:
    return printable(parts.get(name, "").split("\n")[0], 256)


def _lines(parts: Mapping[str, str], name: str) -> list[str]:
    return [printable(line, 256) for line in parts.get(name, "").split("\n") if line]


def _user(part: str, body: str) -> User:
    lines = [printable(line, 200) for line in body.split("\n")]
    said = {line: lines[i + 1] for i, line in enumerate(lines[:-1]) if line in ("-name", "-id", "-uuid")}
    option = said.get("-name", "")
    # QEMU's -name is [guest=]NAME[,OPTION...], with a comma in the name doubled.
    name = re.sub(r"(?<!,),(?!,).*$", "", option.removeprefix("guest=")).replace(",,", ",")
    manager, identity = "", ""
    if said.get("-id", "").isdecimal():
        manager, identity = "proxmox", said["-id"]
    elif option.startswith("guest=") and "-uuid" in said:
        manager, identity = "libvirt", said["-uuid"]
    pid = part.removeprefix("user ")
    return User(int(pid) if pid.isdecimal() else 0, lines[0], name, manager, identity)


def _image(part: str, body: str) -> Image:
    modules = {found.replace("-", "_") for found in re.findall(r"(kvm-(?:intel|amd))\.ko", body)}
    newer = re.findall(r"^newer (\S+)$", body, re.MULTILINE)
    inside = re.sub(r"^newer .*$", "", body, flags=re.MULTILINE)
    configs = re.findall(r"modprobe\.d/([^/\s]+\.conf)", inside)
    path = part.removeprefix("initramfs ")
    return Image(path, frozenset(modules), frozenset(configs), frozenset(newer))
