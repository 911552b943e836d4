"""What kata-uninstall takes for its release's, what it leaves to others, and in which order it removes."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from nestvirt.errors import ConnectionFailed
from nestvirt.kata import belongings, uninstall
from nestvirt.kata.api import Object, Objects, Query, at, name_of
from nestvirt.kata.helm import Helm, Revision
from nestvirt.kata.kube import Kube
from nestvirt.kata.pods import Outcome, Task
from nestvirt.model import Report, Status

OURS = ("kata-deploy", "kube-system")
LABEL = "katacontainers.io/kata-runtime"


def made(
    name: str, owner: tuple[str, str] | None = None, namespace: str | None = None, **more: Any
) -> Object:
    """An object, with Helm's annotations where it has an owner."""
    meta: dict[str, Any] = {"name": name, "namespace": namespace, "labels": more.pop("labels", {})}
    if owner:
        meta["annotations"] = {belongings.OWNER: owner[0], belongings.PLACE: owner[1]}
    return {"metadata": {key: value for key, value in meta.items() if value is not None}, **more}


SELECTS = {"nodeSelector": {LABEL: "true"}}


@pytest.mark.parametrize(
    ("name", "handler", "owner", "selects", "ours"),
    [
        ("kata-qemu", "kata-qemu", OURS, False, True),
        ("kata-qemu", "kata-qemu", ("kata-deploy", "default"), True, False),
        ("kata-qemu", "kata-qemu", ("another", "kube-system"), True, False),
        ("kata-qemu", "kata-qemu", None, True, True),
        ("kata", "kata-qemu", None, True, True),
        ("kata-qemu", "kata-qemu", None, False, False),
        ("mine", "kata-qemu", None, True, False),
        ("kata-qemu-two", "kata-qemu-two", None, True, False),
        ("katana", "katana", None, True, False),
        ("runsc", "runsc", OURS, False, False),
    ],
)
def test_which_runtimeclasses_are_katas(
    name: str, handler: str, owner: tuple[str, str] | None, selects: bool, ours: bool
) -> None:
    found = made(name, owner, handler=handler, scheduling=SELECTS if selects else {})
    assert belongings.is_katas(found, OURS) is ours


def test_which_labels_are_taken_off() -> None:
    """What a second installation needs stays where there is one."""
    words = (LABEL, "kata-deploy.katacontainers.io/default", "kata-deploy.katacontainers.io/two")
    keys = (*words, "nestvirt.io/kvm", "katacontainers.io/mine", "kubernetes.io/os")
    node = made("a", labels=dict.fromkeys(keys, "true"))
    assert belongings.own_labels(node) == tuple(sorted((*words, "nestvirt.io/kvm")))
    alone = ("kata-deploy.katacontainers.io/default", "nestvirt.io/kvm")
    assert belongings.own_labels(node, shared=True) == alone


Everything = dict[str, list[Object]]


@dataclass
class World:
    """A cluster that is played, and what was done to it."""

    objects: Everything
    done: list[str] = field(default_factory=list)
    stuck: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class FakeKube(Kube):
    """Its API."""

    world: World = field(default_factory=lambda: World({}))

    def patient(self, timeout: float) -> Kube:
        return self

    def list(
        self, kind: str, *, namespace: str | None = None, selector: str = "", fields: str = ""
    ) -> Objects:
        key, _, value = selector.partition("=")
        return [
            found
            for found in self.world.objects.get(kind, [])
            if namespace in (None, "*", at(found, "metadata", "namespace"))
            and (not selector or at(found, "metadata", "labels", key) == value)
        ]

    def delete(
        self,
        kind: str,
        *,
        names: Iterable[str] = (),
        selector: str = "",
        namespace: str | None = None,
        wait: bool = False,
        grace: int | None = None,
    ) -> None:
        gone = {
            *names,
            *(name_of(o) for o in self.list(kind, namespace=namespace, selector=selector) if selector),
        }
        self.world.done += [f"delete {kind} {name}" for name in sorted(gone)]
        self.world.objects[kind] = [
            o
            for o in self.world.objects.get(kind, [])
            if name_of(o) not in gone or at(o, "metadata", "namespace") != namespace
        ]

    def wait_gone(
        self,
        kind: str,
        *,
        namespace: str | None = None,
        selector: str = "",
        names: frozenset[str] | None = None,
        timeout: float | None = None,
    ) -> set[str]:
        self.world.done.append(f"wait {selector}")
        return self.world.stuck & (names or frozenset())

    def label(self, kind: str, name: str, labels: Any) -> None:
        self.world.done.append(f"label {name}: {', '.join(labels)}")
        for node in self.list(kind):
            for key in labels:
                node["metadata"]["labels"].pop(key, None)

    def watches(
        self, queries: Sequence[Query], *, timeout: float, quiet: float = 3600.0
    ) -> Generator[tuple[str, str, Object], None, None]:
        for node in self.list("nodes"):
            yield "nodes", "ADDED", node


@dataclass(frozen=True)
class FakeHelm(Helm):
    """A release that is there until it is uninstalled."""

    status: str = "deployed"
    given: dict[str, Any] = field(default_factory=dict)

    def history(self) -> list[Revision]:
        world = self.kube.world if isinstance(self.kube, FakeKube) else World({})
        if "helm uninstall" in world.done or not self.status:
            return []
        return [Revision(1, self.status, "3.25.0", "noon")]

    def values(self) -> dict[str, Any]:
        return self.given

    def uninstall(self) -> None:
        assert isinstance(self.kube, FakeKube)
        self.kube.world.done.append("helm uninstall")
        for kind, found in self.kube.world.objects.items():
            if kind not in ("nodes", "pods"):
                gone = [o for o in found if belongings.owner_of(o) == (self.release, self.namespace)]
                self.kube.world.objects[kind] = [o for o in found if o not in gone]


class Played(uninstall.Work):
    """Nodes that are clean."""

    def ask(self, tasks: Sequence[Task]) -> list[Outcome]:
        assert isinstance(self.kube, FakeKube)
        self.kube.world.done.append(tasks[0].command[-1])
        return [Outcome(task, "Succeeded", 0, b"end=yes\n") for task in tasks]


def daemonset(
    owner: tuple[str, str] | None = OURS, suffix: str = "", namespace: str = "kube-system"
) -> Object:
    labels = {"name": f"kata-deploy{suffix}"}
    spec = {"template": {"metadata": {"labels": labels}}}
    return made(f"kata-deploy{suffix}", owner, namespace, spec=spec)


def installed(owner: tuple[str, str] = OURS) -> World:
    node = made("worker-1", labels={LABEL: "true", "kata-deploy.katacontainers.io/two": "true"})
    node["status"] = {"conditions": [{"type": "Ready", "status": "True"}]}
    return World(
        {
            "nodes": [node],
            "runtimeclasses": [made("kata-qemu", owner, handler="kata-qemu")],
            "daemonsets": [daemonset(owner, namespace=owner[1])],
            "clusterroles": [made("kata-deploy-role", owner)],
            "clusterrolebindings": [made("kata-deploy-rb", owner)],
        }
    )


def work(world: World, *, namespace: str = "kube-system", status: str = "deployed", **values: Any) -> Played:
    kube = FakeKube(world=world)
    helm = FakeHelm(kube, "kata-deploy", namespace, 3, status=status, given=values)
    return Played(kube, helm, "cluster lab", "image", 5.0, lambda _step, _detail: None)


def go(played: Played, *, force: bool = False, lines: list[str] | None = None) -> Report:
    shown = [] if lines is None else lines
    return uninstall.uninstall(played, consent=shown.extend, force=force, dry_run=False)


def test_the_runtimeclasses_go_first_and_the_pods_are_waited_for() -> None:
    world = installed()
    ending = made("a", None, "kube-system", labels={"name": "kata-deploy"}, spec={"nodeName": "worker-1"})
    world.objects["pods"] = [ending]
    report = go(work(world))
    order = ["delete runtimeclasses kata-qemu", "helm uninstall", "wait name=kata-deploy", "look"]
    assert [deed for deed in world.done if not deed.startswith("label")] == order
    assert [f.status for f in report.findings] == [Status.PASS, Status.PASS]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    ("owner", "cure"),
    [
        (OURS, "-n kube-system --release kata-deploy"),
        (("other", "default"), "-n default --release other"),
    ],
)
def test_another_namespaces_or_releases_kata_is_refused(
    owner: tuple[str, str], cure: str, force: bool
) -> None:
    """And named; whether its DaemonSet is there, or only the roles that tell of the release."""
    for kinds in ((), ("daemonsets",), ("clusterroles", "clusterrolebindings")):
        world = installed(owner)
        for kind in kinds:
            del world.objects[kind]
        report = go(work(world, namespace="default", status=""), force=force)
        assert [f.check for f in report.blockers] == ["cluster-release"]
        assert report.blockers[0].cure.endswith(cure)
        assert not world.done


def test_a_release_with_a_suffix_is_not_ours() -> None:
    world = installed()
    report = go(work(world, env={"multiInstallSuffix": "two"}), force=True)
    assert "suffix two" in report.blockers[0].evidence
    assert not world.done


def test_a_second_installation_stays() -> None:
    """Its DaemonSet, its labels; and what somebody called kata-something is not the chart's."""
    world = installed()
    two = ("two", "kube-system")
    foreign: Everything = {
        "daemonsets": [daemonset(two, "-two")],
        "clusterroles": [made("kata-deploy-role-two", two), made("kata-monitor-grafana")],
        "configmaps": [
            made("kata-monitor-dashboards", None, "kube-system"),
            made("kata-deploy", None, "kube-system"),
        ],
        "runtimeclasses": [made("kata-qemu-two", two, handler="kata-qemu-two")],
        "jobs": [made("kata-deploy-mine", None, "kube-system"), made("kata-deploy-cleanup", None, "default")],
    }
    left: Everything = {kind: list(found) for kind, found in foreign.items()}
    hook = made("kata-deploy-cleanup", None, "kube-system")
    for kind, found in foreign.items():
        world.objects.setdefault(kind, []).extend(found)
    world.objects["jobs"].append(hook)
    world.objects["pods"] = [made("c-1", None, "kube-system", labels={"job-name": "kata-deploy-cleanup"})]
    lines: list[str] = []
    report = go(work(world), lines=lines)
    assert "delete the clusterroles kata-deploy-role" in lines
    assert "delete the jobs kata-deploy-cleanup" in lines
    assert not [line for line in lines if "two" in line or "grafana" in line or "mine" in line]
    assert {kind: world.objects[kind] for kind in left} == left
    assert not world.objects["pods"]
    assert not [deed for deed in world.done if deed.startswith("label")]
    assert world.objects["nodes"][0]["metadata"]["labels"][LABEL] == "true"
    assert report.findings[0].status is Status.PASS
    assert "kube-system/kata-deploy-two" in report.findings[0].evidence


def test_pods_that_do_not_end_keep_the_nodes_from_being_cleaned() -> None:
    world = installed()
    pods = [made(name, None, "kube-system", labels={"name": "kata-deploy"}) for name in ("a", "b")]
    pods[0]["spec"], pods[1]["spec"] = {"nodeName": "worker-1"}, {"nodeName": "away"}
    world.objects["pods"], world.stuck = pods, {"a", "b"}
    with pytest.raises(ConnectionFailed, match="1 pods of kata-deploy have not ended"):
        go(work(world))
    assert "look" not in world.done
    world.stuck = {"b"}
    assert go(work(world)).findings


@pytest.mark.parametrize(
    ("status", "refused"), [("pending-upgrade", True), ("uninstalling", False), ("failed", False)]
)
def test_a_helm_that_is_at_work_is_waited_for(status: str, refused: bool) -> None:
    world = installed()
    report = go(work(world, status=status))
    assert [f.check for f in report.blockers] == (["cluster-release"] if refused else [])
    assert ("helm uninstall" in world.done) is not refused
    assert not go(work(world, status=status), force=True).blockers
    assert "helm uninstall" in world.done


@pytest.mark.parametrize("force", [False, True])
def test_a_pod_that_comes_while_the_user_is_asked_is_seen(force: bool) -> None:
    world = installed()
    late = made("web", None, "default", spec={"runtimeClassName": "kata-qemu"}, status={"phase": "Running"})

    def consent(_lines: Sequence[str]) -> None:
        world.objects["pods"] = [late]

    report = uninstall.uninstall(work(world), consent=consent, force=force, dry_run=False)
    assert [f.evidence for f in report.blockers] == ([] if force else ["used by default/web"])
    assert bool(world.done) is force
