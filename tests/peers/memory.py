"""An in-memory hypervisor with a backend: VMs in one JSON file, so that they outlive a killed process.

It has one setting, ``nested``, which a VM takes over at power-on, as real ones do. Its quirks are those that
the conformance suite asks for: a deaf guest, a VM that does not start with nesting, an endpoint that is down.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from nestvirt.backends.base import Kind, Listed, Place, nesting_of
from nestvirt.errors import AccessDenied, ChangeRejected, ConnectionFailed, PowerError, TargetError
from nestvirt.guest.channel import Channel, Completed
from nestvirt.model import Change, ColdBoot, Finding, Goal, Layer, Power, Status, Target, Vm
from tests.peers.guest_answers import NO_FLAG, WORKS, probe_answer

REGISTRATION = ("memory", "tests.peers.memory:MemoryBackend")
_writing = threading.Lock()


@dataclass(frozen=True)
class MemoryFacts:
    """What the file says of one VM."""

    name: str
    power: Power
    nested: str | None
    live: str | None

    busy = ""
    waiting = ""

    def has(self, change: Change) -> bool:
        return self.live == change.after

    def value(self, setting: str) -> str | None:
        assert setting == "nested"
        return self.nested

    def judge(self, goal: Goal) -> Sequence[Finding]:
        wanted = "on" if goal.nested else "off"
        if self.power is Power.SUSPENDED:
            return [Finding("vm-suspended", Layer.VM, Status.FAIL, "it is suspended", "resume it")]
        if (self.nested == "on") is not goal.nested:
            former = goal.former
            put_back = former is not None and former.after == self.nested and former.before != "on"
            fix = Change("nested", self.nested, former.before if former and put_back else wanted)
            cure = "nestvirt enable --memory"
            return [Finding("vm-cpu", Layer.VM, Status.FAIL, f"nested is {self.nested}", cure, fix)]
        found = [Finding("vm-cpu", Layer.VM, Status.PASS, f"nested is {self.nested}")]
        if self.power is Power.RUNNING and (self.live == "on") is not goal.nested:
            evidence = f"configured {self.nested}, running with {self.live}"
            found.append(
                Finding("vm-cpu-pending", Layer.VM, Status.FAIL, evidence, "power-cycle it", ColdBoot())
            )
        return found


def _facts(vm: Mapping[str, Any]) -> MemoryFacts:
    return MemoryFacts(vm["name"], Power(vm["power"]), vm.get("nested"), vm.get("live"))


class MemoryGuest:
    """A channel whose guest has the flag or has it not."""

    name = "memory"

    def __init__(self, nested: bool) -> None:
        self._nested = nested

    def ping(self, *, timeout: float) -> None:
        assert timeout > 0

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float) -> Completed:
        assert argv[0] == "python3"
        assert stdin
        return Completed(0, probe_answer(WORKS if self._nested else NO_FLAG).encode(), b"")


class MemoryBackend:
    """See Backend. The endpoint is the file's path, and the seconds that a ``boot`` takes.

    The ``user`` may be a wrong one, and the file may be away.
    """

    kind = Kind(parallel=64)

    def __init__(self, endpoint: Mapping[str, str]) -> None:
        self.endpoint = endpoint
        self._path = Path(endpoint["path"])
        self._open = True

    @classmethod
    def connect(cls, target: Target, endpoint: Mapping[str, str]) -> Self:
        backend = cls(endpoint)
        backend._load()
        if endpoint.get("user", "admin") != "admin":
            raise AccessDenied("refused", evidence="that user may not", cure="use another one")
        return backend

    def find(self, name: str) -> Vm:
        found = [Vm(vm_id, vm["name"]) for vm_id, vm in self._load().items() if name in (vm_id, vm["name"])]
        if len(found) == 1:
            return found[0]
        known = ", ".join(f"{vm['name']} ({vm_id})" for vm_id, vm in self._load().items())
        raise TargetError(
            f"{len(found)} VMs are called {name!r}", evidence=f"there is: {known}", cure="give the id"
        )

    def listed(self) -> Iterator[Listed]:
        for vm_id, vm in self._load().items():
            facts = _facts(vm)
            labels = {"tag": tuple(vm.get("tags", ())), "id": (vm_id,)}
            yield Listed(Vm(vm_id, vm["name"]), vm_id, facts.power, nesting_of(facts.judge), labels)

    def host_of(self, vm: Vm) -> Place:
        return Place("node1", None)

    def read(self, vm: Vm) -> MemoryFacts:
        return _facts(self._load()[vm.id])

    def apply(self, vm: Vm, change: Change) -> None:
        with self._changing() as state:
            if state[vm.id].get("nested") != change.before:
                raise ChangeRejected("changed by somebody else", evidence="it differs", cure="run it again")
            if change.after not in ("on", "off", None):
                raise ChangeRejected("no such value", evidence=f"{change.after}", cure="on or off")
            state[vm.id]["nested"] = change.after
            if change.after is None:
                del state[vm.id]["nested"]

    def stop(self, vm: Vm, *, timeout: float) -> None:
        if self._load()[vm.id].get("deaf"):
            raise PowerError(f"still on after {timeout} s", evidence="it does not listen", cure="--force-off")
        self.power_off(vm)

    def power_off(self, vm: Vm) -> None:
        with self._changing() as state:
            state[vm.id] |= {"power": "stopped", "live": None}

    def start(self, vm: Vm, *, timeout: float) -> None:
        assert timeout > 0
        time.sleep(float(self.endpoint.get("boot", "0")))
        with self._changing() as state:
            if state[vm.id].get("fragile") and state[vm.id].get("nested") == "on":
                raise PowerError("it did not start", evidence="CPU refused", cure="look at its log")
            boots = state[vm.id].get("boots", 0) + 1
            state[vm.id] |= {"power": "running", "live": state[vm.id].get("nested"), "boots": boots}

    def channel(self, vm: Vm) -> Channel | None:
        return MemoryGuest(self._load()[vm.id].get("live") == "on")

    def close(self) -> None:
        self._open = False

    def _load(self) -> dict[str, dict[str, Any]]:
        if not self._open:
            raise ConnectionFailed("the connection is closed", evidence="closed", cure="open it again")
        try:
            state: dict[str, dict[str, Any]] = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ConnectionFailed("no answer", evidence=str(error), cure="start it") from error
        return state

    @contextmanager
    def _changing(self) -> Iterator[dict[str, dict[str, Any]]]:
        """What it holds, to be written back when the context ends well; for one thread at a time."""
        with _writing:
            state = self._load()
            yield state
            self._save(state)

    def _save(self, state: dict[str, dict[str, Any]]) -> None:
        scratch = self._path.with_suffix(".new")
        scratch.write_text(json.dumps(state, indent=1, sort_keys=True), encoding="utf-8")
        scratch.replace(self._path)
