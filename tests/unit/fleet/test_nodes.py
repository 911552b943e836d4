"""Cordoning and draining, with a program in kubectl's place: what is said to it, and when."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nestvirt.backends import base
from nestvirt.errors import ChangeRejected, Error, PowerError, TargetError
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


class Notes:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def cordoning(self, node: str, uid: str) -> None:
        assert uid == f"uid-of-{node}"
        self.lines.append(f"cordon {node}")

    def uncordoned(self, node: str) -> None:
        self.lines.append(f"uncordon {node}")


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
    with Nodes(kubectl.kube, notes, 5).away("a", lambda _what: None):
        assert done(kubectl) == ["cordon", "drain"]
        assert notes.lines == ["cordon a"]
    assert done(kubectl) == ["cordon", "drain", "uncordon"]
    assert notes.lines == ["cordon a", "uncordon a"]


@pytest.mark.parametrize("empty_dirs", [False, True])
def test_data_of_pods_is_given_up_only_where_that_was_asked_for(
    kubectl: FakeKubectl, empty_dirs: bool
) -> None:
    play(kubectl, [node("a")])
    with Nodes(kubectl.kube, Notes(), 5, empty_dirs).away("a", lambda _what: None):
        pass
    [drain] = [call["argv"] for call in kubectl.calls if "drain" in call["argv"]]
    assert ("--delete-emptydir-data" in drain) is empty_dirs
    assert "--force" not in drain


def test_who_was_cordoned_by_somebody_else_stays_so(kubectl: FakeKubectl) -> None:
    play(kubectl, [node("a", cordoned=True)])
    notes = Notes()
    with Nodes(kubectl.kube, notes, 5).away("a", lambda _what: None):
        pass
    assert done(kubectl) == ["cordon", "drain"]
    assert notes.lines == []


def test_who_was_cordoned_by_the_run_that_died_is_uncordoned(kubectl: FakeKubectl) -> None:
    play(kubectl, [node("a", cordoned=True), node("b", cordoned=True)])
    notes = Notes()
    nodes = Nodes(kubectl.kube, notes, 5, left={"a", "b"})
    with nodes.away("a", lambda _what: None):
        pass
    assert notes.lines == ["uncordon a"]
    assert nodes.left == {"b"}
    nodes.uncordon("b")
    assert (notes.lines, nodes.left) == (["uncordon a", "uncordon b"], set())


def test_a_drain_that_is_refused_touches_nothing_and_uncordons(kubectl: FakeKubectl) -> None:
    play(kubectl, [node("a")], fail="drain", words="error: cannot delete Pods with local storage")
    notes = Notes()
    with pytest.raises(Error) as caught, Nodes(kubectl.kube, notes, 5).away("a", lambda _what: None):
        raise AssertionError("not reached")
    assert "kubectl drain a --dry-run" in caught.value.cure
    assert done(kubectl)[-1] == "uncordon"
    assert notes.lines == ["cordon a", "uncordon a"]


def test_a_node_that_is_not_ready_has_nothing_to_be_drained(kubectl: FakeKubectl) -> None:
    play(kubectl, [node("a", ready=False)])
    with Nodes(kubectl.kube, Notes(), 5).away("a", lambda _what: None):
        pass
    assert done(kubectl) == []


def test_who_is_cordoned_by_somebody_else_meanwhile_stays_so_too(kubectl: FakeKubectl) -> None:
    play(kubectl, [node("a")])
    nodes = Nodes(kubectl.kube, Notes(), 5)
    assert not nodes.state("a").cordoned
    play(kubectl, [node("a", cordoned=True)])
    with nodes.away("a", lambda _what: None):
        pass
    assert "uncordon" not in done(kubectl)


def test_ready_counts_once_it_is_of_another_boot(
    kubectl: FakeKubectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "FIRST_PAUSE", 0.01)
    play(kubectl, [node("a", boot="1")])
    nodes = Nodes(kubectl.kube, Notes(), 0.2)
    assert nodes.state("a").ready
    with pytest.raises(PowerError, match="was not Ready") as caught:
        nodes.wait_ready("a")
    assert "has not reported since its start" in caught.value.evidence
    play(kubectl, [node("a", boot="2")])
    nodes.wait_ready("a")


def test_an_uncordon_that_fails_is_no_fault_of_the_vm_and_is_left_for_the_end(kubectl: FakeKubectl) -> None:
    play(kubectl, [node("a")], fail="uncordon", words="error: refused")
    notes = Notes()
    nodes = Nodes(kubectl.kube, notes, 5)
    with nodes.away("a", lambda _what: None):
        pass
    assert nodes.left == {"a"}
    assert notes.lines == ["cordon a"]


def test_an_uncordon_that_fails_does_not_hide_what_failed_before(kubectl: FakeKubectl) -> None:
    play(kubectl, [node("a")], fail="uncordon", words="error: refused")
    failure = PowerError("it did not start", cure="look at it")
    with pytest.raises(PowerError) as caught, Nodes(kubectl.kube, Notes(), 5).away("a", lambda _what: None):
        raise failure
    assert caught.value is failure
    assert failure.cure.startswith("look at it; ")
    assert "kubectl uncordon a" in failure.cure


def test_no_node_goes_down_while_one_before_it_is_not_back(
    kubectl: FakeKubectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "FIRST_PAUSE", 0.01)
    play(kubectl, [node("a", boot="1"), node("b")])
    nodes = Nodes(kubectl.kube, Notes(), 0.1)
    nodes.state("a")
    nodes.refuse_while_lost()
    play(kubectl, [node("a", boot="2", ready=False), node("b")])
    with pytest.raises(PowerError):
        nodes.wait_ready("a")
    with pytest.raises(ChangeRejected, match="the node a is not Ready"):
        nodes.refuse_while_lost()
    play(kubectl, [node("a", boot="2"), node("b")])
    nodes.refuse_while_lost()
    assert nodes.lost == {}


def test_a_run_is_not_gone_on_with_on_another_cluster(kubectl: FakeKubectl) -> None:
    play(kubectl, [node("a"), node("b")])
    nodes = Nodes(kubectl.kube, Notes(), 5)
    nodes.take_up("run-1", {"a": "uid-of-a", "b": ""})
    assert nodes.left == {"a", "b"}
    for other in ({"a": "uid-of-another-a"}, {"c": "uid-of-c"}):
        with pytest.raises(ChangeRejected, match="run run-1 has cordoned") as caught:
            Nodes(kubectl.kube, Notes(), 5).take_up("run-1", other)
        assert "--context" in caught.value.cure


def test_the_cluster_is_called_by_its_contexts_name(kubectl: FakeKubectl) -> None:
    kubectl.behave("if argv[-2:] == ['config', 'current-context']: say('prod')")
    plain = replace(kubectl.kube, context=None)
    assert Nodes(plain, Notes(), 5).would("a") == "it would drain node a of prod first"
    kubectl.fail("error: current-context is not set")
    assert Nodes(plain, Notes(), 5).place == "the current context"
    assert "emptyDir volumes lose" in Nodes(kubectl.kube, Notes(), 5, empty_dirs=True).would("a")


def test_an_unknown_node_is_told_beside_those_that_there_are(kubectl: FakeKubectl) -> None:
    play(kubectl, [node("a"), node("b")])
    with pytest.raises(TargetError, match="'c'") as caught:
        Nodes(kubectl.kube, Notes(), 5).state("c")
    assert caught.value.evidence == "it has: a, b"
