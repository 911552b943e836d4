"""Before Kata is installed: may it run on every node? One short pod a node, all at once.

In each, the probe itself runs guest code through the node's /dev/kvm, by the node's own Python or by the
image's. Where there is neither, the shell reads flags and devices, which proves nothing and is said so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nestvirt.guest import verify
from nestvirt.guest.verify import Probed
from nestvirt.kata import node_checks, pods
from nestvirt.kata.api import Object, name_of
from nestvirt.kata.checks import CHECKS
from nestvirt.kata.config import KataConfig
from nestvirt.kata.kube import Kube
from nestvirt.kata.layout import layout
from nestvirt.kata.node_checks import Answer, Wish, of_node
from nestvirt.kata.pods import Outcome, Task, Tell
from nestvirt.kata.shims import SHIMS
from nestvirt.model import Finding, Status

HOW = ("node", "image", "files")
"""By which Python the probe ran; "files": by none, only files were read."""

_HERE = Path(__file__).parent
_GUEST = Path(verify.__file__).parent
_NAME = re.compile(r"[a-z][a-zA-Z0-9.-]{0,40}")


@dataclass(frozen=True)
class Manner:
    """How the pods are run.

    Attributes:
        image: has a shell, chroot and the like; with a python3 the probe runs also where a node has none.
        timeout: seconds within which they have to end.
    """

    namespace: str
    image: str
    timeout: float
    tell: Tell


def preflight(
    kube: Kube, nodes: Sequence[Object], config: KataConfig, distribution: str, manner: Manner
) -> tuple[list[Finding], bool | None]:
    """Ask every node.

    Args:
        nodes: those that kata-deploy is to install on.

    Returns:
        The findings of cluster-node-*, in the order of the chain; and whether any node is itself a VM, None
        where none of them says.

    Raises:
        AccessDenied, ConnectionFailed: see pods.run.
    """
    wish = Wish(config, distribution)
    reached = [node for node in nodes if node_checks.is_ready(node)]
    manner.tell("asking", f"{node_checks.some([name_of(n) for n in reached])} whether VMs run there")
    tasks = [task(name_of(node), wish, manner.image) for node in reached]
    outcomes = pods.run(kube, tasks, namespace=manner.namespace, timeout=manner.timeout, tell=manner.tell)
    answers = {outcome.task.node: answer(outcome) for outcome in outcomes}
    found = [f for node in nodes for f in of_node(node, answers.get(name_of(node)), wish)]
    below = {node_checks.hypervisor(a.probed) for a in answers.values() if a.probed} - {"", "unknown"}
    return ordered(named(found)), bool(below - {"none"}) if below else None


def task(node: str, wish: Wish, image: str) -> Task:
    """The pod of a node."""
    where = layout(wish.distribution)
    devmapper = any(SHIMS[name].snapshotter == "devmapper" for name in wish.config.shims)
    env = {"NESTVIRT_CONTAINERD": where.directory, "NESTVIRT_CTR": where.ctr if devmapper else ""}
    files = {
        "preflight.sh": (_HERE / "preflight.sh").read_text(encoding="utf-8"),
        "probe.py": verify.probe_source(),
        "reading.sh": (_GUEST / "reading.sh").read_text(encoding="utf-8"),
    }
    command = ("sh", f"{pods.FOLDER}/preflight.sh")
    return Task(node, "preflight", image, command, env, files, privileged=True)


def answer(outcome: Outcome) -> Answer:
    """What a node's pod has said; why there is nothing to read where there is not."""
    if outcome.phase != "Succeeded":
        return Answer(*node_checks.silent(outcome))
    try:
        facts = read(outcome.log)
    except ValueError as error:
        return Answer(f"the pod's answer cannot be read: {error}", "look at it: nestvirt kata-logs")
    return Answer(facts=facts, how=facts["how"], probed=probed(facts))


def read(log: bytes) -> dict[str, str]:
    """The lines ``NAME=VALUE`` of preflight.sh.

    Raises:
        ValueError: it is something else, or ends early.
    """
    facts: dict[str, str] = {}
    for line in log.decode("utf-8", errors="strict").split("\n"):
        name, sign, value = line.partition("=")
        if not line:
            continue
        if not sign or not _NAME.fullmatch(name) or name in facts or len(value) > verify.ANSWER_LIMIT:
            raise ValueError(f"an unexpected line after {len(facts)} others")
        facts[name] = value
    if facts.get("end") != "yes" or facts.get("how") not in HOW:
        raise ValueError("it ends early")
    return facts


def probed(facts: Mapping[str, str]) -> Probed:
    """The probe's answer within, judged as that of any guest."""
    try:
        said = json.loads(facts.get("probe", ""))
    except (ValueError, RecursionError):
        said = None
    return verify.judge_answer(said, channel="pod", full=facts["how"] != "files")


def named(findings: Sequence[Finding]) -> list[Finding]:
    """With the node's name in a cure, where that is one node's; nodes that share it are told together."""
    sharing: dict[tuple[str, str, str], set[str]] = {}
    for f in findings:
        sharing.setdefault((f.check, f.evidence, f.cure), set()).add(f.subject.partition("/")[0])
    return [
        replace(f, cure=f.cure.replace("NODE", f.subject.partition("/")[0]))
        if f.subject and len(sharing[(f.check, f.evidence, f.cure)]) == 1
        else f
        for f in findings
    ]


def ordered(findings: Sequence[Finding]) -> list[Finding]:
    """In the order of the chain, then of the nodes' names."""
    chain = list(CHECKS)
    return sorted(findings, key=lambda f: (chain.index(f.check), f.subject))


def capable(findings: Sequence[Finding], nodes: Sequence[Object]) -> list[str]:
    """The names of the nodes of which nothing was found that stands against Kata there."""
    ill = {f.subject for f in findings if f.status in (Status.FAIL, Status.UNKNOWN)}
    return [name_of(node) for node in nodes if name_of(node) not in ill]


def incapable(findings: Sequence[Finding]) -> list[str]:
    """The names of the nodes that were asked, and have no KVM; not those of which that is unknown."""
    return [f.subject for f in findings if f.check == "cluster-node-kvm" and f.status is Status.FAIL]


def summary(findings: Sequence[Finding], names: Sequence[str]) -> str:
    """On which nodes Kata can run: those alone on which guest code was seen to run."""
    ran = {f.subject for f in findings if f.check == "cluster-node-kvm" and f.status is Status.PASS}
    proven, rest = ([name for name in names if (name in ran) is seen] for seen in (True, False))
    unseen = f"not proven on {node_checks.some(rest)}" if rest else ""
    seen = f"Kata can run on {node_checks.some(proven)}" if proven else ""
    return "; ".join(part for part in (seen, unseen) if part)
