"""kata-check passes only where a proof has passed. cluster-pod-kata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from nestvirt.kata import cluster, pods, proof, validate
from nestvirt.kata.cluster import Cluster, Deploy, Node, RuntimeClass
from nestvirt.kata.kube import Kube
from nestvirt.kata.pods import Outcome, Task
from nestvirt.kata.rollout import LABEL
from nestvirt.model import Finding, Report, Status

BOOT = "01234567-89ab-4cde-8f01-23456789abcd"
OTHER = "aaaaaaaa-89ab-4cde-8f01-23456789abcd"
POD = {
    "metadata": {"name": "kata-deploy-x", "namespace": "kube-system"},
    "status": {"phase": "Running", "containerStatuses": [{"ready": True, "state": {"running": {}}}]},
}
LABELS = {LABEL: "true"}
AMD = Node("amd", ready=True, labels=LABELS, boot_id=BOOT, kernel="6.1.0")
ARM = Node("arm", ready=True, labels=LABELS, boot_id=BOOT, kernel="6.1.0", arch="arm64")
AWAY = Node("amd", ready=False, labels=LABELS, boot_id=BOOT)
DEPLOY = Deploy("kata-deploy", "kube-system", 1, 1, env={"SHIMS_X86_64": "qemu"}, pods={"amd": POD})
GONE = Deploy("kata-deploy", "kube-system", 1, 1, env={"SHIMS_X86_64": "qemu"}, pods={"lost": POD})
UNPLACED = Deploy("kata-deploy", "kube-system", 0, 0, env={"SHIMS_X86_64": "qemu"})
QEMU = (RuntimeClass("kata-qemu", "kata-qemu"),)


class Silent(Kube):
    """A cluster that has nothing more to say."""

    def run(self, *words: str, **_options: Any) -> bytes:
        return b"sh.helm.release.v1.kata-deploy.v1 helm.sh/release.v1 1 1d 1 deployed\n"

    def patient(self, timeout: float) -> Kube:
        return self


def outcome(task: Task) -> Outcome:
    """As a sound node answers."""
    boot, flag = (OTHER, "yes") if task.runtime_class else (BOOT, "no")
    facts = dict.fromkeys(proof.FACTS, "") | {"kernel": "6.1.0", "boot": boot, "flag": flag}
    lines = "\n".join(f"{name} {said}" for name, said in facts.items())
    return Outcome(task, "Succeeded", 0, f"nestvirt-proof 1\n{lines}\n".encode(), None, ())


def run(_kube: Kube, tasks: Sequence[Task], **_options: Any) -> list[Outcome]:
    return [outcome(task) for task in tasks]


def proofs(
    monkeypatch: pytest.MonkeyPatch,
    known: Cluster,
    *,
    nodes: tuple[str, ...] = (),
    classes: tuple[str, ...] | None = None,
    wanted: bool = True,
) -> tuple[Status, str, dict[str, Finding]]:
    """The conclusion of the proof alone, the headline, and what was found by subject."""
    monkeypatch.setattr(cluster, "read", lambda _kube, _namespace: known)
    monkeypatch.setattr(pods, "run", run)
    manner = validate.Manner(
        "kube-system", "kata-deploy", "busybox", 1, lambda _s, _d: None, nodes, classes, pods=wanted
    )
    checked = validate.check(Silent(), manner)
    found = tuple(f for f in checked.findings if f.check == "cluster-pod-kata")
    assert all(f.cure for f in found if f.ill)
    return Report("c", found, goal=None).conclusion, checked.summary, {f.subject: f for f in found}


def test_a_proof_that_passed_is_success(monkeypatch: pytest.MonkeyPatch) -> None:
    conclusion, summary, found = proofs(monkeypatch, Cluster((1, 30), (AMD,), QEMU, (DEPLOY,)))
    assert (conclusion, list(found)) == (Status.PASS, ["amd/kata-qemu"])
    assert summary == "pods under kata-qemu run in VMs of their own on 1 node"


NOTHING = "nothing was proven: no pod ran under a RuntimeClass"
UNPROVEN = [
    (Cluster((1, 30), (Node("amd", ready=True),), QEMU, (GONE,)), (), "nodes that are gone (lost)"),
    (Cluster((1, 30), (Node("amd", ready=True),), QEMU, (UNPLACED,)), (), "no pod on any node"),
    (Cluster((1, 30), (AWAY,), QEMU, (DEPLOY,)), (), "no pod could be tried"),
]


@pytest.mark.parametrize(("known", "nodes", "words"), UNPROVEN)
def test_silence_is_no_success(
    monkeypatch: pytest.MonkeyPatch, known: Cluster, nodes: tuple[str, ...], words: str
) -> None:
    conclusion, summary, found = proofs(monkeypatch, known, nodes=nodes)
    assert (conclusion, summary) == (Status.UNKNOWN, NOTHING)
    assert words in found[""].evidence


def test_a_node_that_no_class_fits_is_not_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Cluster((1, 30), (AMD, ARM), QEMU, (DEPLOY,))
    conclusion, summary, found = proofs(monkeypatch, known, nodes=("arm",))
    assert (conclusion, summary, list(found)) == (Status.UNKNOWN, NOTHING, ["arm"])
    assert "no RuntimeClass for arm64" in found["arm"].evidence
    conclusion, _, found = proofs(monkeypatch, known)
    assert conclusion is Status.UNKNOWN
    assert {name: f.status for name, f in found.items()} == {
        "amd/kata-qemu": Status.PASS,
        "arm": Status.UNKNOWN,
    }


def test_classes_that_are_not_there_are_not_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Cluster((1, 30), (AMD,), (), (DEPLOY,))
    conclusion, _, found = proofs(monkeypatch, known, classes=("kata-qemu",))
    assert (conclusion, list(found)) == (Status.UNKNOWN, ["amd"])


def test_without_pods_nothing_is_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Cluster((1, 30), (AMD, ARM), QEMU, (DEPLOY,))
    conclusion, summary, found = proofs(monkeypatch, known, wanted=False)
    assert (conclusion, summary) == (Status.UNKNOWN, NOTHING)
    assert {name: f.status for name, f in found.items()} == {
        "amd/kata-qemu": Status.SKIP,
        "": Status.UNKNOWN,
    }
    assert "no pods were wanted" in found[""].evidence


@pytest.mark.parametrize(
    ("release", "status"), [("", Status.SKIP), ("mine", Status.WARN)], ids=["not by Helm", "another one"]
)
def test_a_release_of_another_name_is_named(
    release: str, status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Without(Silent):
        def run(self, *words: str, **_options: Any) -> bytes:
            return b""

    deploy = replace(DEPLOY, release=release, namespace="elsewhere")
    monkeypatch.setattr(cluster, "read", lambda _kube, _namespace: Cluster((1, 30), (AMD,), QEMU, (deploy,)))
    monkeypatch.setattr(pods, "run", run)
    manner = validate.Manner("kube-system", "kata-deploy", "busybox", 1, lambda _s, _d: None)
    found = {f.check: f for f in validate.check(Without(), manner).findings}["cluster-release"]
    assert found.status is status
    assert ("-n elsewhere --release mine" in found.cure) == (status is Status.WARN)
