"""Boots a machine of the bank and gives back what the probe and its peers say in it."""

from __future__ import annotations

import base64
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab import LabError
from tests.lab.artifacts import OURS, artifacts, guest_packages
from tests.lab.cpio import Entry, pack
from tests.lab.machines import Bochs, GuestOf, Here, Machine, Tcg

PROBE = Path(__file__).parents[2] / "nestvirt/guest/probe.py"
ISOLINUX = (Path("/usr/lib/ISOLINUX/isolinux.bin"), Path("/usr/lib/syslinux/modules/bios/ldlinux.c32"))
FIRMWARE = (Path("/usr/share/seabios/bios-256k.bin"), *Path("/usr/share/qemu").glob("*boot_dma.bin"))
BOCHS_BIOS = Path("/usr/share/bochs/BIOS-bochs-latest")
BOCHS_VGA = Path("/usr/share/bochs/VGABIOS-lgpl-latest")
BOOT_SECONDS = 300  # a machine that has not switched itself off by then hangs

BOCHSRC = """\
config_interface: textconfig
display_library: term
plugin_ctrl: unmapped=true, biosdev=true, speaker=false, extfpuirq=true, parallel=false, serial=true
romimage: file={folder}/bios
vgaromimage: file={vga}
cpu: model={model}, count=1, ips=100000000, reset_on_triple_fault=0, ignore_bad_msrs=1
{cpuid}
memory: guest=384, host=384
ata0: enabled=true, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path={folder}/boot.iso, status=inserted
boot: cdrom
clock: sync=none, time0=local
com1: enabled=true, mode=file, dev={folder}/serial
{com2}
log: {folder}/bochs.log
panic: action=fatal
error: action=report
info: action=ignore
debug: action=ignore
"""


@dataclass(frozen=True)
class Said:
    """What one program said about a machine."""

    code: int
    text: str


@dataclass(frozen=True)
class Seen:
    """What all of them said, and how long the machine took from nothing to switched off."""

    probe: dict[str, Any]
    kvm_ok: Said
    virt_host_validate: Said
    seconds: float

    def status(self, check: str) -> str | None:
        """The status of one of the probe's findings."""
        return next((f["status"] for f in self.probe["findings"] if f["check"] == check), None)

    def faults(self, machine: Machine) -> list[str]:
        """Where the probe did not say what is true of the machine."""
        expected = {"verdict": machine.verdict, "cause": machine.cause} if machine.verdict else {}
        said = {key: self.probe[key] for key in expected}
        said |= {check: self.status(check) for check in machine.statuses}
        wanted = {**expected, **machine.statuses}
        return [f"{key} is {said[key]}, not {right}" for key, right in wanted.items() if said[key] != right]


def missing(machine: Machine) -> list[str]:
    """The programs that this machine cannot be brought up without and that are not installed."""
    wanted = {Tcg: [], GuestOf: [], Here: [], Bochs: ["bochs-bin", "xorriso"]}[type(machine.boot)]
    return [name for name in ("qemu-system-x86_64", "virt-host-validate", *wanted) if not shutil.which(name)]


def look(machine: Machine) -> Seen:
    """Boot a machine, and ask.

    Raises:
        LabError: it did not come up, or did not switch itself off.
    """
    started = time.monotonic()
    if isinstance(machine.boot, Here):
        said = {name: _run(command) for name, command in _here().items()}
    else:
        said = _parsed(_console(machine))
    return Seen(
        probe=_json(said["nestvirt"]),
        kvm_ok=said["kvm-ok"],
        virt_host_validate=said["virt-host-validate"],
        seconds=time.monotonic() - started,
    )


def _json(said: Said) -> dict[str, Any]:
    try:
        answer = json.loads(said.text)
    except ValueError:
        raise LabError(f"the probe exited {said.code} and said: {said.text[-1000:]}") from None
    assert isinstance(answer, dict)
    return answer


def _parsed(console: str) -> dict[str, Said]:
    lines = re.findall(r"lab> (\S+) (\d+) (\S*)", console)
    said = {
        name: Said(int(code), base64.b64decode(text).decode(errors="replace")) for name, code, text in lines
    }
    if said.keys() < {"nestvirt", "kvm-ok", "virt-host-validate"}:
        raise LabError(f"the machine did not say everything; its console ends: {console[-1000:]}")
    return said


def _here() -> dict[str, list[str]]:
    return {
        "nestvirt": [sys.executable, "-I", str(PROBE)],
        "kvm-ok": ["sh", str(guest_packages() / "usr/sbin/kvm-ok")],
        "virt-host-validate": ["virt-host-validate", "qemu"],
    }


def _run(command: Sequence[str]) -> Said:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=BOOT_SECONDS)
    return Said(done.returncode, done.stdout.decode(errors="replace"))


def _console(machine: Machine) -> str:
    """What the machine writes to its serial line from power-on to power-off."""
    with tempfile.TemporaryDirectory(prefix="nv-bank-") as scratch:
        folder = Path(scratch)
        guest = artifacts()
        initrd = guest.initramfs.read_bytes() + peers() + pack(_scenario(machine))
        boot = machine.boot
        if isinstance(boot, GuestOf):
            inner = [Entry("nv/vmlinuz", guest.kernel.read_bytes()), Entry("nv/initrd", initrd)]
            run = [
                Entry("nv/prepare", boot.host_prepare.encode()),
                Entry("nv/run", (OURS / "host").read_bytes()),
            ]
            initrd = guest.initramfs.read_bytes() + pack([*_qemu_itself(), *inner, *run])
        (folder / "initrd").write_bytes(initrd)
        shutil.copyfile(guest.kernel, folder / "vmlinuz")
        append = "console=ttyS0 quiet panic=-1" + ("" if machine.modules else " nv.modules=no")
        if isinstance(boot, Bochs):
            return _watch(in_bochs(folder, boot, append), folder)
        assert isinstance(boot, Tcg | GuestOf)
        tcg, memory = (boot, 512) if isinstance(boot, Tcg) else (boot.host, 1536)
        return _tcg(folder, tcg, memory, append)


def _scenario(machine: Machine) -> list[Entry]:
    return [
        Entry("nv/probe.py", PROBE.read_bytes()),
        Entry("nv/user", machine.user.encode()),
        Entry("nv/prepare", machine.prepare.encode()),
        Entry("nv/given", machine.given.encode()),
        Entry("nv/run", (OURS / "show").read_bytes()),
    ]


@functools.cache
def peers() -> bytes:
    """An archive of virt-host-validate and its libraries, from this machine. (kvm-ok is in every guest.)"""
    return pack(_with_libraries("virt-host-validate"))


@functools.cache
def _qemu_itself() -> list[Entry]:
    """QEMU with its libraries and firmware, from this machine, for a host inside the lab."""
    firmware = [Entry(f"usr/share/qemu/{path.name}", path.read_bytes()) for path in FIRMWARE]
    return [*_with_libraries("qemu-system-x86_64"), *firmware]


def _with_libraries(program: str) -> Iterator[Entry]:
    path = shutil.which(program)
    if path is None:
        raise LabError(f"{program} is not installed")
    yield Entry.program(f"usr/bin/{program}", Path(path).read_bytes())
    linked = subprocess.run(["ldd", path], capture_output=True, text=True, check=True)
    for library in re.findall(r"(/\S+) \(0x", linked.stdout):
        yield Entry.program(library.lstrip("/"), Path(library).read_bytes())


def _tcg(folder: Path, machine: Tcg, memory: int, append: str) -> str:
    # Never this machine's KVM: it would be this machine's truth, not the lab's, and on some it hardly runs.
    qemu = ["qemu-system-x86_64", "-accel", "tcg,tb-size=128", "-M", "q35", "-cpu", machine.cpu]
    rest = ["-m", str(memory), "-nodefaults", "-no-reboot", "-display", "none", "-monitor", "none"]
    kernel = ["-kernel", f"{folder}/vmlinuz", "-initrd", f"{folder}/initrd", "-append", append]
    return _watch([*qemu, *rest, *kernel, "-serial", f"file:{folder}/serial"], folder)


def in_bochs(folder: Path, machine: Bochs, append: str, com2: str = "") -> list[str]:
    """The command that boots a folder's vmlinuz and initrd in Bochs; its console is the file ``serial``.

    Args:
        folder: the machine's own; the disc and the configuration are written there.
        machine: what it is like.
        append: the kernel's command line.
        com2: a second serial line, in Bochs' words.
    """
    disc = folder / "disc"
    disc.mkdir()
    for path in (folder / "vmlinuz", folder / "initrd"):
        path.rename(disc / path.name)
    for path in ISOLINUX:
        shutil.copyfile(path, disc / path.name)
    # The kernel's tests of its own ciphers would take a fifth of the boot.
    append = f"{append} cryptomgr.notests"
    label = f"default lab\nprompt 0\nlabel lab\n kernel /vmlinuz\n initrd /initrd\n append {append}\n"
    (disc / "isolinux.cfg").write_text(label)
    boot_record = "-b isolinux.bin -no-emul-boot -boot-load-size 4 -boot-info-table"
    options = f"-as mkisofs -quiet {boot_record} -o".split()
    command = ["xorriso", *options, f"{folder}/boot.iso", str(disc)]
    subprocess.run(command, check=True, capture_output=True)
    config = folder / "bochsrc"
    (folder / "bios").write_bytes(_firmware(vt=machine.vt_in_firmware))
    cpuid = f"cpuid: {machine.cpuid}" if machine.cpuid else ""
    second = f"com2: {com2}" if com2 else ""
    config.write_text(
        BOCHSRC.format(model=machine.model, cpuid=cpuid, folder=folder, vga=BOCHS_VGA, com2=second)
    )
    # Debian's Bochs starts in its debugger, which has to be told to go on.
    (folder / "go").write_text("c\n")
    return ["bochs-bin", "-q", "-f", str(config), "-rc", f"{folder}/go"]


def _firmware(*, vt: bool) -> bytes:
    """Bochs' BIOS, which locks IA32_FEATURE_CONTROL with VMX on; or the same, locking it with VMX off."""
    bios = BOCHS_BIOS.read_bytes()
    if vt:
        return bios
    locks_on, locks_off = bytes.fromhex("83c805 0f30"), bytes.fromhex("83c801 0f30")  # or eax, 5 | 1; wrmsr
    if bios.count(locks_on) != 2:  # for the first CPU and for the others
        raise LabError(f"{BOCHS_BIOS} is not the BIOS that this was written for")
    return bios.replace(locks_on, locks_off)


def _watch(command: Sequence[str], folder: Path) -> str:
    """Run an emulator until its machine is off. Its exit code says nothing: Bochs "panics" at power-off."""
    env = {**os.environ, "TERM": "linux"}
    with (folder / "emulator.log").open("wb") as log:
        try:
            subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, timeout=BOOT_SECONDS
            )
        except subprocess.TimeoutExpired:
            raise LabError(f"still on after {BOOT_SECONDS} s; {_ends(folder)}") from None
    if not (folder / "serial").exists():
        raise LabError(f"nothing came over the serial line; {_ends(folder)}")
    return (folder / "serial").read_text(errors="replace")


def _ends(folder: Path) -> str:
    texts = ((name, folder / name) for name in ("serial", "emulator.log"))
    return "; ".join(
        f"{name} ends: {p.read_text(errors='replace')[-500:]!r}" for name, p in texts if p.exists()
    )
