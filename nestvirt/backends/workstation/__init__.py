"""VMware Workstation and Fusion: writes the setting ``vhv.enable`` of a .vmx file, and nothing else of it.

The file is changed while the VM is off. Its power goes through ``vmrun``, where that is there; the way into
the guest is SSH.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Self

from nestvirt.backends.base import COLD_VM, Listed, Place, moments, nesting_of
from nestvirt.backends.workstation import library, locks, poweron, vmfile
from nestvirt.backends.workstation.dialect import Document
from nestvirt.backends.workstation.facts import CHECKS, VmxFacts
from nestvirt.backends.workstation.host import read_host
from nestvirt.backends.workstation.situation import SETTING, Control
from nestvirt.backends.workstation.vmrun import Refused, Vmrun, orders
from nestvirt.errors import AccessDenied, ChangeRejected, ConnectionFailed, PowerError, TargetError
from nestvirt.guest.channel import Channel
from nestvirt.model import Change, Power, Target, Vm
from nestvirt.printable import printable

__all__ = ["CHECKS", "VmxBackend"]

SETTLE = 30.0
"""Seconds for a VM's process to end after its power was cut."""

_PATIENCE = "give it more --timeout, look at its console, or allow --force-off"
_SEE_LOG = "look at vmware.log in its folder; open the VM in VMware once, where a question may be waiting"


class VmxBackend:
    """The files of this machine, and its vmrun; see Backend."""

    kind = replace(COLD_VM, parallel=1)

    def __init__(self, vmrun: Vmrun | None, settings: Mapping[str, str]) -> None:
        self._vmrun = vmrun
        self._open = True
        self._links: dict[str, Path] = {}  # as they were named, where VMware may keep the lock, too
        self.endpoint: Mapping[str, str] = dict(settings)

    @classmethod
    def connect(cls, target: Target, endpoint: Mapping[str, str]) -> Self:
        """See that vmrun answers, where there is one; see Backend."""
        vmrun = Vmrun.found(endpoint)
        if vmrun is not None:
            vmrun.running()
        return cls(vmrun, endpoint)

    def find(self, name: str) -> Vm:
        """By the path of the .vmx file, or of its folder; see Backend."""
        path = vmfile.located(name)
        document = vmfile.read(path)
        title = printable(document.get("displayName") or "", 100)
        self._links[str(path)] = Path(name)
        return Vm(str(path), title or path.stem, uuid=printable(document.get("uuid.bios") or "", 100) or None)

    def listed(self) -> Iterator[Listed]:
        """What VMware's library and usual folders have, and what runs; see Listing."""
        self._must_be_open()
        for path in library.files(self._vmrun.running() if self._vmrun is not None else ()):
            vm, labels = Vm(str(path), path.stem), {"folder": (str(path.parent),)}
            try:
                vm = self.find(str(path))
                facts = self.read(vm)
            except (TargetError, AccessDenied) as error:
                note = printable(f"{error.message}: {error.evidence}", 300)
                yield Listed(vm, str(path), Power.STOPPED, "unknown", labels, note)
                continue
            yield Listed(vm, str(path), facts.power, nesting_of(facts.judge), labels)

    def host_of(self, vm: Vm) -> Place:
        """Not offered: what a host of KVM is told does nothing for VMware; see Backend."""
        raise TargetError(
            "--with-host is for hosts of KVM",
            evidence=f"{vm.name} is a VM of VMware, which has no such parameter",
            cure="leave --with-host out; host-cpu and host-vmmon tell what this machine can do",
        )

    def read(self, vm: Vm) -> VmxFacts:
        """The file, its locks, snapshots and log; vmrun's list; this machine's CPU; see Backend."""
        path = Path(vm.id)
        document = self._document(path)
        return VmxFacts(
            path=str(path),
            document=document,
            holders=self._holders(path),
            control=self._control(path),
            saved_state=_saved_state(path, document),
            memory_snapshots=_memory_snapshots(path),
            unwritable=vmfile.unwritable(path),
            logged=(log := poweron.recorded(_log_of(path, document), SETTING))[0],
            powered_on_with=log[1],
            host=read_host(),
        )

    def at_work(self, vm: Vm) -> str:
        """What a vmrun that is still there does to the VM; see Lingering."""
        path = Path(vm.id)
        return "; ".join(
            told
            for told, words in orders()
            if any(_same(Path(word), path) for word in words) or vm.id in " ".join(words)
        )

    def apply(self, vm: Vm, change: Change) -> None:
        """Replace the file by one that differs in the lines of the setting; see Backend."""
        path = Path(vm.id)
        document = self._document(path)
        if self._runs(path):
            raise ChangeRejected(
                f"{vm.name} runs, and VMware would write over its file",
                evidence="it was off a moment ago, or was to be",
                cure="run this again when nobody else works on it",
            )
        present = document.text_of(SETTING)
        if change.setting != SETTING or present != change.before:
            raise ChangeRejected(
                f"{SETTING} of {vm.name} was changed by somebody else a moment ago",
                evidence=f"it was {change.before!r}, and is {present!r}",
                cure="run this again to plan anew",
            )
        try:
            wanted = document.with_text(SETTING, change.after)
        except ValueError as error:
            raise ChangeRejected(
                f"that cannot be put into the file of {vm.name}",
                evidence=str(error),
                cure="nothing was written",
            ) from error
        vmfile.replace(path, document, wanted)

    def stop(self, vm: Vm, *, timeout: float) -> None:
        """By ``vmrun stop soft``, which asks VMware Tools, again and again; see Backend."""
        deadline = time.monotonic() + timeout
        told = "the guest was asked through VMware Tools; it may yet shut down"
        for _ in moments(deadline):
            left = max(1.0, deadline - time.monotonic())
            try:
                self._ask(vm, "stop", "soft", timeout=left)
            except Refused as error:
                told = str(error)
            if not self._runs(Path(vm.id)):
                return
        raise PowerError(f"{vm.name} did not shut down within {timeout:.0f} s", evidence=told, cure=_PATIENCE)

    def power_off(self, vm: Vm) -> None:
        """By ``vmrun stop hard``; see Backend."""
        told = "its process is still there"
        try:
            if self._runs(Path(vm.id)):
                self._ask(vm, "stop", "hard", timeout=SETTLE)
        except Refused as error:
            told = str(error)
        for _ in moments(time.monotonic() + SETTLE):
            if not self._runs(Path(vm.id)):
                return
        raise PowerError(f"vmrun could not cut the power of {vm.name}", evidence=told, cure=_SEE_LOG)

    def start(self, vm: Vm, *, timeout: float) -> None:
        """By ``vmrun start nogui``; see Backend."""
        deadline = time.monotonic() + timeout
        try:
            self._ask(vm, "start", "nogui", timeout=timeout)
        except Refused as error:
            if time.monotonic() >= deadline:
                with contextlib.suppress(Refused):
                    self._ask(vm, "stop", "hard", timeout=SETTLE)  # else it might start at any time
            raise PowerError(f"{vm.name} did not start", evidence=str(error), cure=_SEE_LOG) from error
        for _ in moments(deadline):
            if self._runs(Path(vm.id)):
                return
        told = "vmrun started it, and does not list it"
        raise PowerError(f"{vm.name} was not running within {timeout:.0f} s", evidence=told, cure=_SEE_LOG)

    def channel(self, vm: Vm) -> Channel | None:
        """None: vmrun would show the guest's password to every user of this machine; see Backend."""
        return None

    def close(self) -> None:
        """Nothing is asked or written any more."""
        self._open = False

    def _document(self, path: Path) -> Document:
        self._must_be_open()
        return vmfile.read(path)

    def _must_be_open(self) -> None:
        if not self._open:
            raise ConnectionFailed(
                "the work on this VM's file was ended", evidence="it was closed", cure="run this again"
            )

    def _holders(self, path: Path) -> tuple[locks.Holder, ...]:
        link = self._links.get(str(path), path)
        try:
            return tuple(dict.fromkeys([*locks.holders(path), *_beside(link, path)]))
        except OSError as error:
            cure = "run nestvirt as the VM's own user"
            raise AccessDenied("its lock cannot be looked at", evidence=str(error), cure=cure) from error

    def _control(self, path: Path) -> Control | None:
        if self._vmrun is None:
            return None
        words = (self._vmrun.program, "-T", self._vmrun.product)
        known = self._known_as(path)
        address = ""
        if known is not None:
            with contextlib.suppress(Refused):  # VMware Tools are not up, or not there
                address = _address(self._vmrun.ask("getGuestIPAddress", known))
        return Control(words, known is not None, address)

    def _known_as(self, path: Path) -> str | None:
        """The path under which vmrun lists the VM; None where it does not run."""
        running = self._vmrun.running() if self._vmrun is not None else ()
        return next((listed for listed in running if _same(Path(listed), path)), None)

    def _runs(self, path: Path) -> bool:
        self._must_be_open()
        return any(h.runs_vm for h in self._holders(path)) or self._known_as(path) is not None

    def _ask(self, vm: Vm, command: str, how: str, *, timeout: float) -> None:
        """Give vmrun a command for a VM.

        Raises:
            Refused: with its reason.
            PowerError: there is no vmrun.
        """
        self._must_be_open()
        if self._vmrun is None:
            raise PowerError(
                f"{vm.name} cannot be stopped or started",
                evidence="there is no vmrun on this machine",
                cure="do it by hand; or name vmrun in NESTVIRT_VMX_VMRUN",
            )
        known = self._known_as(Path(vm.id)) or vm.id
        self._vmrun.ask(command, known, how, timeout=timeout)


def _beside(link: Path, path: Path) -> tuple[locks.Holder, ...]:
    """The lock's holders at the name that was given, where it is a link to the file."""
    return locks.holders(link) if link.is_symlink() and link != path else ()


def _address(told: str) -> str:
    """The address that the guest tells, to be copied into a command; empty where that is anything else."""
    try:
        found = ipaddress.ip_address(told.strip())
    except ValueError:
        return ""
    return "" if "%" in str(found) else str(found)  # after that, an IPv6 address may say anything


def _same(one: Path, other: Path) -> bool:
    try:
        return one == other or one.samefile(other)
    except (OSError, ValueError):
        return False


def _saved_state(path: Path, document: Document) -> str:
    """The file of the VM's memory while it is suspended: VMware names it in the configuration."""
    named = document.get("checkpoint.vmState")
    if named is None and path.with_suffix(".vmss").exists():
        return path.with_suffix(".vmss").name
    return printable(named or "", 100)


def _memory_snapshots(path: Path) -> tuple[str, ...]:
    """Names of the snapshots whose memory lies beside their state, as a .vmem beside the .vmsn."""
    try:
        listed = Document.parse(vmfile.content(path.with_suffix(".vmsd"), vmfile.LIMIT))
    except OSError:
        return ()
    found: list[str] = []
    for line in listed.lines:
        named = re.fullmatch(r"(snapshot\d+)\.filename", line.name or "")
        state = listed.get(named[0]) if named else None
        if named and state and _has_memory(path.parent / state):
            found.append(printable(listed.get(f"{named[1]}.displayName") or state, 60))
    return tuple(found)


def _has_memory(state: Path) -> bool:
    try:
        return state.with_suffix(".vmem").exists()
    except (OSError, ValueError):  # what is named there is no file's name
        return False


def _log_of(path: Path, document: Document) -> Path:
    named = document.get("vmx.log.filename") or document.get("log.fileName")
    return path.parent / (named or "vmware.log")
