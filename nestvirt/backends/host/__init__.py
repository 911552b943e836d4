"""The host itself: whether its kvm module lets VMs nest, and the drop-in of modprobe.d that makes it so.

A host's "power cycle" is that its kvm module is unloaded and loaded again: the parameter is read then. VMs
that were named to be drained are shut down before, and started again after.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

from nestvirt.backends.base import Kind, Place
from nestvirt.backends.host.facts import CHECKS, HostFacts, rebuild
from nestvirt.backends.host.situation import parse
from nestvirt.backends.host.vms import Vms, is_key, keys_of
from nestvirt.errors import (
    AccessDenied,
    ChangeRejected,
    ConnectionFailed,
    GuestUnreachable,
    PowerError,
    TargetError,
)
from nestvirt.guest import verify
from nestvirt.guest.channel import Channel, Completed
from nestvirt.guest.local import LocalChannel
from nestvirt.guest.sharedssh import SharedSsh
from nestvirt.guest.ssh import SshChannel, destination_of
from nestvirt.model import Change, Status, Target, Vm
from nestvirt.printable import printable

__all__ = ["CHECKS", "HostBackend", "HostFacts"]

SECONDS = 60.0
DRAIN_SECONDS = 120.0
"""For the shutdown of VMs, and for their start, where the module is a setting beside a VM's."""

PROBE_SECONDS = 180.0
"""For Python to start, and the probe to run, on a host that may have other work."""

SETTLE_SECONDS = 20.0
"""For VMs that were asked to shut down, and are not to any more."""

SYNC_SECONDS = 300.0
"""For a file to reach a disk that may be busy."""

REBUILD_SECONDS = 900.0
"""For an initramfs, which is packed on a host that may have other work."""

_ROOTS = 'PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin; export PATH; LC_ALL=C; export LC_ALL; exec "$@"'
"""A plain su leaves sbin out; and words are compared, which some programs would translate."""

_WRITE = """
umask 022
cat > "$1.new"
if [ "$(wc -c < "$1.new")" -eq "$2" ] && { sync "$1.new" 2>/dev/null || sync; } && mv -f "$1.new" "$1"
then exit 0; fi
rm -f "$1.new"
exit 1
"""
"""Whole or not at all; a client that dies leaves too few bytes."""

_REMOVE = 'rm -f "$1" "$1.new"'
_ALONE = 'if command -v flock >/dev/null; then exec flock /run/nestvirt.lock "$@"; else exec "$@"; fi'
"""One rebuild after another: one that was given up goes on."""


KIND = Kind(
    thing="host",
    has_guest=False,
    apart=True,
    subject="the kvm module of {}",
    cycle="load the kvm module anew",
    condition="where no VM uses it",
    pending="load the kvm module of {} anew when no VM uses it (modprobe -r and modprobe), or reboot it",
)


class HostBackend:
    """One host; see Backend."""

    kind = KIND

    def __init__(self, channel: Channel, endpoint: Mapping[str, str], end: Callable[[], None]) -> None:
        self._channel = channel
        self._end = end
        self._open = True
        self._sudo: tuple[str, ...] = ()
        self._vms = Vms(self._as_root)
        self._offers: tuple[bool | None, str] | None = None
        self._module = ""
        self._last: HostFacts | None = None  # for what does not change: the CPU, the tools
        self.endpoint = endpoint
        self.kind = KIND

    @classmethod
    def connect(cls, target: Target, endpoint: Mapping[str, str]) -> Self:
        """This machine for the name ``local``, else the one of ``ssh://[USER@]HOST[:PORT]``; see Backend."""
        if target.name == "local":
            backend = cls(LocalChannel(), endpoint, lambda: None)
        elif target.name.startswith("ssh://"):
            destination, options = destination_of(target.name)
            options += ["-F", endpoint["ssh_config"]] if endpoint.get("ssh_config") else []
            shared = SharedSsh(destination, options)
            backend = cls(SshChannel(destination, options, shared.sharing), endpoint, shared.close)
        else:
            raise TargetError(
                f"{printable(target.name, 100)!r} is not a host",
                evidence="a host is written local, or ssh://USER@HOST",
                cure="for example: local, or ssh://root@"
                + (target.name if re.fullmatch(r"[\w.-]+", target.name) else "node1"),
            )
        with contextlib.ExitStack() as undone:
            undone.callback(backend.close)
            uid = backend._run(["id", "-u"]).stdout.strip()
            if uid != b"0" and backend._run(["sudo", "-n", "true"]).code == 0:
                backend._sudo = ("sudo", "-n")
            undone.pop_all()
        return backend

    def find(self, name: str) -> Vm:
        """The host itself, by its machine-id; see Backend.

        Here the VMs to drain, which a person has named, become the endpoint's, by keys. A record has those,
        and is found by the host's identity: its VMs may be off.
        """
        identity, facts = self._read()
        if name not in ("local", identity) and not name.startswith("ssh://"):
            raise TargetError(
                f"this is not the host {name}", evidence=f"it is {identity}", cure="name the host again"
            )
        if self._drain:
            recorded = [key for key in self._drain if name == identity and is_key(key)]
            meant = keys_of([each for each in self._drain if each not in recorded], facts.users)
            self._vms.refuse_passing(meant)
            self.endpoint = {**self.endpoint, "drain": "\n".join((*recorded, *meant))}
            names = {user.key: user.name for user in facts.users}
            self._vms.called = {key: names.get(key) or key for key in self._drain}
            called = ", ".join(self._vms.called.values()).replace("{", "{{").replace("}", "}}")
            self.kind = replace(KIND, subject=f"{called} and the kvm module of {{}}")
        return Vm(identity, facts.hostname)

    @property
    def _drain(self) -> tuple[str, ...]:
        return tuple(filter(None, self.endpoint.get("drain", "").split("\n")))

    def host_of(self, vm: Vm) -> Place:
        """It is one itself; see Backend."""
        return Place(vm.name, None)

    def read(self, vm: Vm) -> HostFacts:
        """Module, parameters, modprobe.d, command line, initramfs, users; see Backend."""
        identity, facts = self._read()
        if identity != vm.id:
            raise ConnectionFailed(
                f"another host answers in the place of {vm.name}",
                evidence=f"its machine-id is {identity}, and was {vm.id}",
                cure="see where the name leads to",
            )
        if not facts.on:
            return facts
        if self._offers is None:  # once for each load of the module: it takes a while
            self._offers = self._ask_kvm()
        return replace(facts, offers=self._offers[0], offers_evidence=self._offers[1])

    def _read(self) -> tuple[str, HostFacts]:
        script = Path(__file__).with_name("reading.sh").read_bytes()
        done = self._as_root(["sh", "-s"], stdin=script)
        if done.truncated:
            raise ConnectionFailed(
                "the host's answer is too long to be read",
                evidence=f"more than {len(done.stdout)} bytes",
                cure="see what is strange there: the files in modprobe.d, or who holds /dev/kvm",
            )
        identity, situation = parse(done.stdout.decode(errors="replace"))
        self._module = situation.module or ""
        self._last = HostFacts(**vars(situation), drain=self._drain)
        return identity, self._last

    def _ask_kvm(self) -> tuple[bool | None, str]:
        """Whether KVM_GET_SUPPORTED_CPUID has vmx or svm, as the probe asks it there."""
        source = verify.probe_source().encode()
        try:
            done = self._as_root(["python3", "-I", "-"], stdin=source, timeout=PROBE_SECONDS)
            probed = verify.read_probe(done, channel="host")
        except GuestUnreachable as error:
            return None, f"{error.message}: {error.evidence}"
        asked = next((f for f in probed.findings if f.check == "guest-nesting"), None)
        if asked is None or asked.status is Status.UNKNOWN:
            return None, asked.evidence if asked else "the probe did not ask KVM"
        if asked.status is Status.PASS:
            return True, "KVM_GET_SUPPORTED_CPUID has vmx or svm, and guest code ran"
        if probed.proof.verdict == "off":
            return False, f"no VM runs on the host: {probed.proof.cause}"
        return False, asked.evidence

    def apply(self, vm: Vm, change: Change) -> None:
        """Write or remove the drop-in, and rebuild the initramfs where the module is in it; see Backend.

        The parameter in effect is a setting, too: the module is loaded anew with it, whatever the files say.
        """
        facts = self._last or self.read(vm)
        present = self._present(change.setting)
        if present != change.before:
            raise ChangeRejected(
                f"{change.setting} was changed by somebody else a moment ago",
                evidence=f"it was {change.before!r}, and is {present!r}",
                cure="run this again to plan anew",
            )
        if change.setting == facts.parameter:
            self._reload(present, change.after)
            return
        self._put(change.setting, change.after)
        if facts.image is None or facts.module not in facts.image.modules:
            return
        command = rebuild(facts)
        alone = ["sh", "-c", _ALONE, "sh", *command]
        done = self._as_root(alone, timeout=REBUILD_SECONDS) if command else None
        if done is None or done.code != 0:
            self._put(change.setting, change.before)
            why = done.stderr.decode(errors="replace") if done else "there is no tool that builds it"
            raise ChangeRejected(
                "the initramfs, which brings the kvm module along, could not be built anew",
                evidence=printable(why, 400),
                cure=f"make this work first: {' '.join(command) or 'the tool of your distribution'}",
            )

    def _present(self, path: str) -> str | None:
        """A file's text, or the parameter in effect; None where there is none. Quicker than to read all."""
        done = self._as_root(["cat", path])
        text = done.stdout.decode(errors="replace")
        return None if done.code != 0 else text.strip() if path.startswith("/sys/") else text

    def _put(self, path: str, text: str | None) -> None:
        data = (text or "").encode()
        script = ["sh", "-c", _REMOVE if text is None else _WRITE, "sh", path, str(len(data))]
        done = self._as_root(script, stdin=data, timeout=SYNC_SECONDS)
        if done.code != 0:
            evidence = printable(done.stderr.decode(errors="replace"), 300)
            raise ChangeRejected(
                f"{path} could not be written", evidence=evidence, cure="log in as root, or allow sudo"
            )

    def stop(self, vm: Vm, *, timeout: float) -> None:
        """Shut down the VMs to drain, and unload the module; where that fails, start them. See Backend."""
        self._vms.shut_down(self._drain, timeout=timeout)
        self._unload_or_start(min(timeout, SECONDS), timeout)

    def power_off(self, vm: Vm) -> None:
        """Cut the power of the VMs to drain, and unload the module; see Backend."""
        self._vms.power_off(self._drain)
        self._unload_or_start(SECONDS / 4, SECONDS)

    def start(self, vm: Vm, *, timeout: float) -> None:
        """Load the module, and start the VMs that were drained; see Backend."""
        self._load()
        self._vms.start(self._drain, timeout=timeout)

    def start_drained(self) -> None:
        """Start the VMs that were drained, and are off."""
        self._vms.start(self._drain, timeout=DRAIN_SECONDS)

    def _reload(self, present: str | None, value: str | None) -> None:
        """Load the module with that parameter; None unloads it."""
        if present is not None:
            try:
                self._vms.shut_down(self._drain, timeout=DRAIN_SECONDS)
                self._unload_or_start(SECONDS, DRAIN_SECONDS)
            except KeyboardInterrupt:
                with contextlib.suppress(PowerError):  # they go off all the same: start them only then
                    self._vms.shut_down(self._drain, timeout=SETTLE_SECONDS)
                self.start_drained()
                raise
            except PowerError as error:  # all is as it was
                raise ChangeRejected(error.message, evidence=error.evidence, cure=error.cure) from error
        if value is not None:
            try:
                self._load(f"nested={value}")
            finally:  # VMs run on whatever can be loaded
                if present is not None and not self._is_loaded():
                    self._as_root(["modprobe", self._module])
                self.start_drained()

    def _unload_or_start(self, patience: float, timeout: float) -> None:
        try:
            self._unload(patience)
        except PowerError:
            self._vms.start(self._drain, timeout=timeout)
            raise

    def _unload(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while (done := self._as_root(["modprobe", "-r", self._module])).code != 0:
            if time.monotonic() > deadline or b"in use" not in done.stderr:
                raise PowerError(
                    f"{self._module} could not be unloaded",
                    evidence=printable(done.stderr.decode(errors="replace"), 300),
                    cure="shut the VMs down that use it (host-users names them), then run this again",
                )
            time.sleep(0.5)  # a VM that has just ended still holds it

    def _load(self, *parameters: str) -> None:
        self._offers = None
        done = self._as_root(["modprobe", self._module, *parameters])
        if done.code != 0 or not self._is_loaded():
            raise PowerError(
                f"{self._module} could not be loaded",
                evidence=printable(done.stderr.decode(errors="replace"), 300) or "modprobe said nothing",
                cure=f"see why: modprobe -v {self._module}; dmesg | grep -i kvm",
            )

    def _is_loaded(self) -> bool:
        return self._as_root(["test", "-e", f"/sys/module/{self._module}/parameters/nested"]).code == 0

    def channel(self, vm: Vm) -> Channel | None:
        """None: a host is not looked into, it is read."""
        return None

    def close(self) -> None:
        """End the connection."""
        self._open = False
        self._end()

    def _as_root(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = SECONDS) -> Completed:
        return self._run([*self._sudo, "sh", "-c", _ROOTS, "sh", *argv], stdin=stdin, timeout=timeout)

    def _run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = SECONDS) -> Completed:
        if not self._open:
            raise ConnectionFailed(
                "the connection to the host is closed", evidence="closed", cure="run it again"
            )
        try:
            return self._channel.run(argv, stdin=stdin, timeout=timeout)
        except GuestUnreachable as error:
            if "Permission denied" in error.evidence:
                raise AccessDenied(
                    "the host refused the login", evidence=error.evidence, cure=error.cure
                ) from error
            raise ConnectionFailed(error.message, evidence=error.evidence, cure=error.cure) from error
