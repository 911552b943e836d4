"""The VMs that stand in the way of loading the kvm module anew: shut down and started by who manages them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from nestvirt.backends.host.situation import User
from nestvirt.errors import PowerError, TargetError
from nestvirt.guest.channel import Completed
from nestvirt.printable import printable

Run = Callable[..., Completed]
"""Runs a program on the host: argv, and ``timeout`` in seconds."""


@dataclass(frozen=True)
class Manager:
    """How one program manages VMs: commands, to which the VM's identity is added.

    Attributes:
        off: what ``state`` prints for a VM that is off.
    """

    shutdown: Sequence[str]
    power_off: Sequence[str]
    start: Sequence[str]
    state: Sequence[str]
    off: str


MANAGERS = {
    # virsh(1)
    "libvirt": Manager(
        ("virsh", "-c", "qemu:///system", "shutdown", "--domain"),
        ("virsh", "-c", "qemu:///system", "destroy", "--domain"),
        ("virsh", "-c", "qemu:///system", "start", "--domain"),
        ("virsh", "-c", "qemu:///system", "domstate", "--domain"),
        "shut off",
    ),
    # qm(1)
    "proxmox": Manager(
        ("qm", "shutdown"),
        ("qm", "stop"),
        ("qm", "start"),
        ("qm", "status"),
        "status: stopped",
    ),
}
SECONDS = 60.0


def keys_of(names: Iterable[str], users: Sequence[User]) -> tuple[str, ...]:
    """The keys of the VMs that a person has named; a key, as records have it, is taken as it is.

    Raises:
        TargetError: no VM of that name uses KVM now, or more than one, or none of MANAGERS has started it.
    """
    return tuple(dict.fromkeys(_key_of(name, users) for name in names))


def _key_of(name: str, users: Sequence[User]) -> str:
    if name.partition(":")[0] in MANAGERS:
        return name
    meant = [user for user in users if user.is_called(name)]
    listed = ", ".join(str(user) for user in users) or "none"
    if len(meant) != 1:
        raise TargetError(
            f"{'more than one VM is' if meant else 'there is no running VM'} called {printable(name, 100)!r}",
            evidence=f"what uses KVM on the host: {listed}",
            cure="name a VM that runs there, by its name, UUID or number",
        )
    if not meant[0].key:
        raise TargetError(
            f"nestvirt does not know how to shut {meant[0]} down",
            evidence="it was started neither by libvirt nor by Proxmox",
            cure="shut it down by hand, and leave it out",
        )
    return meant[0].key


class Vms:
    """VMs by their keys.

    Args:
        run: runs a program on the host.
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    def shut_down(self, keys: Sequence[str], *, timeout: float) -> None:
        """Ask all of them to shut down, and return when they are off.

        Raises:
            PowerError: one was still on after ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        for key in keys:
            if not self._off(key):
                manager, identity = _parts(key)
                self._done([*manager.shutdown, identity], timeout=timeout + SECONDS)
        for key in keys:
            while not self._off(key):
                if time.monotonic() > deadline:
                    raise PowerError(
                        f"the VM {key} did not shut down within {timeout:.0f} s",
                        evidence="it was asked to, and is still on",
                        cure="--force-off cuts its power; --timeout gives it longer",
                    )
                time.sleep(1)

    def power_off(self, keys: Sequence[str]) -> None:
        """Cut the power of those that are on."""
        for key in keys:
            if not self._off(key):
                manager, identity = _parts(key)
                self._done([*manager.power_off, identity])

    def start(self, keys: Sequence[str], *, timeout: float) -> None:
        """Start those that are off.

        Raises:
            PowerError: one did not start.
        """
        for key in keys:
            if self._off(key):
                manager, identity = _parts(key)
                self._done([*manager.start, identity], timeout=timeout + SECONDS)

    def _off(self, key: str) -> bool:
        manager, identity = _parts(key)
        said = self._done([*manager.state, identity])
        return said.stdout.decode(errors="replace").strip() == manager.off

    def _done(self, argv: Sequence[str], *, timeout: float = SECONDS) -> Completed:
        done = self._run(argv, timeout=timeout)
        if done.code != 0:
            raise PowerError(
                f"{argv[0]} could not do it: {' '.join(argv)}",
                evidence=printable(done.stderr.decode(errors="replace"), 300) or f"exit code {done.code}",
                cure="make this command work on the host first",
            )
        return done


def _parts(key: str) -> tuple[Manager, str]:
    manager, _, identity = key.partition(":")
    if manager not in MANAGERS or not identity:
        raise TargetError(
            f"{printable(key, 100)!r} is no VM that nestvirt has shut down",
            evidence=f"such a key begins with one of: {', '.join(MANAGERS)}",
            cure="see the run's record",
        )
    return MANAGERS[manager], identity
