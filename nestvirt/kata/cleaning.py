"""Kata's files on the nodes: looked for, removed, and looked for again. clean.sh does it, in short pods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nestvirt.kata import node_checks, pods
from nestvirt.kata.api import Object, at, name_of
from nestvirt.kata.chart import distribution_of
from nestvirt.kata.layout import layout
from nestvirt.kata.pods import Outcome, Task, Tell
from nestvirt.printable import printable

WORDS = ("removed", "kept", "left", "missing", "restart", "restarted", "failed", "end")
"""What clean.sh says, each any number of times."""
DEEDS = {"look": "looking at", "clean": "cleaning", "restart": "restarting the runtime of"}
ROLES = ("control-plane", "master", "etcd")

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Said:
    """What clean.sh has said on a node.

    Attributes:
        words: each of WORDS to all that was said under it.
        trouble: why it has said nothing; empty where it has.
        cure: for that.
    """

    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    trouble: str = ""
    cure: str = ""

    def of(self, word: str) -> tuple[str, ...]:
        """Everything that it said under a word."""
        return self.words.get(word, ())

    @property
    def clean(self) -> bool:
        """Whether the node has been seen to have nothing left."""
        return not self.trouble and not self.of("left") and not self.of("restart")


@dataclass(frozen=True)
class Manner:
    """How the nodes are reached.

    Attributes:
        ask: runs short pods, and says what became of them.
        ready: waits until nodes are ready; the names of those that are not in the end.
        image: of the pods.
        configured: the distribution that the release was installed for; empty where it does not say.
    """

    ask: Callable[[Sequence[Task]], list[Outcome]]
    ready: Callable[[Sequence[str]], set[str]]
    tell: Tell
    image: str
    configured: str


def clean_nodes(all_nodes: Sequence[Object], manner: Manner) -> dict[str, Said]:
    """Look at every node that is ready; clean those that need it, restart what has read it, look again.

    Returns:
        Node to what was said last, with what was kept and what failed on the way.
    """
    nodes = {name_of(node): node for node in all_nodes if node_checks.is_ready(node)}
    said = _ask(manner, list(nodes.values()), "look")
    dirty = [name for name in nodes if said[name].of("left")]
    cleaned = _ask(manner, [nodes[name] for name in dirty], "clean")
    owed = [name for name in nodes if cleaned.get(name, said[name]).of("restart")]
    restarted, again = _restart(manner, [nodes[name] for name in owed])
    unseen = [name for name in nodes if name in {*dirty, *owed} and name not in again]
    again |= _ask(manner, [nodes[name] for name in unseen], "look")
    before = {name: [did[name] for did in (cleaned, restarted) if name in did] for name in again}
    return {**said, **{name: _with(last, before[name]) for name, last in again.items()}}


def _restart(manner: Manner, nodes: Sequence[Object]) -> tuple[dict[str, Said], dict[str, Said]]:
    """Restart runtimes: of one worker, of the others, then of each control plane alone.

    The next ones are restarted only when the former run pods again and are ready: the API has to go on.

    Returns:
        Node to what was said to its restart, or why there was none; node to what was seen after it.
    """
    workers = [node for node in nodes if not _control_plane(node)]
    batches = [workers[:1], workers[1:], *([node] for node in nodes if _control_plane(node))]
    restarted, again = dict[str, Said](), dict[str, Said]()
    wrong: list[str] = []
    for batch in batches:
        names = [name_of(node) for node in batch]
        if wrong:
            why = f"not restarted, for something went wrong on {node_checks.some(wrong)}"
            restarted |= {name: Said({"failed": (why,)}) for name in names}
        elif batch:
            restarted |= _ask(manner, batch, "restart")
            again |= _ask(manner, batch, "look")
            late = manner.ready(names)
            ill = [did[name] for did in (restarted, again) for name in names]
            wrong = sorted({*late, *(name for name, said in zip(names * 2, ill, strict=True) if _ill(said))})
            restarted |= {name: _late(restarted[name]) for name in late}
    return restarted, again


def _ill(said: Said) -> bool:
    """Whether a restart, or what was seen after it, was not as it should be."""
    return bool(said.trouble or said.of("failed") or said.of("restart"))


def _late(said: Said) -> Said:
    failed = (*said.of("failed"), "the node is not ready again after the restart of its runtime")
    return replace(said, words={**said.words, "failed": failed})


def _with(last: Said, before: Sequence[Said]) -> Said:
    """What was said last, with what was kept and what failed before that."""
    every = [*before, last]
    words = {
        word: tuple(dict.fromkeys(text for s in every for text in s.of(word))) for word in ("kept", "failed")
    }
    return replace(last, words={**last.words, **{word: texts for word, texts in words.items() if texts}})


def _control_plane(node: Object) -> bool:
    labels = at(node, "metadata", "labels")
    return isinstance(labels, dict) and any(f"node-role.kubernetes.io/{role}" in labels for role in ROLES)


def _ask(manner: Manner, nodes: Sequence[Object], deed: str) -> dict[str, Said]:
    """Run clean.sh on nodes; node to what it said."""
    if not nodes:
        return {}
    manner.tell(DEEDS[deed], node_checks.some([name_of(node) for node in nodes]))
    outcomes = manner.ask([_task(node, manner, deed) for node in nodes])
    said = {outcome.task.node: read(outcome) for outcome in outcomes}
    return {name_of(node): _judged(node, said[name_of(node)], manner.configured) for node in nodes}


def _judged(node: Object, said: Said, configured: str) -> Said:
    """In trouble, where a distribution that writes containerd's configuration has none where it should be."""
    runtime = str(at(node, "status", "nodeInfo", "containerRuntimeVersion") or "containerd")
    own = layout(distribution(node, configured)).templates and runtime.startswith("containerd")
    if said.trouble or not said.of("missing") or not own:
        return said
    trouble = f"containerd's configuration was not looked at: there is no {said.of('missing')[0]}"
    cure = "look where NODE has it (--data-dir), and that nothing of Kata is in it"
    return replace(said, trouble=trouble, cure=cure)


def _task(node: Object, manner: Manner, deed: str) -> Task:
    where = layout(distribution(node, manner.configured))
    env = {
        "NESTVIRT_CONTAINERD": where.directory,
        "NESTVIRT_GENERATED": where.generated,
        "NESTVIRT_UNITS": " ".join(where.units),
    }
    files = {"clean.sh": (_HERE / "clean.sh").read_text(encoding="utf-8")}
    command = ("sh", f"{pods.FOLDER}/clean.sh", deed)
    return Task(
        name_of(node),
        f"clean-{deed}",
        manner.image,
        command,
        env,
        files,
        privileged=True,
        read_only_host=deed == "look",
    )


def distribution(node: Object, configured: str) -> str:
    """Which distribution a node is of; what the release says decides only where the node does not."""
    told = distribution_of(str(at(node, "status", "nodeInfo", "kubeletVersion") or ""))
    if told is not None:
        return told
    labelled = at(node, "metadata", "labels", "microk8s.io/cluster") == "true"
    return "microk8s" if labelled or configured == "microk8s" else "k8s"


def read(outcome: Outcome) -> Said:
    """What clean.sh has said, strictly read."""
    if outcome.phase != "Succeeded":
        trouble, cure = node_checks.silent(outcome)
        return Said(trouble=trouble, cure=cure)
    words: dict[str, list[str]] = {}
    for line in outcome.log.decode(errors="replace").split("\n"):
        word, sign, text = line.partition("=")
        if line and (not sign or word not in WORDS):
            return Said(trouble="the pod's answer cannot be read", cure="run it again")
        if line:
            words.setdefault(word, []).append(printable(text, 300))
    if words.get("end") != ["yes"]:
        return Said(trouble="the pod's answer ends early", cure="run it again")
    return Said({word: tuple(texts) for word, texts in words.items()})
