"""How much Proxmox is asked: few requests for the facts, few for enable, and no busy waiting."""

from __future__ import annotations

import time

import pytest

from nestvirt import engine
from nestvirt.backends.proxmox import tasks
from nestvirt.journal import Journal
from nestvirt.model import Status
from tests.contract.conformance import MANNER, ON
from tests.contract.runs import session
from tests.peers.proxmox_rig import ProxmoxRig


def test_facts_of_a_vm_take_six_requests_and_later_ones_two(rig: ProxmoxRig, journal: Journal) -> None:
    name = rig.make()
    now = session(rig, journal, name)
    traffic = rig.pve.traffic
    traffic.clear()
    now.backend.read(now.vm)
    assert traffic.counts.total() <= 6, traffic.table()
    traffic.clear()
    now.backend.read(now.vm)
    assert traffic.counts.total() == 2, traffic.table()


def test_enable_takes_ten_requests_beside_facts_and_polling(rig: ProxmoxRig, journal: Journal) -> None:
    name = rig.make()
    traffic = rig.pve.traffic
    traffic.clear()
    assert engine.reach(session(rig, journal, name), ON, MANNER).conclusion is Status.PASS
    # Each reading of facts asks for the state once; that is no waiting.
    waiting = traffic.polls - traffic.count("GET", "/pending")
    assert traffic.counts.total() - 6 - waiting <= 10, traffic.table()


def test_waiting_asks_less_and_less_often_and_ends_on_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, pauses = [0.0], []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", sleep)
    looks = sum(1 for _ in tasks.moments(60.0))
    assert clock[0] == pytest.approx(60.0)
    assert looks == len(pauses) + 1
    assert pauses[:-1] == sorted(pauses[:-1])
    assert pauses[0] >= 0.1
    assert max(pauses) <= 2.0
    assert looks < 45
