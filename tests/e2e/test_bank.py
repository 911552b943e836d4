"""The probe is right about every machine of the bank, each of them really booted (make bank shows them)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.lab import LabError, need
from tests.lab.artifacts import artifacts
from tests.lab.bank import AT_ONCE
from tests.lab.boot import Seen, look, missing
from tests.lab.machines import MACHINES, Machine

BANK = [machine for machine in MACHINES if machine.verdict is not None]

Look = Callable[[Machine], Seen]


@pytest.fixture(scope="session")
def see(request: pytest.FixtureRequest) -> Iterator[Look]:
    """What is seen in a machine. All that this session asks for are booted ahead, two at a time."""
    try:
        artifacts()
    except (LabError, OSError) as error:
        need(error, "the lab's guest cannot be built")
    asked = [
        item.callspec.params.get("machine") for item in request.session.items if hasattr(item, "callspec")
    ]
    pool = ThreadPoolExecutor(AT_ONCE)
    booted = {m.name: pool.submit(look, m) for m in BANK if m in asked and not missing(m)}
    yield lambda machine: booted[machine.name].result()
    pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("machine", BANK, ids=lambda machine: machine.name)
def test_the_probe_says_what_is_true(machine: Machine, see: Look) -> None:
    need(not missing(machine), f"not installed: {', '.join(missing(machine))}")
    assert see(machine).faults(machine) == []
