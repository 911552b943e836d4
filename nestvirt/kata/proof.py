"""The proof: a pod under a RuntimeClass runs in a machine of its own, and not on the node's kernel.

A pod says which boot of which kernel it runs on; so does a standard pod beside it, and so does the node's
kubelet. A boot has an id of its own (/proc/sys/kernel/random/boot_id), so that two machines with the same
kernel are told apart. Another boot alone may be made up by a sandbox without a VM; hence there has to be a
hypervisor underneath, too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from nestvirt.kata import pods
from nestvirt.kata.cluster import Node
from nestvirt.kata.explain import Trouble, of_outcome
from nestvirt.kata.pods import Outcome, Task
from nestvirt.model import Finding, Layer, Status
from nestvirt.printable import printable

SCRIPT = Path(__file__).with_name("proof.sh")
FACTS = ("kernel", "boot", "flag", "vendor", "product", "tree", "control", "agent", "end")
BESIDE = "standard"
STANDARD, KATA = "cluster-pod-standard", "cluster-pod-kata"

_BOOT = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_KERNEL = re.compile(r"\d+\.\d+[\w.+~-]{0,100}")
_VENDORS = re.compile(
    r"QEMU|KVM|Bochs|Firecracker|Cloud Hypervisor|cloud-hypervisor|Amazon EC2|VMware|Xen|Microsoft"
)
_TREE = re.compile(r"dummy-virt|linux,kvm|qemu|firecracker")


@dataclass(frozen=True)
class Answer:
    """What a pod says of its machine.

    Attributes:
        kernel: its release.
        boot: its boot id.
        hypervisor: what shows one underneath, for people; empty where nothing does.
        agent: whether the kernel was started with the words of Kata's agent.
    """

    kernel: str
    boot: str
    hypervisor: str = ""
    agent: bool = False


def task(node: str, image: str, runtime_class: str | None) -> Task:
    """The pod that answers; the standard one without a RuntimeClass."""
    files = {SCRIPT.name: SCRIPT.read_text(encoding="utf-8")}
    command = ("sh", f"{pods.FOLDER}/{SCRIPT.name}")
    purpose = runtime_class or BESIDE
    return Task(node, purpose, image, command, files=files, runtime_class=runtime_class)


def read(log: bytes) -> Answer:
    """A pod's log.

    Raises:
        ValueError: it is not the whole answer of proof.sh, or makes no sense.
    """
    first, *lines = log.decode("ascii", errors="strict").split("\n")
    pairs = [line.partition(" ")[::2] for line in lines if line]
    facts = dict(pairs)
    if first != "nestvirt-proof 1" or tuple(facts) != FACTS or len(pairs) != len(facts):
        raise ValueError("it is not the whole answer")
    if not _BOOT.fullmatch(facts["boot"]) or not _KERNEL.fullmatch(facts["kernel"]):
        raise ValueError("it has no kernel release or no boot id")
    return Answer(facts["kernel"], facts["boot"], _hypervisor(facts), facts["agent"] == "yes")


def _hypervisor(facts: dict[str, str]) -> str:
    seen = ["the CPU's flag hypervisor"] if facts["flag"] == "yes" else []
    machine = f"{facts['vendor']} {facts['product']}".strip()
    if _VENDORS.search(machine):
        seen.append(f"a machine by {machine}")
    if _TREE.search(facts["tree"]):
        seen.append(f"the device tree {facts['tree']}")
    if facts["control"]:
        seen.append(f"the control program {facts['control']}")
    return ", ".join(seen)


def judge(node: Node, standard: Outcome | None, kata: dict[str, Outcome]) -> list[Finding]:
    """The findings of one node.

    Args:
        standard: the pod without a RuntimeClass.
        kata: RuntimeClass to its pod.
    """
    found, beside = [], None
    if standard is not None:
        answer, finding = _standard(node, standard)
        beside = answer
        found.append(finding)
    return found + [_kata(node, name, outcome, beside) for name, outcome in sorted(kata.items())]


def _standard(node: Node, outcome: Outcome) -> tuple[Answer | None, Finding]:
    answer, refused = _answer(node, node.name, STANDARD, outcome)
    if answer is None or refused is not None:
        return None, refused or _finding(STANDARD, Status.UNKNOWN, "no answer", "", node.name)
    if not _BOOT.fullmatch(node.boot_id):
        evidence = f"it runs, on the kernel {answer.kernel}; the kubelet tells no boot id to compare with"
        return answer, _finding(STANDARD, Status.UNKNOWN, evidence, _KUBELET, node.name)
    if answer.boot == node.boot_id:
        evidence = f"it runs on the node's own kernel, {answer.kernel}"
        return answer, _finding(STANDARD, Status.PASS, evidence, "", node.name)
    evidence = f"a pod without a RuntimeClass runs on {answer.kernel}, and the node on {node.kernel}"
    return answer, _finding(STANDARD, Status.FAIL, evidence, _DEFAULT, node.name)


_KUBELET = "see what it tells: kubectl get node NODE -o jsonpath={.status.nodeInfo}"
_DEFAULT = (
    "make the node's default runtime runc again: default_runtime_name in its containerd's configuration"
)
_SHARED = (
    "see which runtime its handler names: nestvirt kata-logs --node NODE; and install again: nestvirt "
    "kata-install --config FILE"
)
_HIDDEN = "see what runs the pod: nestvirt kata-logs --node NODE"
_NONSENSE = "look at what it writes: nestvirt kata-logs --node NODE; or use another image with --image"


def _kata(node: Node, name: str, outcome: Outcome, beside: Answer | None) -> Finding:
    subject = f"{node.name}/{name}"
    answer, refused = _answer(node, subject, KATA, outcome)
    if answer is None or refused is not None:
        return refused or _finding(KATA, Status.UNKNOWN, "no answer", "", subject)
    boots = {node.boot_id} | ({beside.boot} if beside else set())
    known = {boot for boot in boots if _BOOT.fullmatch(boot)}
    release = printable(node.kernel or (beside.kernel if beside else ""), 100)
    if answer.boot in known:
        evidence = f"the pod runs, and is not isolated: it shows the node's own kernel, {answer.kernel}"
        return _finding(KATA, Status.FAIL, evidence, _SHARED, subject)
    if not known:
        evidence = f"the pod runs on the kernel {answer.kernel}, and nobody tells the node's boot id"
        return _finding(KATA, Status.UNKNOWN, evidence, _KUBELET, subject)
    if not answer.hypervisor:
        evidence = f"the pod runs on another kernel ({answer.kernel}), and no hypervisor shows underneath"
        return _finding(KATA, Status.UNKNOWN, evidence, _HIDDEN, subject)
    agent = "; started for Kata's agent" if answer.agent else ""
    evidence = f"its own kernel {answer.kernel} (the node's: {release}), on {answer.hypervisor}{agent}"
    return _finding(KATA, Status.PASS, evidence, "", subject)


def _answer(node: Node, subject: str, check: str, outcome: Outcome) -> tuple[Answer | None, Finding | None]:
    """A pod's answer, or the finding that says why there is none."""
    if outcome.phase != "Succeeded" or (outcome.trouble and not outcome.log):
        trouble = of_outcome(outcome, node_ready=node.ready)
        return None, _finding(check, _status(trouble), trouble.evidence, trouble.cure, subject)
    try:
        return read(outcome.log), None
    except ValueError as error:
        shown = printable(outcome.log[:120].decode(errors="replace")) or "nothing"
        evidence = f"the pod ran, and its answer is no proof ({error}): {shown}"
        return None, _finding(check, Status.UNKNOWN, evidence, _NONSENSE, subject)


def _status(trouble: Trouble) -> Status:
    """A pod that did not run for a reason of ours, or for none that is known, shows nothing of Kata."""
    ours = ("image-pull", "quota", "pod-security", "gone", "silent", "no-log")
    return Status.UNKNOWN if trouble.name in ours else Status.FAIL


def _finding(check: str, status: Status, evidence: str, cure: str, subject: str) -> Finding:
    return Finding(check, Layer.CLUSTER, status, evidence, cure, subject=subject)
