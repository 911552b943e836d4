"""A run over a VM and its host that was killed, and what then works on that VM alone."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from nestvirt import engine
from nestvirt.engine import Session
from nestvirt.errors import ChangeRejected
from nestvirt.journal import Run
from nestvirt.model import Goal, Power, Status, Target
from tests.contract.basis import MANNER, OFF, ON
from tests.contract.test_host_interruptions import World, make, nothing_is_waited_for
from tests.peers import memory

__all__ = ["make", "nothing_is_waited_for"]


def killed_at_start(make: Callable[..., World]) -> tuple[World, Run]:
    """A world whose run was killed when all was written and the VM was to be started."""
    world = make(drained=False, with_vm=True)
    world.enable()
    record = next(world.vms.parent.glob("state/runs/*.jsonl"))
    record.write_text("".join(record.read_text().splitlines(keepends=True)[:-1]))
    world.vms.write_text(json.dumps({"own": {"name": "own", "power": "stopped", "nested": "on"}}))
    return world, world.journal.find(None)


def alone(world: World) -> Session:
    """The VM without its host."""
    backend = memory.MemoryBackend({"path": str(world.vms)})
    return Session(backend, Target("memory", "own"), backend.find("own"), world.journal, "", timeout=0.2)


@pytest.mark.parametrize("goal", [ON, OFF], ids=["enable", "disable"])
def test_a_run_on_the_vm_alone_starts_it_and_leaves_the_host_to_its_own_run(
    make: Callable[..., World], goal: Goal
) -> None:
    world, died = killed_at_start(make)
    assert engine.reach(alone(world), goal, MANNER).conclusion is Status.PASS
    assert world.seen().endswith("running on" if goal.nested else "running off")
    assert [run.state for run in world.journal.runs()] == ["applied", "applied"]
    while world.journal.find(None).id != died.id:
        engine.undo(alone(world), world.journal.find(None), MANNER)
    world.undo()
    assert world.host.nested == "0"


def test_undo_of_one_that_died_after_it_reaches_the_host_as_well(make: Callable[..., World]) -> None:
    world, _died = killed_at_start(make)
    session = alone(world)
    session.journal.begin("enable", session.target, session.vm, Power.RUNNING, session.backend.endpoint)
    newest = world.journal.find(None)
    with pytest.raises(ChangeRejected, match="its host") as caught:
        engine.undo(alone(world), newest, MANNER)
    assert caught.value.cure == f"put back both: nestvirt undo {newest.id}"
    assert world.host.nested == "1"
    whole = world.journal.whole(newest)
    engine.undo(world.session(dict(whole.endpoint)), whole, MANNER)
    assert (world.host.nested, world.seen().split()[-2:]) == ("0", ["running", "off"])
    assert {run.state for run in world.journal.runs()} == {"undone"}
