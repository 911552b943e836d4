"""Nodes that a run which died has left cordoned: whose they are, and what becomes of them."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

from nestvirt.fleet.leftovers import Leftovers
from nestvirt.fleet.nodes import Nodes
from nestvirt.fleet.record import FleetRuns
from nestvirt.fleet.selection import Member
from nestvirt.model import Target
from tests.peers.kubectl import FakeKubectl

MEMBERS = [Member("memory:a", Target("memory", "a"))]


def cluster(folder: Path) -> Nodes:
    """A cluster with the nodes a and b."""
    kubectl = FakeKubectl(folder)
    listing = json.dumps({"items": [{"metadata": {"name": n, "uid": f"uid-of-{n}"}} for n in "ab"]})
    kubectl.behave(f"say({listing!r})")
    return Nodes(kubectl.kube, None, 5)


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
        assert said == f"run {died} has left the node a cordoned; this one uncordons it"
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


def test_a_run_that_is_under_way_keeps_its_nodes(tmp_path: Path) -> None:
    runs, nodes = FleetRuns(tmp_path), cluster(tmp_path)
    with runs.begin("enable", MEMBERS, {}) as record, ExitStack() as open_things:
        record.cordoning("a", "uid-of-a")
        assert list(Leftovers(runs, open_things).take_up(nodes, {"a"})) == []
    assert nodes.left == set()
