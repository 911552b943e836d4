"""A VM's power, by scripts that ask, and look at what comes of it; the deadline is kept here."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nestvirt.backends.base import moments
from nestvirt.backends.hyperv.faults import NoAnswer, ScriptFailed
from nestvirt.backends.hyperv.reading import Nonsense, part, text
from nestvirt.backends.hyperv.refusals import powerless
from nestvirt.errors import Error, PowerError

OFF, ON = "Off", "Running"
BOOTING = 30.0
"""Seconds in which the integration services may still come up, in a guest that was started a moment ago."""

MARGIN = 60.0
"""Seconds for cutting the power; and for a script beyond the time that it looks."""

LOOK = 0.25
"""Seconds between two looks of a script."""

_ACCEPTED = (0, 4096, 32782, 0x8007045B)
"""Of InitiateShutdown: done, a job was started; and by two codes, that the guest shuts down already.

https://learn.microsoft.com/windows/win32/hyperv_v2/msvm-shutdowncomponent-initiateshutdown
"""

_LOCKED = (32781, 0x800704F7)
"""Likewise: somebody is logged in to the guest, and has locked its screen."""

_OVERRIDE = "give it more --timeout, look at its console, or allow --force-off"


@dataclass(frozen=True)
class Looked:
    """What power.ps1 has seen.

    Attributes:
        code: what the guest's integration service has answered; None where there is none to ask.
        group: the state of the cluster's role; empty where there is none.
        facts: in full, where the VM was to run and runs.
    """

    code: int | None
    state: str
    group: str
    facts: dict[str, Any] | None


@dataclass
class Machine:
    """One VM's power.

    Attributes:
        run: runs a script on the host: its name, its data, and a deadline in seconds.
        id: the VM's GUID.
        askable: whether the host offers the guest the service that shuts it down.
    """

    run: Callable[[str, dict[str, Any], float], dict[str, Any]]
    id: str
    name: str
    askable: bool = True

    def shut_down(self, timeout: float) -> None:
        """Ask the guest by its integration services to shut down; return when the VM is off.

        Raises:
            PowerError: it is still on, or there is nobody to ask.
        """
        deadline = time.monotonic() + timeout
        seen = self._ask(deadline)
        if seen is not None and seen.state != OFF and seen.code not in _ACCEPTED:
            raise self._deaf(seen)
        state = seen.state if seen is not None else ""
        for _ in moments(deadline):
            if state == OFF:
                return
            looked = self._try("look", OFF, deadline)
            state = looked.state if looked is not None else ""
        if state != OFF:
            raise PowerError(
                f"{self.name} did not shut down within {timeout:.0f} s",
                evidence=f"its guest was asked, and the VM is {state or 'not to be seen'}",
                cure=_OVERRIDE,
            )

    def _ask(self, deadline: float) -> Looked | None:
        """Ask until somebody hears; None where an answer was lost, and it may have been heard."""
        seen = None
        for _ in moments(min(deadline, time.monotonic() + BOOTING)):
            seen = self._try("shutdown", OFF, deadline)
            if seen is None or seen.state == OFF or seen.code in _ACCEPTED + _LOCKED or not self.askable:
                break
        return seen

    def _deaf(self, seen: Looked) -> PowerError:
        cure = (
            "see that the guest's integration services run, and are enabled for the VM; or allow --force-off"
        )
        evidence = "it has no integration service that shuts it down"
        if seen.code is not None:
            evidence = f"InitiateShutdown answers {seen.code}, and the VM is {seen.state}"
        if seen.code in _LOCKED:
            evidence += ": somebody is logged in, and the screen is locked"
            cure = (
                "unlock it and shut it down; or on the host: Stop-VM with -Force, by which the guest closes "
                "all programs, saved or not, and the VM is turned off where that fails; "
                "or allow --force-off, which cuts its power"
            )
        return PowerError(f"{self.name} cannot be asked to shut down", evidence=evidence, cure=cure)

    def cut(self) -> None:
        """Cut the power; return when the VM is off.

        Raises:
            PowerError: it is still on.
        """
        deadline = time.monotonic() + MARGIN
        seen = self._try("cut", OFF, deadline, hold=True)
        for _ in moments(deadline):
            if seen is not None and seen.state == OFF:
                return
            seen = self._try("look", OFF, deadline, hold=True)
        raise PowerError(
            f"the power of {self.name} cannot be cut",
            evidence=f"after {MARGIN:.0f} s the VM is {seen.state if seen else 'not to be seen'}",
            cure="see in Hyper-V Manager what it does; restart the service vmms where it hangs",
        )

    def start(self, timeout: float) -> dict[str, Any] | None:
        """Start it, by its cluster where it has one; return when it runs, with what was then read of it.

        Raises:
            PowerError: it does not run; the evidence has Hyper-V's words.
        """
        deadline = time.monotonic() + timeout
        seen = self._try("start", ON, deadline)
        for _ in moments(deadline):
            if seen is not None and seen.state == ON:
                return seen.facts
            if seen is not None and (seen.group == "Failed" or (seen.state == OFF and not seen.group)):
                break
            seen = self._try("look", ON, deadline)
        state = seen.state if seen is not None else "not to be seen"
        group = f", and its cluster calls it {seen.group}" if seen is not None and seen.group else ""
        raise PowerError(
            f"{self.name} did not start within {timeout:.0f} s",
            evidence=f"the VM is {state}{group}",
            cure="see the host's event log, Hyper-V-VMMS and Hyper-V-Worker, for why",
        )

    def _try(self, action: str, wanted: str, deadline: float, *, hold: bool = False) -> Looked | None:
        """Run the script once; None where its answer was lost, and it may have been done.

        Args:
            hold: once it is off, keep its cluster from starting it, as that does where power is lost.

        Raises:
            PowerError: Hyper-V refused.
        """
        left = max(deadline - time.monotonic(), 0.0)
        order = {
            "id": self.id,
            "action": action,
            "accepted": _ACCEPTED,
            "wanted": wanted,
            "looks": max(1, int(left / LOOK)),
            "hold": hold,
        }
        try:
            return _looked(self.run("power", order, left + MARGIN))
        except NoAnswer:
            return None
        except ScriptFailed as error:
            what = {"start": "did not start", "cut": "is not to be turned off"}.get(action, "cannot be asked")
            raise powerless(f"{self.name} {what}", error, self.name) from error


def _looked(answer: dict[str, Any]) -> Looked:
    try:
        group = part(answer, "group", dict | None)
        return Looked(
            code=part(answer, "code", int | None),
            state=text(answer, "state"),
            group=text(group, "state") if group is not None else "",
            facts=part(answer, "facts", dict | None),
        )
    except Nonsense as error:
        raise Error(
            "the Hyper-V host's answer is not what was asked for", evidence=str(error), cure="run this again"
        ) from error
