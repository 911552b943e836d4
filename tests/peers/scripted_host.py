"""A KVM host that keeps the rules of the real one, for the tests that break off at every single command.

Its module reads its parameter when it is loaded and cannot be unloaded while a VM runs. The real host is in
tests.lab.kvmhost; it takes seconds a command.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from nestvirt.backends.host.modprobe import words
from nestvirt.errors import GuestUnreachable
from nestvirt.guest.channel import Completed
from tests.peers.guest_answers import WORKS, probe_answer

IDENTITY = "3d1219c7c4c5404aaa1f6d2a48adfda4"
SAID = """@ hostname
 node1
@ id
 {identity}
@ machine
 x86_64
@ kernel
 6.1.0-1-amd64
@ cpu
 vendor_id\t: AuthenticAMD
 model name\t: AMD EPYC
 flags\t\t: svm
@ modules
{modules}@ type
 nested: (int)
@ loading
 insmod /lib/modules/6.1.0-1-amd64/kernel/arch/x86/kvm/kvm-amd.ko
@ file kvm_amd
 /lib/modules/6.1.0-1-amd64/kernel/arch/x86/kvm/kvm-amd.ko
{further}@ writable
 /etc/modprobe.d
@ end
"""


@dataclass
class ScriptedHost:
    """The host's state, and what is done to it.

    Attributes:
        files: those of modprobe.d.
        nested: the parameter in effect; None while the module is not loaded.
        vms: VMs of libvirt by UUID: whether each runs.
        elsewhere: whether the VM that a test's own hypervisor has on this host runs.
        broken: VMs that do not start.
        deaf: VMs that do not shut down when they are asked to.
        commands: how many there have been.
        interrupt: called before and after each command with its number and ``after``.
    """

    files: dict[str, str]
    nested: str | None = "0"
    vms: dict[str, bool] = field(default_factory=dict)
    elsewhere: Callable[[], bool] = field(default=lambda: False)
    broken: set[str] = field(default_factory=set)
    deaf: set[str] = field(default_factory=set)
    commands: int = 0
    interrupt: Callable[[int, bool], None] = field(default=lambda _number, _after: None)

    name = "scripted"

    def ping(self, *, timeout: float) -> None:
        """See Channel."""

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float) -> Completed:
        """See Channel; what becomes of the command is the test's to say."""
        number = self.commands
        self.commands += 1
        self.interrupt(number, False)
        words_of_root = (
            list(argv[4:]) if list(argv[:2]) == ["sh", "-c"] and 'exec "$@"' in argv[2] else list(argv)
        )
        done = self._done(words_of_root, stdin)
        self.interrupt(number, True)
        return done

    def _done(self, argv: list[str], stdin: bytes) -> Completed:
        match argv:
            case ["id", "-u"]:
                return _said("0\n")
            case ["sh", "-s"]:
                return _said(self._reading())
            case ["python3", *_]:
                return _said(probe_answer(WORKS))
            case ["modprobe", "-r", _]:
                return self._unload()
            case ["modprobe", _, *parameters]:
                return self._load(parameters)
            case ["cat", path]:
                text = self.nested if path.startswith("/sys/") else self.files.get(path)
                return _said(text) if text is not None else Completed(1, b"", b"No such file")
            case ["test", "-e", _]:
                return Completed(0 if self.nested else 1, b"", b"")
            case ["sh", "-c", _, _, path, _]:
                self.files.pop(path, None)
                if stdin:
                    self.files[path] = stdin.decode()
                return _said("")
            case ["virsh", "-q", "-c", _, order, "--domain", vm]:
                return self._virsh(order, vm)
        raise AssertionError(f"no such command: {argv}")

    def _reading(self) -> str:
        pids = {vm: 100 + number for number, vm in enumerate(self.vms)}
        running = [vm for vm, on in self.vms.items() if on]
        further = "".join(
            f"@ config {path}\n" + "".join(f" {line}\n" for line in text.splitlines())
            for path, text in self.files.items()
        )
        if self.nested is not None:
            further += f"@ parameter /sys/module/kvm_amd/parameters/nested\n {self.nested}\n"
        further += "".join(f"@ libvirt vm{pids[vm]}\n {pids[vm]}\n <uuid>{vm}</uuid>\n" for vm in running)
        further += "".join(f"@ user {pids[vm]}\n qemu\n" for vm in running)
        modules = "" if self.nested is None else f" kvm_amd 126976 {len(running)} - Live 0x0\n"
        return SAID.format(identity=IDENTITY, modules=modules, further=further)

    def _unload(self) -> Completed:
        if any(self.vms.values()) or self.elsewhere():
            return Completed(1, b"", b"modprobe: FATAL: Module kvm_amd is in use.\n")
        self.nested = None
        return _said("")

    def _load(self, parameters: Sequence[str]) -> Completed:
        if self.nested is None:
            configured = [word.value for word in words(self.files, "", "kvm_amd", "nested")]
            given = [word.partition("=")[2] for word in parameters]
            self.nested = [*("1",), *configured, *given][-1]
        return _said("")

    def _virsh(self, order: str, vm: str) -> Completed:
        if order == "dominfo":
            return _said("Persistent:     yes\n")
        if order == "domstate":
            return _said("running\n" if self.vms[vm] else "shut off\n")
        if order == "start" and (self.nested is None or vm in self.broken):
            return Completed(1, b"", b"error: Failed to start domain")
        if order != "shutdown" or vm not in self.deaf:
            self.vms[vm] = order == "start"
        return _said("")

    def seen(self) -> str:
        """All of its state, to compare."""
        return json.dumps([self.files, self.nested, self.vms], sort_keys=True)


def lost() -> GuestUnreachable:
    """What a connection that is gone raises."""
    return GuestUnreachable("SSH to node1 failed", evidence="Broken pipe", cure="try again")


def _said(text: str) -> Completed:
    return Completed(0, text.encode(), b"")
