"""What a host goes on with, by the command lines of its processes."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from nestvirt.backends.hyperv import lingering, scripts
from nestvirt.errors import Error

GUID, OTHER = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0", "11111111-2222-3333-4444-555555555555"
WRITE = {
    "id": GUID,
    "setting": "MacAddressSpoofing:" + "A" * 80,
    "before": "true, minimum=536870912, startup=8589934592, maximum=1099511627776",
    "value": {"dynamic": True, "minimum": 1 << 62, "startup": 1 << 62, "maximum": 1 << 62},
    "adapter": "A" * 80,
}
ASK = {"id": GUID, "action": "shutdown", "wanted": "Off", "looks": 100_000}


def line(phase: str, data: dict[str, Any]) -> str:
    return " ".join((scripts.PROGRAM, *scripts.invocation(phase, data).arguments))


def told(*lines: object, state: str = "Running") -> str:
    return lingering.told(GUID, {"state": state, "lines": list(lines)})


@pytest.mark.parametrize(("phase", "data"), [("apply", WRITE), ("power", ASK)])
def test_whatever_changes_something_goes_by_the_command_line_where_it_is_seen(
    phase: str, data: dict[str, Any]
) -> None:
    sent = line(phase, data)
    assert scripts.MARK in sent
    assert scripts.given(sent) == data


def test_scripts_that_change_the_vm_are_told() -> None:
    assert told(line("power", ASK)) == "a script of an earlier run (shutdown)"
    assert told(line("power", ASK), f'"{line("apply", {"id": GUID, "setting": "Version"})}" ') == (
        "a script of an earlier run (shutdown); a script of an earlier run (Version)"
    )


def test_what_only_reads_and_what_is_about_another_vm_is_not() -> None:
    reading = [line(phase, {"id": GUID, "mark": scripts.MARK}) for phase in ("at_work", "read", "heartbeat")]
    assert told(*reading, line("power", {**ASK, "id": OTHER})) == ""


@pytest.mark.parametrize("state", ["Running", "Off", "Saved", "Paused", "OffCritical"])
def test_a_state_that_lasts_is_nothing_at_work(state: str) -> None:
    assert told(state=state) == ""


def test_a_state_in_passing_is() -> None:
    assert told(state="Stopping") == "the VM is Stopping"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "powershell.exe",
        "powershell.exe -EncodedCommand %%%",
        f"powershell.exe -EncodedCommand {scripts.MARK}",
        *(
            f"x {base64.b64encode(script.encode('utf-16-le')).decode()}"
            for script in ("$nestvirtData = 'AAAA'", "$nestvirtData = 'W10='", "Get-VM", "$nestvirtData = ''")
        ),
    ],
)
def test_another_ones_command_line_is_none_of_ours(text: str) -> None:
    assert scripts.given(text) == {}
    assert told(text, None, 7) == ""


def test_a_value_that_is_no_text_is_harmless() -> None:
    assert told(line("power", {"id": GUID, "action": "\x1b[2J" + "x" * 1000})).count("x") < 200
    assert told(line("power", {"id": [GUID], "action": {}})) == ""


@pytest.mark.parametrize("answer", [{}, {"state": 7, "lines": []}, {"state": "Off", "lines": None}])
def test_nonsense_is_said_to_be(answer: dict[str, Any]) -> None:
    with pytest.raises(Error, match="not what was asked for"):
        lingering.told(GUID, answer)
