"""vSphere's tasks: begun, waited for, and never forgotten while they may still do something.

API: vim.Task, and ManagedEntity.recentTask, which names a task whose answer got lost.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from pyVmomi import vim

from nestvirt.backends.base import moments
from nestvirt.backends.vsphere.api import Api
from nestvirt.backends.vsphere.faults import GONE, NoAnswer, Refused
from nestvirt.backends.vsphere.reading import properties, selection, step
from nestvirt.printable import printable

SETTLE = 20.0
"""Seconds for a task that nobody waits for any more: once before it is cancelled, and once after."""

_ENDED, _GOING_ON = ("success", "error"), ("queued", "running")
_GOING_DOWN = ("shuttingDown", "resetting")
_STARTING = "poweron"  # as in Datacenter.powerOnVm, which is what vCenter calls PowerOnMultiVM_Task


class AtWork(NamedTuple):
    """A task that is queued or runs.

    Attributes:
        words: what it does, and for whom; for people.
    """

    task: Any
    words: str


class Ended(NamedTuple):
    """A task's end.

    Attributes:
        fault: what it ended with; None where it succeeded.
        result: what it gave.
    """

    fault: Any
    result: Any


def read_one(api: Api, entity: Any, *paths: str) -> dict[str, Any]:
    """Some properties of one object."""
    specs = [selection(entity, [], properties(type(entity), list(paths)))]
    return next((values for _, values in api.retrieve(specs)), {})


class Tasks:
    """What was begun on one VM, and has not been seen to end.

    Args:
        datacenter: which starts it, on a vCenter; None for an ESXi host by itself.
    """

    def __init__(self, api: Api, vm: Any, datacenter: Any) -> None:
        self._api = api
        self._vm = vm
        self.datacenter = datacenter
        self._open: list[Any] = []
        self._unclaimed: list[Any] = []  # of the open ones, those that may be somebody else's
        self._unsure = False  # there may be one whose answer did not come
        self._starts: list[Any] | None = None  # the datacenter's at the first look; later ones are others'

    def begin(self, request: str, ask: Callable[[], Any]) -> Any:
        """Send a request that begins a task; return that.

        Raises:
            Refused: none was begun.
            NoAnswer: it is not known whether one was.
        """
        before, self._unsure = self._unsure, True  # until it is answered; a Ctrl-C may come first
        try:
            task = self._api.call(request, ask)
        except Refused:
            self._unsure = before
            raise
        if task is not None:  # None: what it began has no name yet
            self._open.append(task)
            self._unsure = before
        elif request.endswith("_Task"):
            raise NoAnswer(
                "vSphere's answer names no task",
                evidence=request,
                cure="see that no proxy answers in its place",
            )
        return task

    def end(self, task: Any, deadline: float) -> Ended | None:
        """Wait for a task; None where it has not ended in time, or is not to be seen any more.

        Raises:
            NoAnswer: vSphere does not let us look. That says nothing about the task.
        """
        refusal: Refused | None = None
        for _ in moments(deadline):
            try:
                info, refusal = read_one(self._api, task, "info").get("info"), None
            except Refused as error:
                if error.name == GONE:  # vSphere keeps those that have ended for a few minutes
                    self._forget(task)
                    return None
                refusal = error
                continue
            if info is not None and info.state in _ENDED:
                self._forget(task)
                attempts = getattr(info.result, "attempted", None) or []
                begun = [attempt.task for attempt in attempts if attempt.task is not None]
                self._open += begun
                self._unclaimed += begun if task in self._unclaimed else []
                return Ended(info.error if info.state == "error" else None, info.result)
        if refusal is not None:
            raise NoAnswer(refusal.message, evidence=refusal.evidence, cure=refusal.cure) from refusal
        return None

    def settle(self) -> None:
        """Wait for the end of all that was begun, and cancel what does not end: then nothing lands late.

        What may be somebody else's is waited for alone.

        Raises:
            NoAnswer: something is still at work on the VM.
        """
        if self._unsure:
            self._starts = None
            found = [at_work.task for at_work in self._running() if at_work.task not in self._open]
            self._open += found
            self._unclaimed += found
            self._unsure = False
        while self._open:
            task = self._open[-1]
            if self.end(task, time.monotonic() + SETTLE) is None and task in self._open:
                if task not in self._unclaimed:
                    with contextlib.suppress(Refused):  # some cannot be cancelled, or have just ended
                        self._api.call("CancelTask", task.CancelTask)
                if self.end(task, time.monotonic() + SETTLE) is None and task in self._open:
                    raise NoAnswer(
                        "a task of vSphere's is still at work on the VM",
                        evidence=f"{printable(str(task._GetMoId()), 100)} has not ended",
                        cure="wait for its end (vSphere Client: Recent Tasks)",
                    )

    def at_work(self) -> str:
        """What happens to the VM at this moment, whoever began it, for people; empty for nothing."""
        state = read_one(self._api, self._vm, "guest.guestState").get("guest.guestState")
        guest = [f"its guest ({state})"] if state in _GOING_DOWN else []  # asked to, which is no task
        return "; ".join([found.words for found in self._running()] + guest)

    def _running(self) -> list[AtWork]:
        """The VM's tasks that have not ended, and the datacenter's that start VMs, of which it may be one."""
        datacenter = self.datacenter
        places = [self._vm] if datacenter is None else [self._vm, datacenter]
        told = properties(vim.Task, ["info.state", "info.descriptionId", "info.reason", "info.entity"])
        specs = [selection(place, [step(type(place), "recentTask")], told) for place in places]
        found: list[AtWork] = []
        starts: list[AtWork] = []
        for task, values in self._api.retrieve(specs):
            if str(values.get("info.state")) not in _GOING_ON:
                continue
            if datacenter is None or values.get("info.entity") != datacenter:
                found.append(AtWork(task, _words(task, values)))
            elif _STARTING in str(values.get("info.descriptionId")).lower():
                starts.append(AtWork(task, _words(task, values)))
        if self._starts is None:
            self._starts = [start.task for start in starts]
        return found + [start for start in starts if start.task in self._starts]

    def _forget(self, task: Any) -> None:
        self._open = [other for other in self._open if other != task]


def _words(task: Any, values: dict[str, Any]) -> str:
    reason = values.get("info.reason")
    who = f" for {reason.userName}" if isinstance(reason, vim.TaskReasonUser) else ""
    return printable(f"{values.get('info.descriptionId')}{who} ({task._GetMoId()})", 200)
