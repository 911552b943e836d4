"""The VMs that stand in the way of loading the kvm module anew: shut down and started by who manages them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from nestvirt.backends.host.situation import User
from nestvirt.errors import PowerError, TargetError
from nestvirt.guest.channel import Completed
from nestvirt.printable import printable

Run = Callable[..., Completed]
"""Runs a program on the host: argv, and ``timeout`` in seconds."""


@dataclass(frozen=True)
class Manager:
    """How one program manages VMs: commands, in which {} is the VM's identity and {seconds} a deadline.

    Attributes:
        state: what tells whether it runs.
        running: what it prints then.
        lasting: what tells whether it can be started again.
        lasts: what it prints then.
        why_not: why it could not.
    """

    shutdown: Sequence[str]
    power_off: Sequence[str]
    start: Sequence[str]
    state: Sequence[str]
    running: str
    lasting: Sequence[str]
    lasts: str
    why_not: str


_VIRSH = ("virsh", "-q", "-c", "qemu:///system")
_HA = 'ha-manager status 2>/dev/null | grep "^service vm:$1 " || echo free'
MANAGERS = {
    # virsh(1)
    "libvirt": Manager(
        shutdown=(*_VIRSH, "shutdown", "--domain", "{}"),
        power_off=(*_VIRSH, "destroy", "--domain", "{}"),
        start=(*_VIRSH, "start", "--domain", "{}"),
        state=(*_VIRSH, "domstate", "--domain", "{}"),
        running=r"^(running|idle|paused|in shutdown|pmsuspended|no state)$",
        lasting=(*_VIRSH, "dominfo", "--domain", "{}"),
        lasts=r"^Persistent: +yes$",
        why_not="it is transient: libvirt forgets it when it is off",
    ),
    # qm(1), ha-manager(1)
    "proxmox": Manager(
        shutdown=("qm", "shutdown", "{}", "--timeout", "{seconds}"),
        power_off=("qm", "stop", "{}"),
        start=("qm", "start", "{}"),
        state=("qm", "status", "{}"),
        running=r"^status: (?!stopped)",
        lasting=(
            "sh",
            "-c",
            'ha-manager status 2>/dev/null | grep "^service vm:$1 " || echo free',
            "sh",
            "{}",
        ),
        lasts=r"^free$",
        why_not="HA manages it, and may start it on another node",
    ),
}
SECONDS = 60.0
ASK_AGAIN_SECONDS = 20.0
_IDENTITY = re.compile(r"[0-9]{3,9}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def is_key(text: str) -> bool:
    """Whether it is the key of a VM that one of MANAGERS has."""
    manager, _, identity = text.partition(":")
    return manager in MANAGERS and _IDENTITY.fullmatch(identity) is not None


def keys_of(names: Iterable[str], users: Sequence[User]) -> tuple[str, ...]:
    """The keys of the VMs that a person has named.

    Raises:
        TargetError: no VM of that name uses KVM now, or more than one, or none of MANAGERS has started it.
    """
    return tuple(dict.fromkeys(_key_of(name, users) for name in names))


def _key_of(name: str, users: Sequence[User]) -> str:
    meant = [user for user in users if user.is_called(name)]
    known = [user for user in meant if user.key]  # anybody may call a process of his as he likes
    listed = ", ".join(str(user) for user in users) or "none"
    if meant and not known:
        raise TargetError(
            f"nestvirt does not know how to shut {meant[0]} down",
            evidence="it was started neither by libvirt nor by Proxmox",
            cure="shut it down by hand, and leave it out",
        )
    if len(known) != 1:
        raise TargetError(
            f"{'more than one VM is' if known else 'there is no running VM'} called {printable(name, 100)!r}",
            evidence=f"what uses KVM on the host: {listed}",
            cure="name one that runs there, by name, UUID or number; if an interrupted run has shut it down: "
            "nestvirt undo",
        )
    return known[0].key


class Vms:
    """VMs by their keys.

    Args:
        run: runs a program on the host, in the C locale.

    Attributes:
        called: key to what people call it.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self.called: Mapping[str, str] = {}

    def refuse_passing(self, keys: Sequence[str]) -> None:
        """See that each can be started again once it is off.

        Raises:
            TargetError: one cannot.
        """
        for key in keys:
            manager = _manager(key)
            if not self._says(key, manager.lasting, manager.lasts):
                raise TargetError(
                    f"{self._name(key)} cannot be shut down and started again",
                    evidence=manager.why_not,
                    cure="shut it down, or migrate it, by your own means, and leave it out",
                )

    def shut_down(self, keys: Sequence[str], *, timeout: float) -> None:
        """Ask all of them to shut down, and return when they are off.

        Raises:
            PowerError: one was still on after ``timeout`` seconds, or cannot be asked. Those that went off
                are started again.
        """
        deadline = time.monotonic() + timeout
        try:
            running = [key for key in keys if self.runs(key)]
            self._ask(running, timeout)
            asked = time.monotonic()
            while running := [key for key in running if self.runs(key)]:
                if time.monotonic() > deadline:
                    raise PowerError(
                        f"{self._name(running[0])} did not shut down within {timeout:.0f} s",
                        evidence="it was asked to, and is still on",
                        cure="shut it down by hand, and run this without --drain; or, with --host, "
                        "--timeout gives it longer, and --force-off cuts its power",
                    )
                if time.monotonic() > asked + ASK_AGAIN_SECONDS:  # a guest that was booting did not hear it
                    asked = time.monotonic()
                    self._ask(running, timeout)
                time.sleep(1)
        except PowerError:
            self.start(keys, timeout=timeout)
            raise

    def _ask(self, keys: Sequence[str], timeout: float) -> None:
        for key in keys:
            self._do(key, _manager(key).shutdown, timeout)

    def power_off(self, keys: Sequence[str]) -> None:
        """Cut the power of those that are on."""
        for key in keys:
            if self.runs(key):
                self._do(key, _manager(key).power_off, SECONDS)

    def start(self, keys: Sequence[str], *, timeout: float) -> None:
        """Start those that are off; one that does not start keeps none of the others off.

        Raises:
            PowerError: some did not start.
        """
        failures: list[PowerError] = []
        for key in keys:
            try:
                if not self.runs(key):
                    self._do(key, _manager(key).start, timeout)
                    self._await(key, timeout)
            except PowerError as error:
                failures.append(error)
        if len(failures) == 1:
            raise failures[0]
        if failures:
            raise PowerError(
                f"{len(failures)} VMs did not start",
                evidence="; ".join(f"{error.message}: {error.evidence}" for error in failures),
                cure=failures[0].cure,
            )

    def _name(self, key: str) -> str:
        return f"the VM {printable(self.called.get(key, key), 100)}"

    def runs(self, key: str) -> bool:
        """Whether a VM is on."""
        manager = _manager(key)
        return self._says(key, manager.state, manager.running)

    def _await(self, key: str, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not self.runs(key):
            if time.monotonic() > deadline:
                raise PowerError(
                    f"{self._name(key)} was started, and does not run",
                    evidence=f"after {timeout:.0f} s it is still off",
                    cure="see its log on the host, and start it there",
                )
            time.sleep(1)

    def _says(self, key: str, command: Sequence[str], words: str) -> bool:
        done = self._do(key, command, SECONDS)
        return re.search(words, done.stdout.decode(errors="replace"), re.MULTILINE) is not None

    def _do(self, key: str, command: Sequence[str], timeout: float) -> Completed:
        identity = key.partition(":")[2]
        argv = [word.format(identity, seconds=int(timeout)) for word in command]
        done = self._run(argv, timeout=timeout + SECONDS)
        if done.code != 0:
            raise PowerError(
                f"{argv[0]} could not do it: {' '.join(argv)}",
                evidence=printable(done.stderr.decode(errors="replace"), 300) or f"exit code {done.code}",
                cure="make this command work on the host first",
            )
        return done


def _manager(key: str) -> Manager:
    if not is_key(key):
        raise TargetError(
            f"{printable(key, 100)!r} is no VM that nestvirt has shut down",
            evidence=f"such a key is one of {', '.join(MANAGERS)}, a colon, and a UUID or a number",
            cure="see the run's record",
        )
    return MANAGERS[key.partition(":")[0]]
