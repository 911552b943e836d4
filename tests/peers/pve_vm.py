"""One VM of the Proxmox peer: what is live, what is pending, and what its guest gets of it."""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

from fakepve.model import HOTPLUG, FakeVm, TaskError

from tests.peers import pve_cpu
from tests.peers.guest_answers import NO_FLAG
from tests.peers.pve_agent import Guest
from tests.peers.pve_cpu import Host

_pids = itertools.count(20357)


class Failed(TaskError):  # type: ignore[misc]
    """A task's end; ``log`` is what it printed before."""

    def __init__(self, status: str, log: Iterable[object] = ()) -> None:
        super().__init__(status)
        self.log = [str(line) for line in log]


class PveVm(FakeVm):  # type: ignore[misc]
    """fakepve's VM, with a configuration and a power switch as PVE 9.2 has them.

    Attributes:
        host: the node that it runs on.
        system: what is installed inside.
        inside: how nesting is there, by the CPU that it was started with.
        pid: of its QEMU; another one after every start.
        listed: the node on which /cluster/resources has it; empty: it does not list it yet.
        fragile: it does not start with nesting.
        ha_polls: questions for its status until the HA manager has done what it was asked.
        lock_timeouts: how many of the next writes find the configuration's lock held.
    """

    def __init__(self, vmid: int, name: str, node: str, host: Host, config: Mapping[str, Any]) -> None:
        super().__init__(vmid, name, node=node, config={"name": name, **config})
        self.pending: dict[str, Any]
        self.host = host
        self.custom: Mapping[str, str] = {}
        self.system = Guest()
        self.inside = NO_FLAG
        self.pid: int | None = None
        self.listed = node
        self.template = bool(self.config.get("template"))
        self.lock = self.config.get("lock")
        self.fragile = False
        self.ha_polls = 2
        self.ha_due: tuple[str, int] | None = None
        self.lock_timeouts = 0

    @property
    def has_agent(self) -> bool:
        first = str(self.config.get("agent", "0")).split(",")[0]
        return first.rpartition("=")[2] == "1"

    @property
    def merged(self) -> dict[str, Any]:
        """What the next start will use."""
        both = {**self.config, **self.pending}
        return {key: value for key, value in both.items() if value is not None}

    def digest(self) -> str:
        """Of the whole file: what is pending and the snapshots are in it too."""
        parts = json.dumps([self.config, self.pending, self.snapshots], sort_keys=True)
        return hashlib.sha1(parts.encode(), usedforsecurity=False).hexdigest()

    def change(
        self, updates: Mapping[str, Any], deletes: Iterable[str] = (), reverts: Iterable[str] = ()
    ) -> None:
        """Change the configuration: at once where the VM is off, else pending; drop what is no change."""
        for key in reverts:
            self.pending.pop(key, None)
        wanted = {**self.pending, **dict.fromkeys(deletes), **updates}
        self.pending = {
            key: value
            for key, value in wanted.items()
            if (key in self.config if value is None else str(self.config.get(key)) != str(value))
        }
        later = (
            {} if self.status == "stopped" else {k: v for k, v in self.pending.items() if k not in HOTPLUG}
        )
        self.pending = {k: v for k, v in self.pending.items() if k not in later}
        self.apply_pending()
        self.pending = later
        self.name = self.config.get("name", f"VM {self.vmid}")

    def set_lock(self, lock: str | None) -> None:
        """Lock it, as a backup or an interrupted snapshot does."""
        self.lock = lock
        self.config.pop("lock", None)
        if lock is not None:
            self.config["lock"] = lock

    def power_on(self) -> list[str]:
        """Start it; return the task's log."""
        self.apply_pending()  # also where QEMU then fails
        try:
            inside, log = pve_cpu.started(self.config, self.host, self.custom)
        except pve_cpu.QemuFailed as error:
            raise Failed("start failed: QEMU exited with code 1", error.args) from error
        if self.fragile and inside != NO_FLAG:
            raise Failed("start failed: QEMU exited with code 1", ["kvm: this host's microcode is too old"])
        if self.lock == "suspended":
            self.set_lock(None)
        self.inside, self.pid = inside, next(_pids)
        self.status = self.qmpstatus = "running"
        self.started_at = time.time()
        self.system.boot()
        return log

    def power_off(self) -> None:
        """Stop it; what is pending applies."""
        self.status = self.qmpstatus = "stopped"
        self.inside, self.pid = NO_FLAG, None
        self.apply_pending()

    def pause(self) -> None:
        """Pause its QEMU."""
        self.qmpstatus = "paused"

    def hibernate(self) -> None:
        """Save its memory to disk."""
        self.power_off()
        self.set_lock("suspended")
