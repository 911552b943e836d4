"""What a host says of itself, parsed strictly. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from nestvirt.backends.host.modprobe import Word, blacklist_lines, install_lines, words
from nestvirt.errors import ConnectionFailed
from nestvirt.printable import printable

MODULES = {"intel": "kvm_intel", "amd": "kvm_amd"}
FLAGS = {"intel": "vmx", "amd": "svm"}
OTHERS = {"vboxdrv": "VirtualBox", "vmmon": "VMware", "xen_evtchn": "Xen"}
"""Modules of hypervisors that take the CPU's virtualization for themselves."""

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class User:
    """A process that holds KVM.

    Attributes:
        name: the VM's; the process's own word for it, where nobody manages it.
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
        return bool(name) and name in (self.name, self.identity, self.key)


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
        loading: what modprobe would do to load the module (``--show-depends``).
        install: places of install lines, which stand in place of loading.
        blacklist: places of blacklist lines, for which it is not loaded by itself.
        paging_words: every place that sets npt or ept, the one that decides last.
    """

    hostname: str
    machine: str
    kernel: str
    vendor: str | None
    model: str
    flags: frozenset[str]
    cmdline: str
    loaded: Mapping[str, int]
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
    loading: tuple[str, ...] = ()
    install: tuple[str, ...] = ()
    blacklist: tuple[str, ...] = ()
    paging_words: tuple[Word, ...] = ()
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
        return None if self.nested is None else self.nested not in ("N", "0")

    @property
    def loadable(self) -> bool:
        """Whether modprobe knows how to load the module once it is unloaded."""
        return any(re.match(r"insmod \S*/kvm[-_](intel|amd)\.ko", line) for line in self.loading)

    @property
    def next(self) -> bool | None:
        """What the next load gives; None where nothing says it, so that it is the kernel's default."""
        return self.deciding.on if self.deciding else None

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
    if parts is None or "end" not in parts:
        raise ConnectionFailed(
            "the host's answer is not the one that was asked for",
            evidence=printable(text[-200:]) or "it said nothing",
            cure="see that the login has a POSIX shell and prints nothing of its own: ssh HOST true",
        )
    situation = _situation(parts)
    return _line(parts, "id") or situation.hostname, situation


def _situation(parts: Mapping[str, str]) -> HostSituation:
    cpu = dict(re.findall(r"^(\w+(?: \w+)?)\s*:\s*(.*)$", parts.get("cpu", ""), re.MULTILINE))
    flags = frozenset(cpu.get("flags", "").split())
    maker = cpu.get("vendor_id", "")
    vendor = {"GenuineIntel": "intel", "AuthenticAMD": "amd", "HygonGenuine": "amd"}.get(maker)
    module = MODULES.get(vendor or "", "none")
    configs = {
        name.removeprefix("config "): body for name, body in parts.items() if name.startswith("config ")
    }
    cmdline = parts.get("cmdline", "").strip()
    integer = _line(parts, "type").endswith("(int)")
    managed = dict(_managed(name, body) for name, body in parts.items() if name.startswith(tuple(_MANAGED)))
    modules = re.findall(r"^(\w+) \d+ (\d+)", parts.get("modules", ""), re.MULTILINE)
    return HostSituation(
        hostname=_line(parts, "hostname"),
        machine=_line(parts, "machine"),
        kernel=_line(parts, "kernel"),
        vendor=vendor,
        model=printable(str(cpu.get("model name") or maker), 100),
        flags=flags,
        cmdline=cmdline,
        loaded={name: int(count) for name, count in modules},
        nested=_line(parts, f"parameter /sys/module/{module}/parameters/nested") or None,
        paging=next((_line(parts, name) for name in parts if re.search("/(ept|npt)$", name)), None),
        module_file=_line(parts, f"file {module}"),
        configs=configs,
        writable=bool(parts.get("writable", "").strip()),
        users=tuple(_user(n, b, managed) for n, b in parts.items() if re.fullmatch("user [0-9]{1,9}", n)),
        image=next((_image(n, body) for n, body in parts.items() if n.startswith("initramfs ")), None),
        tools=frozenset(name.removeprefix("tool ") for name in parts if name.startswith("tool ")),
        sources=tuple(_lines(parts, "sources")),
        said=tuple(_lines(parts, "said")),
        loading=tuple(_lines(parts, "loading")),
        install=tuple(install_lines(configs, module)),
        blacklist=tuple(blacklist_lines(configs, module)),
        paging_words=tuple(words(configs, cmdline, module, "ept" if vendor == "intel" else "npt")),
        words=tuple(words(configs, cmdline, module, "nested", integer=integer)),
    )


def _parts(text: str) -> dict[str, str] | None:
    """The answer's parts; None where it has what reading.sh does not print."""
    parts: dict[str, str] = {}
    name = None
    for line in text.split("\n"):
        if line.startswith("@ "):
            name = line[2:]
            if name in parts:
                return None
            parts[name] = ""
        elif name is not None and line.startswith(" "):
            parts[name] += line[1:] + "\n"
        elif line and name is not None:
            return None  # before the first part it is the login's own noise
    return parts


def _line(parts: Mapping[str, str], name: str) -> str:
    return printable(parts.get(name, "").split("\n")[0], 256)


def _lines(parts: Mapping[str, str], name: str) -> list[str]:
    return [printable(line, 256) for line in parts.get(name, "").split("\n") if line]


_MANAGED = ("libvirt ", "proxmox ")


def _managed(part: str, body: str) -> tuple[int, tuple[str, str, str]]:
    """A VM as the files of who manages it have it: its process, and manager, name and identity."""
    manager, _, name = part.partition(" ")
    form = UUID.search(body) if manager == "libvirt" else re.fullmatch(r"[0-9]{3,9}", name)
    pid = re.match(r"\s*([0-9]{1,9})\s*$", body, re.MULTILINE)
    return int(pid[1]) if pid else 0, (manager, printable(name, 200), form.group() if form else "")


def _user(part: str, body: str, managed: Mapping[int, tuple[str, str, str]]) -> User:
    """A holder of KVM. What it says of itself names it, and makes it nobody's VM."""
    pid = int(part.removeprefix("user "))
    lines = [printable(line, 200) for line in body.split("\n")]
    said = next((lines[i + 1] for i, line in enumerate(lines[:-1]) if i > 0 and line == "-name"), "")
    # QEMU's -name is [guest=]NAME[,OPTION...], with a comma in the name doubled.
    name = re.sub(r"(?<!,),(?!,).*$", "", said.removeprefix("guest=")).replace(",,", ",")
    manager, title, identity = managed.get(pid, ("", "", ""))
    return User(pid, lines[0], title if manager == "libvirt" else name, manager, identity)


def _image(part: str, body: str) -> Image:
    modules = {found.replace("-", "_") for found in re.findall(r"(kvm-(?:intel|amd))\.ko", body)}
    newer = re.findall(r"^newer (\S+)$", body, re.MULTILINE)
    inside = re.sub(r"^newer .*$", "", body, flags=re.MULTILINE)
    configs = re.findall(r"modprobe\.d/([^/\s]+\.conf)", inside)
    path = part.removeprefix("initramfs ")
    return Image(path, frozenset(modules), frozenset(configs), frozenset(newer))
