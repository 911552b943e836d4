"""Power: what a script has seen, and what that comes to. The scripts' answers are played."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nestvirt.backends.hyperv import power
from nestvirt.backends.hyperv.faults import NoAnswer, ScriptFailed
from nestvirt.backends.hyperv.power import Machine
from nestvirt.errors import AccessDenied, Error, PowerError, TargetError
from tests.unit.backends.hyperv_situations import GUID

REFUSED = ScriptFailed(
    "refused",
    evidence="Nicht genügend Arbeitsspeicher",
    id="OperationFailed,Microsoft.HyperV.PowerShell.Commands.StartVM",
    category="NotSpecified",
)
DENIED = ScriptFailed(
    "refused", evidence="Zugriff verweigert", id="AccessDenied,X", category="PermissionDenied"
)
GONE = ScriptFailed(
    "refused", id="InvalidParameter,Microsoft.HyperV.PowerShell.Commands.GetVM", category="InvalidArgument"
)
LOST = NoAnswer("lost")


def seen(
    state: str, code: int | None = 0, group: str = "", facts: dict[str, Any] | None = None
) -> dict[str, Any]:
    """What power.ps1 answers."""
    role = {"cluster": "HVC", "name": "web-01", "state": group} if group else None
    return {"code": code, "state": state, "group": role, "facts": facts}


class Host:
    """Answers one thing after another; the last one again and again."""

    def __init__(self, *answers: dict[str, Any] | Error) -> None:
        self.answers = list(answers)
        self.actions: list[str] = []
        self.held: list[bool] = []

    def __call__(self, phase: str, data: dict[str, Any], timeout: float) -> dict[str, Any]:
        assert (phase, data["id"]) == ("power", GUID)
        assert 1 <= data["looks"] <= max(1, timeout / power.LOOK)
        assert timeout > 0
        self.actions.append(data["action"])
        self.held.append(data["hold"])
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Error):
            raise answer
        return answer


def machine(*answers: dict[str, Any] | Error, askable: bool = True) -> tuple[Machine, Host]:
    host = Host(*answers)
    return Machine(host, GUID, "web-01", askable), host


@pytest.mark.parametrize(
    ("answers", "actions"),
    [
        ([seen("Off")], ["shutdown"]),
        ([seen("Running"), seen("Off")], ["shutdown", "look"]),
        ([seen("Running", 4096), seen("Stopping"), seen("Off")], ["shutdown", "look", "look"]),
        ([seen("Running", 32782), seen("Off")], ["shutdown", "look"]),
        ([seen("Running", 0x8007045B), seen("Off")], ["shutdown", "look"]),
        ([seen("Running", 32780), seen("Running", 0), seen("Off")], ["shutdown", "shutdown", "look"]),
        ([seen("Running", None), seen("Running", 0), seen("Off")], ["shutdown", "shutdown", "look"]),
        ([seen("Running", 32775), seen("Off", 32775)], ["shutdown", "shutdown"]),
        ([LOST, seen("Off")], ["shutdown", "look"]),
        ([LOST, LOST, seen("Off")], ["shutdown", "look", "look"]),
    ],
)
def test_shutting_down(answers: list[dict[str, Any] | Error], actions: list[str]) -> None:
    vm, host = machine(*answers)
    vm.shut_down(30)
    assert host.actions == actions
    assert not any(host.held)


def test_deaf_guest_is_told_with_the_ways_on() -> None:
    vm, _ = machine(seen("Running"))
    with pytest.raises(PowerError, match="did not shut down within 1 s") as caught:
        vm.shut_down(1)
    assert "--force-off" in caught.value.cure
    assert "Running" in caught.value.evidence


@pytest.mark.parametrize(
    ("code", "words"),
    [(None, "no integration service"), (32775, "answers 32775")],
)
def test_guest_that_cannot_be_asked_is_told_why(code: int | None, words: str) -> None:
    vm, _ = machine(seen("Running", code))
    with pytest.raises(PowerError, match="cannot be asked to shut down") as caught:
        vm.shut_down(1)
    assert words in caught.value.evidence
    assert "--force-off" in caught.value.cure


@pytest.mark.parametrize("code", [32781, 0x800704F7])
def test_locked_guest_is_asked_once_and_told_of(code: int) -> None:
    vm, host = machine(seen("Running", code))
    with pytest.raises(PowerError, match="cannot be asked to shut down") as caught:
        vm.shut_down(30)
    assert "the screen is locked" in caught.value.evidence
    assert "turned off where that fails" in caught.value.cure
    assert host.actions == ["shutdown"]


def test_service_that_is_switched_off_is_asked_once() -> None:
    vm, host = machine(seen("Running", None), askable=False)
    with pytest.raises(PowerError):
        vm.shut_down(30)
    assert host.actions == ["shutdown"]


def test_cutting() -> None:
    vm, host = machine(LOST, seen("Running"), seen("Off"))
    vm.cut()
    assert host.actions == ["cut", "look", "look"]
    assert host.held == [True] * 3


def test_power_that_is_not_cut_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power, "MARGIN", 1.0)
    vm, _ = machine(seen("Stopping"))
    with pytest.raises(PowerError, match="cannot be cut") as caught:
        vm.cut()
    assert "Stopping" in caught.value.evidence


FACTS = {"name": "web-01"}


@pytest.mark.parametrize(
    ("answers", "actions"),
    [
        ([seen("Running", facts=FACTS)], ["start"]),
        ([seen("Starting"), seen("Running", facts=FACTS)], ["start", "look"]),
        ([LOST, seen("Running", facts=FACTS)], ["start", "look"]),
        ([seen("Off", group="Pending"), seen("Running", group="Online", facts=FACTS)], ["start", "look"]),
    ],
)
def test_starting(answers: list[dict[str, Any] | Error], actions: list[str]) -> None:
    vm, host = machine(*answers)
    assert vm.start(30) == FACTS
    assert host.actions == actions


@pytest.mark.parametrize(
    ("answer", "words"), [(seen("Off"), "Off"), (seen("Off", group="Failed"), "its cluster calls it Failed")]
)
def test_start_that_comes_to_nothing_is_told_at_once(answer: dict[str, Any], words: str) -> None:
    vm, host = machine(answer)
    with pytest.raises(PowerError, match="did not start") as caught:
        vm.start(30)
    assert words in caught.value.evidence
    assert host.actions == ["start"]


def test_refused_start_has_the_products_words() -> None:
    vm, _ = machine(REFUSED)
    with pytest.raises(PowerError) as caught:
        vm.start(30)
    assert "Arbeitsspeicher" in caught.value.evidence


@pytest.mark.parametrize(("failure", "kind"), [(DENIED, AccessDenied), (GONE, TargetError)])
@pytest.mark.parametrize("ask", [lambda vm: vm.shut_down(1), lambda vm: vm.cut(), lambda vm: vm.start(1)])
def test_what_is_no_question_of_power_is_told_as_what_it_is(
    failure: ScriptFailed, kind: type[Error], ask: Callable[[Machine], object]
) -> None:
    vm, _ = machine(failure)
    with pytest.raises(kind) as caught:
        ask(vm)
    assert caught.value.cure


@pytest.mark.parametrize("nonsense", [{}, seen("Off") | {"code": "0"}, seen("Off") | {"state": 3}], ids=str)
def test_nonsense_is_an_error(nonsense: dict[str, Any]) -> None:
    vm, _ = machine(nonsense)
    with pytest.raises(Error, match="not what was asked for"):
        vm.start(1)
