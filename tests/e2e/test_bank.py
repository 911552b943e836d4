"""The probe is right about every machine of the bank, each of them really booted (make bank shows them)."""

from __future__ import annotations

import pytest

from tests.lab import LabError, need
from tests.lab.artifacts import artifacts
from tests.lab.boot import look, missing
from tests.lab.machines import MACHINES, Machine

BANK = [machine for machine in MACHINES if machine.verdict is not None]


@pytest.mark.parametrize("machine", BANK, ids=lambda machine: machine.name)
def test_the_probe_says_what_is_true(machine: Machine) -> None:
    need(not missing(machine), f"not installed: {', '.join(missing(machine))}")
    try:
        artifacts()
    except (LabError, OSError) as error:
        need(error, "the lab's guest cannot be built")
    assert look(machine).faults(machine) == []
