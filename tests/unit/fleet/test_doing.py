"""What is done with one of many: what was agreed to and nothing else; and VMs that are read ahead."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nestvirt.engine import Manner, Step
from nestvirt.errors import ChangeRejected
from nestvirt.fleet.cluster import Cluster
from nestvirt.fleet.doing import PAGE, Doing, Foresight, Reaching
from nestvirt.fleet.endpoints import Endpoints
from nestvirt.fleet.nodes import Nodes
from nestvirt.fleet.selection import Member, Selection
from nestvirt.journal import Journal
from nestvirt.model import (
    Ending,
    Finding,
    Layer,
    Plan,
    Power,
    Report,
    Row,
    Status,
    Target,
    Vm,
)
from tests.peers import memory
from tests.peers.kubectl import FakeKubectl
from tests.peers.memory_fleet import MemoryFleet


class Foreseeing(memory.MemoryBackend):
    """Notes which VMs were to be read ahead, and which can be forgotten."""

    foreseen: list[list[str]]
    forgotten: list[str]

    def foresee(self, vms: Sequence[Vm]) -> None:
        type(self).foreseen.append([vm.name for vm in vms])

    def forget(self, vm: Vm) -> None:
        type(self).forgotten.append(vm.name)


def tell(_step: Step, _detail: str) -> None:
    """Nobody looks."""


def nobody(_plan: Plan) -> None:
    """A plan alone asks nobody."""


def all_of(fleet: MemoryFleet) -> list[Member]:
    return Selection(Endpoints(lambda _place: {"path": str(fleet.path)})).of(["memory: *"])


def doing(fleet: MemoryFleet, members: Sequence[Member], **more: Any) -> Doing:
    return Doing(Journal(fleet.state), Foresight(members), **more)


def reaching(fleet: MemoryFleet, members: Sequence[Member]) -> Reaching:
    return Reaching(doing(fleet, members), Manner(nobody, dry_run=True))


def edit(fleet: MemoryFleet, name: str, **fields: Any) -> None:
    vms = json.loads(fleet.path.read_text())
    vms[f"id-{name}"] |= fields
    fleet.path.write_text(json.dumps(vms))


def test_what_was_agreed_to_is_done(fleet: MemoryFleet) -> None:
    fleet.add("a")
    [member] = all_of(fleet)
    planned = reaching(fleet, [member])
    plan = planned.plan(member, tell)
    assert plan.planned
    assert fleet.vms()["a"].get("nested") is None
    report = replace(planned, plans={member.written: plan}).carry_out(member, tell)
    assert Row(member.written, report).ending is Ending.PASS


def test_where_something_else_would_have_to_be_done_by_now_nothing_is(fleet: MemoryFleet) -> None:
    fleet.add("a")
    [member] = all_of(fleet)
    planned = reaching(fleet, [member])
    plan = planned.plan(member, tell)
    edit(fleet, "a", nested="off")
    before = fleet.path.read_bytes()
    with pytest.raises(ChangeRejected, match="agreed to"):
        replace(planned, plans={member.written: plan}).carry_out(member, tell)
    assert fleet.path.read_bytes() == before


@pytest.mark.parametrize(("shown", "now"), [("stopped", "running"), ("running", "stopped")])
def test_who_was_started_or_stopped_since_it_was_shown_is_left_alone(
    fleet: MemoryFleet, shown: str, now: str
) -> None:
    fleet.add("a", power=shown)
    [member] = all_of(fleet)
    planned = reaching(fleet, [member])
    plan = planned.plan(member, tell)
    edit(fleet, "a", power=now)
    before = fleet.path.read_bytes()
    with pytest.raises(ChangeRejected, match="agreed to") as caught:
        replace(planned, plans={member.written: plan}).carry_out(member, tell)
    assert caught.value.evidence.startswith("it would write nested")
    assert ("power-cycle" in caught.value.evidence) is (now == "running")
    assert fleet.path.read_bytes() == before


def test_who_owes_its_power_since_it_was_shown_is_left_alone(fleet: MemoryFleet) -> None:
    fleet.add("a", running=False)
    [member] = all_of(fleet)
    planned = reaching(fleet, [member])
    plan = planned.plan(member, tell)
    Journal(fleet.state).begin("enable", Target("memory", "id-a"), Vm("id-a", "a"), Power.RUNNING, {})
    before = fleet.path.read_bytes()
    with pytest.raises(ChangeRejected, match="agreed to") as caught:
        replace(planned, plans={member.written: plan}).carry_out(member, tell)
    assert "which an interrupted run has left off" in caught.value.evidence
    assert fleet.path.read_bytes() == before


def test_what_has_to_be_minded_only_since_it_was_shown_was_not_agreed_to(
    fleet: MemoryFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.add("a")
    [member] = all_of(fleet)
    planned = reaching(fleet, [member])
    plan = planned.plan(member, tell)
    mind = Finding("vm-snapshot-memory", Layer.VM, Status.WARN, "a snapshot of its memory", "take a new one")
    judge = memory.MemoryFacts.judge
    monkeypatch.setattr(memory.MemoryFacts, "judge", lambda facts, goal: [*judge(facts, goal), mind])
    before = fleet.path.read_bytes()
    with pytest.raises(ChangeRejected, match="agreed to") as caught:
        replace(planned, plans={member.written: plan}).carry_out(member, tell)
    assert "mind vm-snapshot-memory: a snapshot of its memory" in caught.value.evidence
    assert fleet.path.read_bytes() == before
    again = planned.plan(member, tell)
    assert replace(planned, plans={member.written: again}).carry_out(member, tell).changes


def test_where_somebody_else_has_done_it_meanwhile_it_is_only_verified(fleet: MemoryFleet) -> None:
    fleet.add("a")
    [member] = all_of(fleet)
    planned = reaching(fleet, [member])
    plan = planned.plan(member, tell)
    edit(fleet, "a", nested="on", live="on")
    report = replace(planned, plans={member.written: plan}).carry_out(member, tell)
    assert Row(member.written, report).ending is Ending.PASS
    assert "boots" not in fleet.vms()["a"]


def test_what_is_as_it_should_be_is_proven_with_the_plan_and_told_to_who_keeps_proofs(
    fleet: MemoryFleet,
) -> None:
    fleet.add("a", nested="on", live="on")
    [member] = all_of(fleet)
    told: list[tuple[str, str]] = []

    def proven(backend: str, vm: Vm, report: Report) -> None:
        told.append((backend, vm.name))

    work = replace(reaching(fleet, [member]), doing=doing(fleet, [member], proven=proven))
    assert not work.plan(member, tell).planned
    assert told == [("memory", "a")]


def test_vms_are_read_ahead_page_by_page_each_once_and_forgotten(
    fleet: MemoryFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "MemoryBackend", Foreseeing)
    Foreseeing.foreseen, Foreseeing.forgotten = [], []
    vms = {f"id-{n}": {"name": f"vm-{n}", "power": "stopped"} for n in range(PAGE + 5)}
    fleet.path.write_text(json.dumps(vms))
    members = all_of(fleet)
    work = doing(fleet, members)
    for member in (*members[:3], members[-1]):
        work.check(member, tell)
    assert [len(page) for page in Foreseeing.foreseen] == [PAGE, 5]
    assert Foreseeing.forgotten == ["vm-0", "vm-1", "vm-2", f"vm-{PAGE + 4}"]


def test_what_was_read_ahead_long_ago_is_read_anew_but_for_those_begun(
    fleet: MemoryFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "MemoryBackend", Foreseeing)
    monkeypatch.setattr("nestvirt.fleet.doing.AGE", 0.0)
    Foreseeing.foreseen, Foreseeing.forgotten = [], []
    for name in "abc":
        fleet.add(name)
    members = all_of(fleet)
    work = doing(fleet, members)
    for member in members:
        work.check(member, tell)
    assert Foreseeing.foreseen == [["a", "b", "c"], ["b", "c"], ["c"]]


def test_what_is_said_of_many_in_the_same_words_is_kept_once(fleet: MemoryFleet) -> None:
    for name in "ab":
        fleet.add(name, power="suspended")
    a, b = all_of(fleet)
    work = doing(fleet, [a, b])
    first, second = (work.check(member, tell).findings for member in (a, b))
    assert first[0] == second[0]
    assert first[0] is second[0]


def test_its_cures_name_it_as_the_command_line_does(fleet: MemoryFleet) -> None:
    fleet.add("a")
    [member] = all_of(fleet)
    spelled = doing(fleet, [member], spelling=lambda target: f"--memory {target.name} --profile lab")
    cures = [finding.cure for finding in spelled.check(member, tell).findings]
    assert "nestvirt enable --memory id-a --profile lab" in cures
    plain = doing(fleet, [replace(member, target=Target("memory", "a b"))])
    cures = [f.cure for f in plain.check(replace(member, target=Target("memory", "a b")), tell).findings]
    assert "nestvirt enable 'memory:a b'" in cures


def test_the_plan_says_that_power_would_be_cut(fleet: MemoryFleet) -> None:
    fleet.add("a")
    fleet.add("b", running=False)
    a, b = all_of(fleet)
    cutting = Reaching(doing(fleet, [a, b], timeout=7), Manner(nobody, force_off=True, dry_run=True))
    [_, cut] = cutting.plan(a, tell).remains
    assert "cut the power after 7 s" in cut
    assert "cut" not in "".join(cutting.plan(b, tell).remains)
    assert "cut" not in "".join(reaching(fleet, [a]).plan(a, tell).remains)


@pytest.mark.parametrize("running", [False, True])
def test_under_a_node_that_is_not_ready_a_vm_is_started_and_never_stopped(
    fleet: MemoryFleet, tmp_path: Path, running: bool
) -> None:
    fleet.add("a", running=running, nested=None if running else "on")
    [member] = all_of(fleet)
    kubectl = FakeKubectl(tmp_path)
    kubectl.behave(
        f"vm = json.load(open({str(fleet.path)!r}))['id-a']\n"
        "state = {'conditions': [{'type': 'Ready', 'status': str('boots' in vm)}]}\n"
        "state['nodeInfo'] = {'bootID': str(vm.get('boots', 0))}\n"
        "node = {'metadata': {'name': 'a'}, 'spec': {'unschedulable': True}, 'status': state}\n"
        "if '--raw' in argv: say(json.dumps(node if '/nodes/a' in argv[-1] else {'items': [node]}))\n"
    )
    nodes = Nodes(Cluster(kubectl.kube), None, 20, left={"a"})
    work = replace(reaching(fleet, [member]), nodes=nodes)
    if running:
        with pytest.raises(ChangeRejected, match="a is not Ready"):
            work.plan(member, tell)
        nodes.left.clear()
        return
    vm = Vm("id-a", "a")
    work.doing.journal.begin("enable", Target("memory", "a"), vm, Power.RUNNING, {"path": str(fleet.path)})
    plan = work.plan(member, tell)
    assert plan.cycled
    replace(work, plans={member.written: plan}).carry_out(member, tell)
    words = [call["argv"][-2:] for call in kubectl.calls if "--raw" not in call["argv"]]
    assert words == [["uncordon", "a"]]
    assert "/nodes/a" in kubectl.calls[-2]["argv"][-1]  # it was waited for


def test_of_a_node_that_was_to_be_first_and_is_not_ready_no_other_takes_advantage(
    fleet: MemoryFleet, tmp_path: Path
) -> None:
    fleet.add("a")
    [member] = all_of(fleet)
    kubectl, unready = FakeKubectl(tmp_path), tmp_path / "unready"
    kubectl.behave(
        f"ready = str(not os.path.exists({str(unready)!r}))\n"
        "status = {'conditions': [{'type': 'Ready', 'status': ready}]}\n"
        "node = {'metadata': {'name': 'a'}, 'status': status}\n"
        "say(json.dumps(node if '/nodes/a' in argv[-1] else {'items': [node]}))\n"
    )
    nodes = Nodes(Cluster(kubectl.kube), None, 20)
    work = replace(reaching(fleet, [member]), nodes=nodes)
    plan = work.plan(member, tell)
    nodes.due.add("a")
    unready.touch()
    with pytest.raises(ChangeRejected, match="a is not Ready"):
        replace(work, plans={member.written: plan}).carry_out(member, tell)
    assert nodes.due == set()
