"""A VM's power: off, on, and what DRS has to say about it.

A task's end is not the VM's: what counts is runtime.powerState, which is looked at as well.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from pyVmomi import vim

from nestvirt.backends.base import moments
from nestvirt.backends.vsphere.api import Api
from nestvirt.backends.vsphere.faults import CURES, NoAnswer, Refused, words_of
from nestvirt.backends.vsphere.tasks import Tasks, read_one
from nestvirt.errors import PowerError
from nestvirt.printable import printable

OFF, ON = "poweredOff", "poweredOn"
MARGIN = 60.0
"""Seconds for cutting the power, and for a task that waits for its turn."""

BOOTING = 30.0
"""Seconds in which VMware Tools may still come up, in a guest that was started a moment ago."""

_OVERRIDE = "give it more --timeout, look at its console, or allow --force-off"


@dataclass
class Machine:
    """One VM's power.

    Attributes:
        tasks: what was begun on it.
    """

    api: Api
    vm: Any
    name: str
    tasks: Tasks

    def shut_down(self, timeout: float) -> None:
        """Ask the guest by VMware Tools to shut down; return when the VM is off.

        Raises:
            PowerError: it is still on, or there are no Tools to ask.
        """
        deadline = time.monotonic() + timeout
        refusal = self._ask_guest(deadline)
        if refusal is not None:
            known = refusal.privilege or refusal.name in CURES
            tools = "see that VMware Tools run in the guest"
            raise PowerError(
                f"{self.name} cannot be asked to shut down",
                evidence=refusal.evidence,
                cure=f"{refusal.cure if known else tools}; or allow --force-off",
            )
        if not self._becomes(OFF, deadline):
            raise PowerError(
                f"{self.name} did not shut down within {timeout:.0f} s",
                evidence=self._seen(),
                cure=_OVERRIDE,
            )

    def _ask_guest(self, deadline: float) -> Refused | None:
        """Have VMware Tools shut the guest down; what refuses that."""
        refusal, unsure = None, False
        for _ in moments(min(deadline, time.monotonic() + BOOTING)):
            try:
                left = max(deadline - time.monotonic(), 0.1)
                self.api.call("ShutdownGuest", self.vm.ShutdownGuest, within=left)
                return None
            except NoAnswer:
                unsure = True  # it may have been heard, and may be asked again
            except Refused as error:
                if unsure or self._state() == OFF:
                    return None  # Tools end where a guest goes down
                refusal = error
                if error.name not in ("ToolsUnavailable", "InvalidState") or self._without_tools():
                    break
        return refusal

    def _without_tools(self) -> bool:
        """Whether there are none at all; a guest that boots has them in a moment."""
        status = read_one(self.api, self.vm, "guest.toolsStatus").get("guest.toolsStatus")
        return bool(status == "toolsNotInstalled")

    def cut(self) -> None:
        """Cut the power; return when the VM is off.

        Raises:
            PowerError: it is still on.
        """
        deadline, words = time.monotonic() + MARGIN, ""
        for _ in moments(deadline):
            words = self._asked("PowerOffVM_Task", self.vm.PowerOffVM_Task, deadline) or self._seen()
            if self._state() == OFF:
                return
            if not words.startswith(("TaskInProgress", "no answer")):
                break
        if not self._becomes(OFF, min(deadline, time.monotonic() + 5)):
            cure = "look at its tasks and events in the vSphere Client"
            raise PowerError(f"vSphere did not cut the power of {self.name}", evidence=words, cure=cure)

    def start(self, timeout: float) -> None:
        """Start the VM; return when it is powered on.

        Raises:
            PowerError: it does not.
        """
        deadline = time.monotonic() + timeout
        words = ""
        for _ in moments(deadline):
            words = self._start(deadline)
            if not words.startswith(("TaskInProgress", "no answer")) or self._state() == ON:
                break
        if self._becomes(ON, deadline if not words else min(deadline, time.monotonic() + 1)):
            return  # whatever was said: it runs, perhaps as somebody else has started it
        raise PowerError(
            f"{self.name} did not start" if words else f"{self.name} did not start in {timeout:.0f} s",
            evidence=words or self._seen(),
            cure=CURES.get(words.partition(":")[0], "see its tasks and events in the vSphere Client"),
        )

    def _start(self, deadline: float) -> str:
        """Ask for it; the words of what stands in the way."""
        if self.tasks.datacenter is None:
            return self._asked("PowerOnVM_Task", self.vm.PowerOnVM_Task, deadline)
        try:
            ask = partial(self.tasks.datacenter.PowerOnMultiVM_Task, [self.vm], None)
            end = self.tasks.end(self.tasks.begin("PowerOnMultiVM_Task", ask), deadline)
            if end is None:
                return ""
            if end.fault is not None:
                return words_of(end.fault)
            result = end.result
            for refusal in getattr(result, "notAttempted", None) or []:
                return words_of(refusal.fault)
            for attempt in getattr(result, "attempted", None) or []:
                own = None if attempt.task is None else self.tasks.end(attempt.task, deadline)
                return words_of(own.fault) if own is not None and own.fault is not None else ""
            return self._follow(list(getattr(result, "recommendations", None) or []))
        except NoAnswer as error:
            return f"no answer: {error.evidence}"
        except Refused as error:
            return error.evidence

    def _follow(self, recommendations: list[Any]) -> str:
        """Where DRS only recommends (its automation is manual), take its first recommendation."""
        if not recommendations:
            return ""
        best = min(recommendations, key=lambda recommended: -int(recommended.rating or 0))
        cluster = best.target
        if not isinstance(cluster, vim.ClusterComputeResource):
            return "DRS recommends a host and waits for somebody to apply that (cluster > Monitor > DRS)"
        try:
            self.tasks.begin("ApplyRecommendation", partial(cluster.ApplyRecommendation, best.key))
        except Refused as error:
            reason = printable(str(best.reasonText), 200)
            return f"DRS recommends to {reason}, and that could not be applied: {error.evidence}"
        return ""

    def _asked(self, request: str, ask: Any, deadline: float) -> str:
        """Have a task done; the words of what it ends with, empty where that is well."""
        try:
            end = self.tasks.end(self.tasks.begin(request, ask), deadline)
        except NoAnswer as error:
            return f"no answer: {error.evidence}"
        except Refused as error:
            return error.evidence
        return words_of(end.fault) if end is not None and end.fault is not None else ""

    def _becomes(self, state: str, deadline: float) -> bool:
        return any(self._state() == state for _ in moments(deadline))

    def _state(self) -> str:
        """poweredOn, poweredOff, suspended; empty where that cannot be told at this moment."""
        try:
            return str(read_one(self.api, self.vm, "runtime.powerState").get("runtime.powerState") or "")
        except NoAnswer:
            return ""

    def _seen(self) -> str:
        """What it does, and whether it waits for an answer."""
        try:
            values = read_one(self.api, self.vm, "runtime.powerState", "runtime.question")
        except NoAnswer as error:
            return error.evidence
        question = values.get("runtime.question")
        asked = f", and waits for an answer: {printable(str(question.text), 300)}" if question else ""
        return f"it is {values.get('runtime.powerState')}{asked}"
