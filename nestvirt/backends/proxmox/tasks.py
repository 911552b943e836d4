"""Proxmox's tasks, and waiting for what they do: power off, power on.

A task's end is not the VM's: hastop and hastart are done once HA has been asked, and a VM is started anew
only when it has another process. So the VM's own state is what is waited for.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from nestvirt.backends.base import moments as moments
from nestvirt.backends.proxmox.api import Api, NoAnswer, Refused, is_elsewhere, node_path, vm_path
from nestvirt.backends.proxmox.cluster import Cluster
from nestvirt.errors import PowerError
from nestvirt.printable import printable

MARGIN = 30.0
"""Seconds beyond the guest's own time: for a lock that a clean-up holds, and for the task's start and end."""

HA_MARGIN = 90.0
"""Seconds beyond it where the HA manager acts: its rounds are 10 s apart, on each of two daemons."""

NO_ANSWER = "no answer came to the request"

OVERRIDE = "give it more --timeout, look at its console, or allow --force-off"


@dataclass(frozen=True)
class Ended:
    """A task's end.

    Attributes:
        status: OK, ``WARNINGS: n``, or the error's text; None where it had not ended in time.
        lines: of its log, where it did not end with OK.
    """

    status: str | None
    lines: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """True where it did what it was asked to, with warnings or without."""
        return self.status is not None and (self.status == "OK" or self.status.startswith("WARNINGS"))

    @property
    def warnings(self) -> tuple[str, ...]:
        """The lines that warn."""
        return tuple(line for line in self.lines if "warn" in line.lower() and not line.startswith("TASK"))

    def __str__(self) -> str:
        lines = "; ".join(line for line in self.lines if not line.startswith("TASK"))
        return f"{self.status or 'the task has not ended'}" + (f" (its log: {lines})" if lines else "")


@dataclass
class Machine:
    """One VM's power.

    Attributes:
        cluster: knows on which node it is; HA may start it on another one than it has stopped it on.
        pid: its process when it was last seen running.
        shutting_down: the UPID of a shutdown that may still be under way.
    """

    api: Api
    cluster: Cluster
    vmid: str
    name: str
    ha: bool
    pid: str | None
    shutting_down: list[str] = field(default_factory=list)

    def shut_down(self, timeout: float) -> None:
        """Ask the guest to shut down; return when the VM is off.

        Raises:
            PowerError: it is still on.
        """
        deadline = time.monotonic() + timeout + (HA_MARGIN if self.ha else MARGIN)
        if not self.shutting_down:
            # Noted before it is waited for: after a Ctrl-C, a second shutdown would wait for this one's lock.
            self.shutting_down += self._post("shutdown", {"timeout": max(1, round(timeout))}) or []
        ended = self._ended(self.shutting_down, deadline)
        if ended.status is not None:
            self.shutting_down.clear()
        off = (ended.ok or not self._is_on()) and self._is_off_by(deadline)
        if not off:
            raise PowerError(
                f"{self.name} did not shut down within {timeout:.0f} s", evidence=str(ended), cure=OVERRIDE
            )

    def cut(self) -> None:
        """Cut the power; return when the VM is off.

        Raises:
            PowerError: it is still on.
        """
        deadline = time.monotonic() + (HA_MARGIN if self.ha else 2 * MARGIN)
        ended = self._ended(self._post("stop", {}), deadline)
        self.shutting_down.clear()
        if not self._is_off_by(deadline):
            cure = f"look at its tasks in the GUI; on the node: qm stop {self.vmid}"
            raise PowerError(f"Proxmox did not cut the power of {self.name}", evidence=str(ended), cure=cure)

    def start(self, timeout: float) -> Ended:
        """Start the VM; return when it runs in a new process.

        Raises:
            PowerError: it does not.
        """
        deadline = time.monotonic() + timeout + (HA_MARGIN if self.ha else 0)
        ended = self._ended(self._post("start", {}), deadline)
        for _ in moments(deadline):
            state = self._state()
            pid = str(state["pid"]) if state.get("pid") else None
            if state.get("status") == "running" and pid not in (None, self.pid):
                self.pid = pid
                return ended
            if ended.status == NO_ANSWER and state.get("status") == "stopped":
                ended = self._ended(self._post("start", {}), deadline)  # it was not heard
            elif not ended.ok and ended.status != NO_ANSWER:
                break  # a VM that runs all the same was started by somebody else
        raise PowerError(
            f"{self.name} did not start" if ended.status else f"{self.name} did not start in {timeout:.0f} s",
            evidence=str(ended),
            cure="see the task's whole log in the GUI; where it is the CPU, every node starts the type host",
        )

    def _post(self, action: str, values: dict[str, object]) -> list[str] | None:
        """The task's UPID, if there was something to do; None where no answer came."""
        try:
            upid = self.api.post(self._where(action), values)
        except NoAnswer:
            return None  # it may have been heard; what becomes of the VM will show
        except Refused as error:
            if "not running" in error.text:
                return []
            if is_elsewhere(error) and self._has_moved():
                return self._post(action, values)
            raise PowerError(
                f"Proxmox does not {action} {self.name}", evidence=error.evidence, cure=error.cure
            ) from error
        return [str(upid)] if upid else []

    def _ended(self, upids: list[str] | None, deadline: float) -> Ended:
        """Wait for a task's end; without one there was nothing to do, or its answer got lost."""
        if not upids:
            return Ended("OK" if upids is not None else NO_ANSWER)
        [upid] = upids
        where = node_path(upid.split(":")[1], "tasks", upid)
        for _ in moments(deadline):
            try:
                status = self.api.get(f"{where}/status")
            except NoAnswer:
                continue
            except Refused as error:
                if error.status < 500:
                    raise
                continue  # a passing trouble of the node's
            if status.get("status") == "stopped":
                exit_status = str(status.get("exitstatus", "unknown"))
                return Ended(exit_status, () if exit_status == "OK" else self._log(where))
        return Ended(None)

    def _log(self, where: str) -> tuple[str, ...]:
        try:
            rows = self.api.get(f"{where}/log", {"limit": 50})
        except (Refused, NoAnswer):
            return ()
        return tuple(printable(str(row.get("t", "")), 300) for row in rows or [] if isinstance(row, dict))

    def _state(self) -> dict[str, object]:
        """What the VM does now; nothing where that cannot be told at this moment."""
        try:
            state = self.api.get(self._where("current"))
        except NoAnswer:
            return {}
        except Refused as error:
            if error.status >= 500 and not (is_elsewhere(error) and not self._has_moved()):
                return {}  # a passing trouble of the node's, or it has moved
            raise
        return state if isinstance(state, dict) else {}

    def _where(self, what: str) -> str:
        return vm_path(self.cluster.node_of(self.vmid), self.vmid, "status", what)

    def _has_moved(self) -> bool:
        """Look where the VM is now; False where it still should be where it was not found."""
        former = self.cluster.node_of(self.vmid)
        self.cluster.forget(self.vmid)
        return self.cluster.node_of(self.vmid) != former

    def _is_on(self) -> bool:
        return self._state().get("status") != "stopped"

    def _is_off_by(self, deadline: float) -> bool:
        return any(not self._is_on() for _ in moments(deadline))
