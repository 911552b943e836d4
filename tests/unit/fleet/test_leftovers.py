"""Nodes that a run which died has left cordoned: whose they are, and what becomes of them."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import pytest

from nestvirt.errors import ChangeRejected
from nestvirt.fleet import recorded
from nestvirt.fleet.cluster import Cluster
from nestvirt.fleet.leftovers import Leftovers
from nestvirt.fleet.nodes import Nodes
from nestvirt.fleet.record import FleetRuns
from nestvirt.fleet.recorded import Recorded
from nestvirt.fleet.selection import Member
from nestvirt.model import Target
from tests.peers.kubectl import FakeKubectl

MEMBERS = [Member("memory:a", Target("memory", "a"))]


def cluster(folder: Path, cordoned: str = "ab") -> Nodes:
    """A cluster with the nodes a and b."""
    kubectl = FakeKubectl(folder)
    nodes = {
        n: {"metadata": {"name": n, "uid": f"uid-of-{n}"}, "spec": {"unschedulable": n in cordoned}}
        for n in "ab"
    }
    by_name, listing = {n: json.dumps(nodes[n]) for n in nodes}, json.dumps({"items": [*nodes.values()]})
    kubectl.behave(f"say({by_name!r}.get(argv[-1].rpartition('/')[2], {listing!r}))")
    return Nodes(Cluster(kubectl.kube), None, 5)


def left(runs: FleetRuns, **cordoned: str) -> str:
    """The id of a run that died with those cordoned."""
    with runs.begin("enable", MEMBERS, {}) as record:
        for node, uid in cordoned.items():
            record.cordoning(node, uid)
    return record.id


def test_what_is_uncordoned_is_so_in_both_records(tmp_path: Path) -> None:
    runs, nodes = FleetRuns(tmp_path), cluster(tmp_path)
    died = left(runs, a="uid-of-a")
    with ExitStack() as open_things:
        notes = Leftovers(runs, open_things)
        [said] = notes.take_up(nodes, {"a", "b"})
        assert said == f"run {died} has left the node a cordoned; to uncordon it is in the plan"
        nodes.notes, notes.own = notes, open_things.enter_context(runs.begin("enable", MEMBERS, {}))
        notes.cordoning("b", "uid-of-b")
        nodes.uncordon("a")
    assert nodes.left == set()
    assert runs.find(died, "enable").cordoned == {}
    assert runs.find(notes.own.id, "enable").cordoned == {"b": "uid-of-b"}


def test_the_node_of_another_cluster_that_is_called_the_same_is_let_be(tmp_path: Path) -> None:
    runs, nodes = FleetRuns(tmp_path), cluster(tmp_path)
    left(runs, a="uid-of-another-a", c="uid-of-c")
    with ExitStack() as open_things:
        assert list(Leftovers(runs, open_things).take_up(nodes, {"a", "c"})) == []
    assert nodes.left == set()


def test_a_node_that_is_none_of_this_run_is_told_of_and_its_run_can_be_gone_on_with(tmp_path: Path) -> None:
    runs, nodes = FleetRuns(tmp_path), cluster(tmp_path)
    died = left(runs, a="uid-of-a")
    with ExitStack() as open_things:
        [said] = Leftovers(runs, open_things).take_up(nodes, {"b"})
        assert said.endswith(f"nestvirt enable --resume {died}")
        runs.reopen(runs.find(died, "enable")).__exit__()
    assert nodes.left == set()


def test_what_was_down_then_is_waited_for_whose_ever_it_is_and_its_record_told(tmp_path: Path) -> None:
    runs, nodes = FleetRuns(tmp_path), cluster(tmp_path)
    with runs.begin("enable", MEMBERS, {}) as record:
        for node in "abc":
            record.leaving(node, f"uid-of-{node}", "boot-1")
        record.back("a")
    with ExitStack() as open_things:
        nodes.notes = notes = Leftovers(runs, open_things)
        [said] = notes.take_up(nodes, set())
        assert "the node b down, or was about to, and no other is drained until it is seen back" in said
        assert said.endswith(f": nestvirt enable --resume {record.id}")
        assert nodes.lost == {"b": "boot-1"}  # c is none of this cluster's
        assert list(notes.take_up(nodes, {"b"})) == []  # this run has it up itself
        notes.back("b")
    assert set(runs.find(record.id, "enable").away) == {"c"}


def test_of_the_run_that_is_gone_on_with_all_nodes_count_and_its_record_is_this_ones(tmp_path: Path) -> None:
    runs, nodes = FleetRuns(tmp_path), cluster(tmp_path)
    died = runs.find(left(runs, a="uid-of-a", b=""), "enable")
    with ExitStack() as open_things:
        own = open_things.enter_context(runs.reopen(died))
        notes = Leftovers(runs, open_things, own=own, before=died)
        assert len(list(notes.take_up(nodes, set()))) == 2
        assert (nodes.left, notes.found) == ({"a", "b"}, {"a": died.id, "b": died.id})
        notes.uncordoned("a")
    assert runs.find(died.id, "enable").cordoned == {"b": ""}


@pytest.mark.parametrize("resumed", [False, True])
def test_what_is_uncordoned_by_now_is_noted_so_but_not_by_who_only_looks(
    tmp_path: Path, resumed: bool
) -> None:
    runs, nodes = FleetRuns(tmp_path), cluster(tmp_path, cordoned="b")
    died = runs.find(left(runs, a="uid-of-a", b="uid-of-b"), "enable")
    with ExitStack() as open_things:
        assert len(list(Leftovers(runs, open_things).take_up(nodes, {"a", "b"}, look=True))) == 1
        assert set(runs.find(died.id, "enable").cordoned) == {"a", "b"}
        notes = Leftovers(runs, open_things)
        if resumed:
            notes = Leftovers(runs, open_things, open_things.enter_context(runs.reopen(died)), before=died)
        assert len(list(notes.take_up(nodes, {"a", "b"}))) == 1
    assert nodes.left == {"b"}
    assert set(runs.find(died.id, "enable").cordoned) == {"b"}


def test_a_run_is_not_gone_on_with_where_its_nodes_are_not(tmp_path: Path) -> None:
    runs, nodes = FleetRuns(tmp_path), cluster(tmp_path)
    died = runs.find(left(runs, a="uid-of-another-a"), "enable")
    with ExitStack() as open_things:
        notes = Leftovers(runs, open_things, before=died)
        with pytest.raises(ChangeRejected, match=f"run {died.id} has cordoned") as caught:
            list(notes.take_up(nodes, {"a"}, look=True))
    assert "--context" in caught.value.cure


def test_who_only_looks_leaves_the_records_alone(tmp_path: Path) -> None:
    runs, nodes = FleetRuns(tmp_path), cluster(tmp_path)
    died = runs.find(left(runs, a="uid-of-a"), "enable")
    with runs.reopen(died), ExitStack() as open_things:
        assert len(list(Leftovers(runs, open_things).take_up(nodes, {"a"}, look=True))) == 1


def test_a_run_that_is_under_way_keeps_its_nodes(tmp_path: Path) -> None:
    runs, nodes = FleetRuns(tmp_path), cluster(tmp_path)
    with runs.begin("enable", MEMBERS, {}) as record, ExitStack() as open_things:
        record.cordoning("a", "uid-of-a")
        assert list(Leftovers(runs, open_things).take_up(nodes, {"a"})) == []
    assert nodes.left == set()


def test_records_that_have_left_no_node_are_not_read_whole_and_an_ill_one_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ill: list[str] = []
    runs, nodes = FleetRuns(tmp_path, lambda error: ill.append(error.message)), cluster(tmp_path)
    read: list[str] = []

    def reading(path: Path) -> Recorded | None:
        read.append(path.stem)
        return recorded.read(path)

    monkeypatch.setattr("nestvirt.fleet.record.read", reading)
    with runs.begin("enable", MEMBERS, {}) as record:
        record.cordoning("a", "uid-of-a")
        record.leaving("a", "uid-of-a", "boot-1")
        record.back("a")
        record.uncordoned("a")
        record.end()
    with runs.begin("enable", MEMBERS, {}) as down:
        down.leaving("b", "uid-of-b", "boot-1")
        down.end()
    (tmp_path / "fleets" / "spoilt.jsonl").write_bytes(b"\0\0\n")
    with ExitStack() as open_things:
        assert list(Leftovers(runs, open_things).take_up(nodes, {"a", "b"}, look=True)) == []
    assert read == ["spoilt", down.id]
    assert "spoilt.jsonl cannot be read" in ill[0]
