"""Helm while an API server is away, the label while pods are replaced, and what is put back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from nestvirt.errors import AccessDenied, Busy, ConnectionFailed, Error
from nestvirt.kata import changing, rollout
from nestvirt.kata.answers import Untrusted
from nestvirt.kata.api import Objects
from nestvirt.kata.changing import Look, Session, Wanted, put_back
from nestvirt.kata.config import KataConfig
from nestvirt.kata.helm import Helm, Revision, Source
from nestvirt.kata.install_plan import CAPABLE, Live, Nodes, Planned
from nestvirt.kata.kube import Kube
from nestvirt.kata.rollout import LABEL
from nestvirt.model import Finding, Layer, Status

DEPLOYED = Revision(1, "deployed", "3.25.0", "then")
AWAY = ConnectionFailed("away", evidence="refused")


def now() -> str:
    """As Helm writes it."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}789Z"


@dataclass(frozen=True)
class Playing(Kube):
    """A cluster of nodes with labels, which is back at once where it was away."""

    labels: dict[str, dict[str, str]] = field(default_factory=dict)
    pods: Objects = field(default_factory=list)
    generation: list[int] = field(default_factory=lambda: [1])
    refused: set[str] = field(default_factory=set)
    classes: Objects = field(default_factory=list)

    def run(self, *words: str, stdin: bytes = b"", limit: int = 1) -> bytes:
        return b"ok"

    def list(
        self, kind: str, *, namespace: str | None = None, selector: str = "", fields: str = ""
    ) -> Objects:
        return {"pods": self.pods, "nodes": self.nodes}.get(kind, self.classes)

    def create(self, *objects: dict[str, Any]) -> None:
        self.classes.extend(objects)

    @property
    def nodes(self) -> Objects:
        return [{"metadata": {"name": name, "labels": dict(has)}} for name, has in self.labels.items()]

    def get(self, kind: str, name: str, *, namespace: str | None = None) -> dict[str, Any] | None:
        return {"metadata": {"uid": "u", "generation": self.generation[0]}}

    def label(self, kind: str, name: str, labels: Any) -> None:
        if name in self.refused:
            raise AccessDenied("refused")
        for key, value in labels.items():
            self.labels[name].pop(key, None)
            self.labels[name] |= {key: value} if value is not None else {}


@dataclass(frozen=True)
class Scripted:
    """A Helm whose upgrades fail as told, and what was asked of it."""

    fails: list[Exception]
    histories: list[list[Revision]]
    asked: list[str] = field(default_factory=list)
    kube: Kube = field(default_factory=Playing)
    changes: Callable[[], object] = list
    release = "kata-deploy"
    namespace = "kube-system"

    def upgrade(self, _chart: Path, _values: str, *, force: bool) -> None:
        self.asked.append(f"upgrade force={force}")
        self.changes()
        if self.fails:
            raise self.fails.pop(0)

    def history(self) -> list[Revision]:
        self.asked.append("history")
        return self.histories.pop(0)

    def forget(self, revision: Revision) -> None:
        self.asked.append(f"forget {revision.number}")

    def rollback(self, revision: int) -> None:
        self.asked.append(f"rollback {revision}")
        if self.fails:
            raise self.fails.pop(0)

    def uninstall(self) -> None:
        self.asked.append("uninstall")


def live(*history: Revision, katas: Sequence[str] = (), deployers: Sequence[str] = ()) -> Live:
    classes = tuple({"metadata": {"name": name, "uid": "7"}, "handler": name} for name in katas)
    return Live(history, (), frozenset(katas), True, {}, classes, frozenset(deployers))


def wanted(*, force: bool = False, atomic: bool = False) -> Wanted:
    consent: Callable[[Planned], None] = lambda _planned: None  # noqa: E731
    return Wanted(KataConfig(), Source("c", "3.25.0"), "image", 1, consent, force=force, atomic=atomic)


def session(helm: Scripted, kube: Kube | None = None, found: Sequence[Finding] = ()) -> Session:
    def remove_all() -> Sequence[Finding]:
        helm.asked.append("remove all")
        return found

    return Session(kube or helm.kube, cast(Helm, helm), "lab", lambda _s, _d: None, remove_all)


# --- over an API server that goes away


def upgrading(helm: Scripted, *before: Revision, force: bool = False) -> None:
    changing.upgrade(session(helm), wanted(force=force), Look((), "rke2", live(*before), ()), Path("chart"))


def in_time(made: list[Revision]) -> Scripted:
    """A Helm whose first attempt makes that revision, and loses its answer."""
    helm = Scripted([AWAY], [made])
    return replace(helm, changes=lambda: made.append(replace(made.pop(), since=now())))


def test_an_attempt_that_broke_off_is_taken_back_and_made_again() -> None:
    helm = in_time([replace(DEPLOYED, status="pending-install")])
    upgrading(helm)
    assert helm.asked == ["upgrade force=False", "history", "forget 1", "upgrade force=False"]


def test_the_number_of_a_revision_that_was_taken_over_is_free_again() -> None:
    pending = replace(DEPLOYED, status="pending-install")
    helm = in_time([pending])
    upgrading(helm, pending, force=True)
    assert helm.asked == ["forget 1", "upgrade force=True", "history", "forget 1", "upgrade force=True"]


def test_an_attempt_whose_answer_got_lost_is_not_made_again() -> None:
    before = replace(DEPLOYED, chart="3.24.0")
    helm = in_time([before, replace(DEPLOYED, number=2)])
    upgrading(helm, before)
    assert helm.asked == ["upgrade force=False", "history"]


OTHERS = {
    "begun before": replace(DEPLOYED, number=2, status="pending-upgrade", since="2020-01-01T00:00:00Z"),
    "begun later": replace(DEPLOYED, number=2, status="pending-upgrade", since="2999-01-01T00:00:00Z"),
    "at a time that is none": replace(DEPLOYED, number=2, status="pending-upgrade"),
    "without a zone": replace(DEPLOYED, number=2, status="pending-upgrade", since="2020-01-01T00:00:00"),
}


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_another_helms_revision_is_not_forgotten(other: Revision, force: bool) -> None:
    helm = Scripted([AWAY], [[DEPLOYED, other]])
    with pytest.raises(Busy) as caught:
        upgrading(helm, DEPLOYED, force=force)
    assert helm.asked == [f"upgrade force={force}", "history"]
    assert "revision 2" in caught.value.evidence
    assert "wait for it" in caught.value.cure


def test_another_charts_revision_is_not_ours() -> None:
    helm = in_time([replace(DEPLOYED, chart="4.1.0", status="pending-install")])
    with pytest.raises(Busy):
        upgrading(helm)


def test_nothing_done_yet_is_tried_again() -> None:
    helm = Scripted([AWAY, AWAY], [[DEPLOYED], [DEPLOYED]])
    upgrading(helm, DEPLOYED)
    assert helm.asked.count("upgrade force=False") == 3


def test_a_pending_release_is_taken_over_on_the_users_word() -> None:
    helm = Scripted([], [])
    upgrading(helm, replace(DEPLOYED, status="pending-upgrade"), force=True)
    assert helm.asked == ["forget 1", "upgrade force=True"]


def test_a_certificate_that_is_not_trusted_is_not_waited_for() -> None:
    helm = Scripted([Untrusted("x509")], [])
    with pytest.raises(Untrusted):
        upgrading(helm)
    assert helm.asked == ["upgrade force=False"]


# --- the label, while pods are replaced that do not tell when they are done


def carrying(helm: Scripted, kube: Playing, *, unseen: bool = True) -> None:
    look = Look((), "rke2", live(DEPLOYED), (), tuple(kube.nodes))
    planned = Planned(("upgrade",), (), (), True, unseen)
    changing.carry_out(session(helm, kube), wanted(), look, planned, Nodes(("a", "b"), {}), Path("chart"))


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """The labels of a and b when the wait begins."""
    seen: list[dict[str, str]] = []

    def wait(kube: Kube, *_words: object, **_more: object) -> list[Finding]:
        seen.extend(dict(labels) for labels in cast(Playing, kube).labels.values())
        return []

    monkeypatch.setattr(rollout, "wait", wait)
    return seen


def test_a_label_of_the_former_version_does_not_tell_of_the_new(held: list[dict[str, str]]) -> None:
    kube = Playing(labels={"a": {LABEL: "true"}, "b": {}, "c": {LABEL: "true"}})
    at_helm: list[str] = []

    def change() -> None:
        at_helm.append(kube.labels["a"][LABEL])
        kube.generation[0] += 1

    carrying(Scripted([], [], changes=change), kube)
    assert at_helm == ["false"]
    assert held == [{LABEL: "false"}, {}, {LABEL: "true"}]


def test_pods_that_stay_keep_their_label(held: list[dict[str, str]]) -> None:
    """Helm has changed something else after all: nobody would set it again."""
    carrying(Scripted([], []), Playing(labels={"a": {LABEL: "true"}, "b": {LABEL: "true"}}))
    assert held == [{LABEL: "true"}, {LABEL: "true"}]


def test_pods_that_tell_it_themselves_need_no_label(held: list[dict[str, str]]) -> None:
    kube = Playing(labels={"a": {LABEL: "true"}, "b": {}})
    carrying(Scripted([], [], changes=lambda: kube.generation.__setitem__(0, 2)), kube, unseen=False)
    assert held == [{LABEL: "true"}, {}]


@pytest.mark.parametrize("refused", [set(), {"b"}], ids=["Helm fails", "a label is refused"])
def test_where_helm_fails_the_label_is_back(refused: set[str]) -> None:
    kube = Playing(labels={"a": {LABEL: "true"}, "b": {LABEL: "true"}}, refused=refused)
    with pytest.raises(Error, match="declined" if not refused else "refused"):
        carrying(Scripted([Error("declined")], []), kube)
    assert kube.labels == {"a": {LABEL: "true"}, "b": {LABEL: "true"}}


# --- putting back

NEW = replace(DEPLOYED, number=2)
FAILED = replace(DEPLOYED, status="failed")
PENDING = replace(DEPLOYED, status="pending-install")
BACK: dict[str, tuple[Live, dict[str, str], list[Revision], list[str], str]] = {
    "nothing was there": (live(), {}, [DEPLOYED], ["remove all"], ""),
    "Helm did nothing": (live(), {}, [], [], ""),
    "nor with a release": (live(FAILED), {}, [FAILED], [], ""),
    "a revision": (live(DEPLOYED), {}, [DEPLOYED, NEW], ["rollback 1"], ""),
    "one that failed, in use": (live(FAILED), {}, [FAILED, NEW], ["rollback 1"], ""),
    "one that was pending, in use": (live(PENDING), {}, [DEPLOYED], [], "no revision"),
    "others' RuntimeClass": (live(katas=["kata-qemu"]), {}, [DEPLOYED], ["uninstall"], "without a release"),
    "others' label": (live(), {LABEL: "true"}, [DEPLOYED], ["uninstall"], "without a release"),
}


@pytest.mark.parametrize(("there", "labels", "history", "deeds", "left"), BACK.values(), ids=BACK)
def test_only_what_this_run_made_is_taken_back(
    there: Live, labels: dict[str, str], history: list[Revision], deeds: list[str], left: str
) -> None:
    helm, kube = Scripted([], [history]), Playing(labels={"a": labels})
    said = put_back(session(helm, kube), wanted(), Look((), "rke2", there, (), tuple(kube.nodes)))
    assert helm.asked == ["history", *deeds]
    assert bool(said) is bool(left)
    assert left in "".join(said)
    assert (changing.told(said) == (changing.BACK,)) is not bool(left)


def test_a_runtimeclass_that_was_taken_over_is_made_again() -> None:
    """It goes with the release; pods of others name it."""
    kube = Playing(classes=[{"metadata": {"name": "kata-clh"}}])
    look = Look((), "rke2", live(katas=["kata-clh", "kata-qemu"]), ())
    put_back(session(Scripted([], [[DEPLOYED]]), kube), wanted(), look)
    made = {"metadata": {"name": "kata-qemu"}, "handler": "kata-qemu"}
    assert kube.classes[1:] == [{"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", **made}]


def test_what_is_left_is_said() -> None:
    ill = Finding("cluster-clean", Layer.CLUSTER, Status.UNKNOWN, "not ready", subject="a")
    fine = Finding("cluster-clean", Layer.CLUSTER, Status.PASS, "no file", subject="b")
    helm = Scripted([], [[DEPLOYED]])
    left = put_back(session(helm, found=[fine, ill]), wanted(), Look((), "rke2", live(), ()))
    assert left == ("a: not ready",)
    assert changing.told(left) == ("not as it was before: a: not ready",)


def test_the_own_label_is_back_on_every_node() -> None:
    """Also on nodes that the configuration does not select; and a node that has come since is left alone."""
    kube = Playing(labels={"a": {CAPABLE: "works"}, "b": {}, "c": {CAPABLE: "works"}})
    look = Look(tuple(kube.nodes[:2]), "rke2", live(DEPLOYED), (), tuple(kube.nodes))
    kube.labels.update({"a": {}, "b": {CAPABLE: "works"}, "d": {CAPABLE: "works"}})
    assert not put_back(session(Scripted([], [[DEPLOYED]]), kube), wanted(), look)
    assert kube.labels == {"a": {CAPABLE: "works"}, "b": {}, "c": {CAPABLE: "works"}, "d": {CAPABLE: "works"}}


def test_a_pod_that_was_never_replaced_gets_its_label_back(held: list[dict[str, str]]) -> None:
    """After a rollback nothing makes it anew; the other one sets the label when it is done."""
    kube = Playing(labels={"a": {LABEL: "true"}, "b": {LABEL: "true"}})
    look = Look((), "rke2", live(DEPLOYED, deployers=["1", "2"]), (), tuple(kube.nodes))
    kube.labels.update({"a": {LABEL: "false"}, "b": {LABEL: "false"}})
    pods = [{"metadata": {"uid": uid}, "spec": {"nodeName": node}} for uid, node in (("1", "a"), ("3", "b"))]
    kube.pods.extend(pods)
    put_back(session(Scripted([], [[DEPLOYED, NEW]]), kube), wanted(), look)
    assert held == [{LABEL: "true"}, {LABEL: "false"}]


def failing(helm: Scripted, error: Error, there: Live) -> Error:
    """The error of an atomic run that ends with that one."""
    kube = Playing(labels={"a": {}})
    look = Look((), "rke2", there, (), tuple(kube.nodes))
    helm.fails.insert(0, error)
    planned = Planned(("install",), (), (), True)
    with pytest.raises(type(error)) as caught:
        changing.carry_out(
            session(helm, kube), wanted(atomic=True), look, planned, Nodes(("a",), {}), Path("chart")
        )
    return caught.value


def test_the_first_error_is_not_hidden_by_that_of_the_rollback() -> None:
    helm = Scripted([ConnectionFailed("gone again", evidence="EOF")], [[DEPLOYED, NEW]])
    error = failing(helm, Error("refused", evidence="why", cure="do"), live(DEPLOYED))
    assert error.message == "refused; not all of what was there before is back"
    assert error.evidence == "why; gone again: EOF"
    assert error.cure == "do"


def test_what_is_back_is_said_with_the_error() -> None:
    error = failing(Scripted([], [[DEPLOYED, NEW]]), Error("refused"), live(DEPLOYED))
    assert error.message == "refused; what was there before is back"


def test_another_helms_work_is_not_rolled_back() -> None:
    helm = Scripted([], [])
    error = failing(helm, Busy("another one"), live(DEPLOYED))
    assert helm.asked == ["upgrade force=False"]
    assert "another Helm is at work" in error.evidence
