"""Cordoning and draining, with a program in kubectl's place: what is said to it, and when."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nestvirt.backends import base
from nestvirt.errors import ChangeRejected, Error, Interrupted, PowerError, TargetError
from nestvirt.fleet.cluster import Cluster
from nestvirt.fleet.nodes import Nodes
from tests.peers.kubectl import FakeKubectl


def node(name: str, *, ready: bool = True, cordoned: bool = False, boot: str = "1") -> dict[str, Any]:
    return {
        "metadata": {"name": name, "uid": f"uid-of-{name}", "labels": {}},
        "spec": {"unschedulable": True} if cordoned else {},
        "status": {
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "nodeInfo": {"bootID": boot},
        },
    }


FORBIDDEN = 'Error from server (Forbidden): nodes "b" is forbidden: User "x" cannot patch resource "nodes"'


class Notes:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def cordoning(self, node: str, uid: str) -> None:
        assert uid == f"uid-of-{node}"
        self.lines.append(f"cordon {node}")

    def uncordoned(self, node: str) -> None:
        self.lines.append(f"uncordon {node}")

    def leaving(self, node: str, uid: str, boot: str) -> None:
        assert uid == f"uid-of-{node}"
        self.lines.append(f"{node} of boot {boot} leaves")

    def back(self, node: str) -> None:
        self.lines.append(f"{node} is back")


@pytest.fixture
def kubectl(tmp_path: Path) -> FakeKubectl:
    return FakeKubectl(tmp_path)


def play(kubectl: FakeKubectl, nodes: Sequence[dict[str, Any]], *, fail: str = "", words: str = "no") -> None:
    """Have it answer with those nodes, and fail at one command."""
    listing = json.dumps({"kind": "NodeList", "items": list(nodes)})
    by_name = {each["metadata"]["name"]: json.dumps(each) for each in nodes}
    kubectl.behave(
        "verb = argv[argv.index('--kubeconfig') + 3] if '--kubeconfig' in argv else argv[0]\n"
        f"if {fail!r} and verb == {fail!r}: say({words!r}, 1, sys.stderr)\n"
        f"named = {by_name!r}\n"
        "if '--raw' in argv:\n"
        "    last = argv[-1].partition('?')[0].rpartition('/')[2]\n"
        f"    say(named.get(last, {listing!r}))\n"
    )


def done(kubectl: FakeKubectl) -> list[str]:
    """The commands that change something, in order."""
    words = [" ".join(call["argv"]) for call in kubectl.calls]
    verbs = ("uncordon", "cordon", "drain")
    return [next(v for v in verbs if f" {v} " in f" {said} ") for said in words if "--raw" not in said]


def test_a_node_is_cordoned_drained_and_uncordoned_and_each_is_noted_before(kubectl: FakeKubectl) -> None:
    play(kubectl, [node("a")])
    notes = Notes()
    with Nodes(Cluster(kubectl.kube), notes, 5).away("a", lambda _what: None, drain=True):
        assert done(kubectl) == ["cordon", "drain"]
        assert notes.lines == ["cordon a", "a of boot 1 leaves"]
    assert done(kubectl) == ["cordon", "drain", "uncordon"]
    assert notes.lines[2:] == ["a is back", "uncordon a"]


@pytest.mark.parametrize("empty_dirs", [False, True])
def test_data_of_pods_is_given_up_only_where_that_was_asked_for(
    kubectl: FakeKubectl, empty_dirs: bool
) -> None:
    play(kubectl, [node("a")])
    with Nodes(Cluster(kubectl.kube), Notes(), 5, empty_dirs).away("a", lambda _what: None, drain=True):
        pass
    [drain] = [call["argv"] for call in kubectl.calls if "drain" in call["argv"]]
    assert ("--delete-emptydir-data" in drain) is empty_dirs
    assert "--force" not in drain


def test_who_was_cordoned_by_somebody_else_stays_so(kubectl: FakeKubectl) -> None:
    play(kubectl, [node("a", cordoned=True)])
    notes = Notes()
    with Nodes(Cluster(kubectl.kube), notes, 5).away("a", lambda _what: None, drain=True):
        pass
    assert done(kubectl) == ["cordon", "drain"]
    assert not any("cordon" in line for line in notes.lines)


def test_who_was_cordoned_by_the_run_that_died_is_uncordoned(kubectl: FakeKubectl) -> None:
    play(kubectl, [node("a", cordoned=True), node("b", cordoned=True)])
    notes = Notes()
    nodes = Nodes(Cluster(kubectl.kube), notes, 5, left={"a", "b"}, due={"b"})
    with nodes.away("a", lambda _what: None, drain=True):
        pass
    assert notes.lines[-1] == "uncordon a"
    assert "cordon a" not in notes.lines
    assert nodes.left == {"b"}
    nodes.give_back("b")
    assert (notes.lines[-1], nodes.left) == ("uncordon b", set())


def test_who_is_cordoned_still_is_uncordoned_before_another_is_drained_or_that_is_not(
    kubectl: FakeKubectl,
) -> None:
    play(kubectl, [node("a"), node("b", cordoned=True)])
    nodes = Nodes(Cluster(kubectl.kube), Notes(), 5, left={"b"})
    with nodes.away("a", lambda _what: None, drain=True):
        assert done(kubectl) == ["uncordon", "cordon", "drain"]
    play(kubectl, [node("a"), node("b", cordoned=True)], fail="uncordon", words=FORBIDDEN)
    nodes.left = {"b"}
    with (
        pytest.raises(ChangeRejected, match="b is cordoned still") as caught,
        nodes.away("a", lambda _what: None, drain=True),
    ):
        raise AssertionError("not reached")
    assert "kubectl uncordon b" in caught.value.cure
    assert done(kubectl)[4:] == ["uncordon"]


def test_a_drain_that_is_refused_touches_nothing_and_uncordons(kubectl: FakeKubectl) -> None:
    play(kubectl, [node("a")], fail="drain", words="error: cannot delete Pods with local storage")
    notes = Notes()
    with (
        pytest.raises(Error) as caught,
        Nodes(Cluster(kubectl.kube), notes, 5).away("a", lambda _what: None, drain=True),
    ):
        raise AssertionError("not reached")
    assert "kubectl drain a --dry-run" in caught.value.cure
    assert done(kubectl)[-1] == "uncordon"
    assert notes.lines == ["cordon a", "uncordon a"]
    assert "was drained" not in caught.value.cure


def test_the_node_of_a_vm_that_is_off_has_nothing_to_be_drained(kubectl: FakeKubectl) -> None:
    play(kubectl, [node("a", ready=True)])  # as it is called for a while
    with Nodes(Cluster(kubectl.kube), Notes(), 5).away("a", lambda _what: None, drain=False):
        pass
    assert done(kubectl) == []


def test_who_is_cordoned_by_somebody_else_meanwhile_stays_so_too(kubectl: FakeKubectl) -> None:
    play(kubectl, [node("a")])
    nodes = Nodes(Cluster(kubectl.kube), Notes(), 5)
    assert not nodes.cluster.state("a").cordoned
    play(kubectl, [node("a", cordoned=True)])
    with nodes.away("a", lambda _what: None, drain=True):
        pass
    assert "uncordon" not in done(kubectl)


def test_ready_counts_once_it_is_of_another_boot(
    kubectl: FakeKubectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "FIRST_PAUSE", 0.01)
    play(kubectl, [node("a", boot="1")])
    nodes = Nodes(Cluster(kubectl.kube), Notes(), 0.2, lost={"a": "1"})
    with pytest.raises(PowerError, match="was not Ready") as caught:
        nodes.wait_ready("a")
    assert "has not reported since its start" in caught.value.evidence
    play(kubectl, [node("a", boot="2")])
    nodes.wait_ready("a")


def test_an_uncordon_that_fails_is_no_fault_of_the_vm_and_is_left_for_the_end(kubectl: FakeKubectl) -> None:
    play(kubectl, [node("a")], fail="uncordon", words=FORBIDDEN)
    notes = Notes()
    nodes = Nodes(Cluster(kubectl.kube), notes, 5)
    with nodes.away("a", lambda _what: None, drain=True):
        pass
    assert nodes.left == {"a"}
    assert "uncordon a" not in notes.lines


def test_an_uncordon_that_fails_does_not_hide_what_failed_before(kubectl: FakeKubectl) -> None:
    play(kubectl, [node("a")], fail="uncordon", words=FORBIDDEN)
    failure = PowerError("it did not start", cure="look at it")
    with (
        pytest.raises(PowerError) as caught,
        Nodes(Cluster(kubectl.kube), Notes(), 5).away("a", lambda _what: None, drain=True),
    ):
        raise failure
    assert caught.value is failure
    assert failure.cure.startswith("look at it; ")
    assert "kubectl uncordon a" in failure.cure


def away(nodes: Nodes, name: str, *, started: bool = True) -> None:
    """Have a node's VM stopped, and started."""
    with nodes.away(name, lambda _what: None, drain=True) as trip:
        trip.stopped, trip.started = True, started


def test_no_node_is_drained_while_one_before_it_is_not_back_and_that_one_stays_cordoned(
    kubectl: FakeKubectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "FIRST_PAUSE", 0.01)
    play(kubectl, [node("a", boot="1"), node("b")])
    nodes = Nodes(Cluster(kubectl.kube), Notes(), 0.1)
    with pytest.raises(PowerError, match="node a was not Ready") as late:
        away(nodes, "a")
    assert "kubectl uncordon a" in late.value.cure
    assert (nodes.left, nodes.lost) == ({"a"}, {"a": "1"})
    assert done(kubectl) == ["cordon", "drain"]
    with pytest.raises(ChangeRejected, match="the node a is of the same boot as before") as caught:
        away(nodes, "b")
    assert caught.value.cure.startswith("see why: kubectl describe node a; or begin this again: ")
    with pytest.raises(PowerError, match="node a was not Ready"):
        nodes.give_back("a")
    assert done(kubectl) == ["cordon", "drain"]
    play(kubectl, [node("a", boot="2"), node("b")])
    nodes.give_back("a")
    assert done(kubectl)[-1] == "uncordon"
    assert (nodes.left, nodes.lost) == (set(), {})


def test_whose_vm_stays_off_is_lost_too(kubectl: FakeKubectl) -> None:
    play(kubectl, [node("a")])
    nodes = Nodes(Cluster(kubectl.kube), Notes(), 5)
    away(nodes, "a", started=False)
    assert (nodes.left, nodes.lost) == ({"a"}, {"a": "1"})


def test_no_node_is_drained_while_another_of_the_run_is_not_ready_but_for_those_that_batch_counts(
    kubectl: FakeKubectl,
) -> None:
    play(kubectl, [node("a"), node("b", ready=False), node("c", ready=False)])
    nodes = Nodes(Cluster(kubectl.kube), Notes(), 5, of_run={"a", "b", "no-node"})
    with pytest.raises(ChangeRejected, match="the node b is not Ready") as caught:
        away(nodes, "a", started=False)
    assert "Nothing of a was touched" in caught.value.cure
    assert done(kubectl) == []
    nodes.due = {"b"}
    with nodes.away("a", lambda _what: None, drain=True):
        assert nodes.due == {"a", "b"}


def test_what_an_earlier_run_had_down_is_waited_for_first(
    kubectl: FakeKubectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "FIRST_PAUSE", 0.01)
    play(kubectl, [node("a", boot="1"), node("b")])
    nodes = Nodes(Cluster(kubectl.kube), Notes(), 0.1)
    nodes.remember("a", "1", time.time(), "nestvirt enable --resume R")
    told: list[str] = []
    with (
        pytest.raises(ChangeRejected, match="the node a is of the same boot as before") as caught,
        nodes.away("b", told.append, drain=True),
    ):
        raise AssertionError("not reached")
    assert told == ["waiting for the node a"]
    assert "another run has had it down, or was about to" in caught.value.evidence
    assert caught.value.cure.startswith("go on with that run: nestvirt enable --resume R; or ")
    play(kubectl, [node("a", boot="1", ready=False), node("b")])
    with (
        pytest.raises(ChangeRejected, match="the node a is not Ready") as caught,
        nodes.away("b", told.append, drain=True),
    ):
        raise AssertionError("not reached")
    assert "--resume R; where it is never to come back: kubectl delete node a" in caught.value.cure
    play(kubectl, [node("a", boot="1"), node("b")])
    told.clear()
    nodes.remember("a", "1", time.time() - 3600)  # since then, it would not be called Ready if it were not
    with nodes.away("b", told.append, drain=True):
        assert nodes.lost == {"b": "1"}


def test_who_wants_to_stop_waits_for_no_node(kubectl: FakeKubectl) -> None:
    play(kubectl, [node("a")])
    nodes = Nodes(Cluster(kubectl.kube), Notes(), 3600, lost={"a": "1"}, in_haste=lambda: True)
    with pytest.raises(PowerError, match="is not Ready yet"):
        nodes.wait_ready("a")


def test_a_wish_to_stop_after_the_drain_says_that_the_node_was_drained(kubectl: FakeKubectl) -> None:
    play(kubectl, [node("a")])
    nodes = Nodes(Cluster(kubectl.kube), Notes(), 5)
    with (
        pytest.raises(Interrupted, match="its node a was drained"),
        nodes.away("a", lambda _what: None, drain=True),
    ):
        raise KeyboardInterrupt
    assert done(kubectl) == ["cordon", "drain", "uncordon"]
    assert (nodes.left, nodes.lost, nodes.due) == (set(), {}, set())


def test_what_is_refused_after_the_drain_says_so_too(kubectl: FakeKubectl) -> None:
    play(kubectl, [node("a")])
    with (
        pytest.raises(ChangeRejected) as caught,
        Nodes(Cluster(kubectl.kube), Notes(), 5).away("a", lambda _what: None, drain=True),
    ):
        raise ChangeRejected("another plan", cure="run it again")
    assert caught.value.cure == "run it again; its node a was drained"


def test_a_node_that_is_another_one_by_now_is_not_touched(kubectl: FakeKubectl) -> None:
    play(kubectl, [node("a")])
    nodes = Nodes(Cluster(kubectl.kube), Notes(), 5)
    nodes.cluster.known()
    other = node("a")
    other["metadata"]["uid"] = "uid-of-another-a"
    play(kubectl, [other])
    with pytest.raises(ChangeRejected, match="is not the one any more"):
        away(nodes, "a")
    assert done(kubectl) == []


def test_the_context_is_that_of_the_beginning_and_gives_the_cluster_its_name(kubectl: FakeKubectl) -> None:
    kubectl.behave("if argv[-2:] == ['config', 'current-context']: say('prod')")
    plain = replace(kubectl.kube, context=None)
    cluster = Cluster.meant(plain)
    assert cluster.kube.context == "prod"
    assert Nodes(cluster, Notes(), 5).would("a") == "it would drain node a of prod first"
    kubectl.fail("error: current-context is not set")
    assert Cluster.meant(plain).place == "the current context"
    assert "emptyDir volumes lose" in Nodes(cluster, Notes(), 5, empty_dirs=True).would("a")


def test_another_cluster_than_the_one_expected_is_refused(kubectl: FakeKubectl) -> None:
    kubectl.behave("say(json.dumps({'metadata': {'uid': 'uid-2'}, 'items': []}))")
    cluster = Cluster(kubectl.kube)
    cluster.expect("run-1", "uid-2", "wait")
    assert cluster.known() == {}
    assert cluster.uid == "uid-2"
    other = Cluster(kubectl.kube)
    other.expect("run-1", "uid-1", "wait")
    with pytest.raises(ChangeRejected, match="not the cluster of run run-1") as caught:
        other.known()
    assert "uid-2, and was uid-1" in caught.value.evidence
    assert caught.value.cure.endswith("; or wait")


def test_who_may_not_read_namespaces_may_drain_but_not_go_on_with_a_run_that_knew_its_cluster(
    kubectl: FakeKubectl,
) -> None:
    forbidden = FORBIDDEN.replace("nodes", "namespaces").replace("patch", "get")
    listing = json.dumps({"items": [node("a")]})
    kubectl.behave(
        f"if argv[-1].endswith('/kube-system'): say({forbidden!r}, 1, sys.stderr)\nsay({listing!r})"
    )
    cluster = Cluster(kubectl.kube)
    assert cluster.state("a").ready
    assert cluster.uid == ""
    other = Cluster(kubectl.kube)
    other.expect("run-1", "uid-1", "wait")
    with pytest.raises(ChangeRejected, match="not known to be the cluster of run run-1") as caught:
        other.known()
    assert caught.value.cure == "have its user read the namespace kube-system, as then; or wait"


def test_an_unknown_node_is_told_beside_those_that_there_are(kubectl: FakeKubectl) -> None:
    play(kubectl, [node("a"), node("b")])
    with pytest.raises(TargetError, match="'c'") as caught:
        Cluster(kubectl.kube).state("c")
    assert caught.value.evidence == "it has: a, b"
