"""Kata installed, or changed: labels, Helm, the rollout; and all of it put back where it fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from nestvirt.errors import Busy, ConnectionFailed, Error
from nestvirt.kata import chart, helm, rollout
from nestvirt.kata.answers import Untrusted
from nestvirt.kata.api import Object, at, name_of
from nestvirt.kata.config import KataConfig
from nestvirt.kata.helm import Helm, Revision, Source
from nestvirt.kata.install_plan import CAPABLE, WORKS, Live, Nodes, Planned
from nestvirt.kata.kube import Kube
from nestvirt.kata.pods import Tell
from nestvirt.kata.stopping import stopped
from nestvirt.model import Finding, Status

BACK = "what was there before is back: Kata is not what the configuration says"
ILL = (Status.FAIL, Status.UNKNOWN)

Attempt = tuple[datetime, datetime]
"""When a Helm of ours was started, and when it had ended."""


@dataclass(frozen=True)
class Wanted:
    """What the user wants, and how.

    Attributes:
        image: of the short pods.
        timeout: seconds for each wait.
        only_capable: install on the nodes that can, and leave the others out.
        force: take over what is not the release's, and a release that was left pending.
        atomic: put back what was there where anything fails.
        consent: called with the plan; raises where the user declines.
    """

    config: KataConfig
    source: Source
    image: str
    timeout: float
    consent: Callable[[Planned], None]
    only_capable: bool = False
    force: bool = False
    atomic: bool = False


@dataclass(frozen=True)
class Session:
    """One cluster, and its release.

    Attributes:
        target: what the report calls the cluster.
        put_back: removes the release and all that Kata has on the nodes, for where there was nothing before;
            what it found afterwards.
    """

    kube: Kube
    helm: Helm
    target: str
    tell: Tell
    put_back: Callable[[], Sequence[Finding]]

    @property
    def patient(self) -> Session:
        """The same, while the cluster's API servers restart."""
        kube = self.kube.patient(rollout.PATIENCE)
        return replace(self, kube=kube, helm=replace(self.helm, kube=kube))


@dataclass(frozen=True)
class Look:
    """What is there before anything is done.

    Attributes:
        nodes: those that the configuration selects.
        distribution: what they are.
        findings: of the cluster as a whole.
        everywhere: all nodes of the cluster.
    """

    nodes: tuple[Object, ...]
    distribution: str
    live: Live
    findings: tuple[Finding, ...]
    everywhere: tuple[Object, ...] = ()

    @property
    def blocked(self) -> bool:
        """Whether something stands against it already."""
        return any(f.status is Status.FAIL for f in self.findings)

    @property
    def bare(self) -> bool:
        """Whether there is nothing of Kata, whoever might have put it there."""
        keys = [key for node in self.everywhere for key in at(node, "metadata", "labels") or {}]
        marked = any("katacontainers.io/" in key for key in keys)
        return not (self.live.history or self.live.katas or marked)

    @property
    def labelled(self) -> tuple[str, ...]:
        """The nodes that have Kata, by kata-deploy's own label."""
        return tuple(name_of(n) for n in self.everywhere if _label(n, rollout.LABEL) == "true")


def _label(node: Object, key: str) -> str | None:
    value = at(node, "metadata", "labels", key)
    return value if isinstance(value, str) else None


def values_of(wanted: Wanted, look: Look) -> str:
    """The chart's values, as YAML."""
    selector = {CAPABLE: WORKS} if wanted.only_capable else None
    return chart.to_yaml(chart.values(wanted.config, look.distribution, selector=selector))


# --- doing


def carry_out(
    session: Session, wanted: Wanted, look: Look, planned: Planned, nodes: Nodes, path: Path
) -> tuple[list[Finding], tuple[str, ...]]:
    """Labels, Helm, rollout.

    Returns:
        The findings of what hangs; and how things stand where it was put back, for people.

    Raises:
        Error: what went wrong; its words say how things stand.
    """
    undone = "nestvirt kata-uninstall removes it; or run kata-install again"
    undone += "; --atomic puts nothing back where it is you who stops it" if wanted.atomic else ""
    kube, namespace = session.patient.kube, session.helm.namespace
    with stopped("the installation was under way; Helm has written down how far it got", undone):
        try:
            for name in nodes.label:
                session.tell("labelling", name)
                kube.label("nodes", name, {CAPABLE: WORKS})
            if planned.unseen:
                held = [name for name in nodes.targets if name in look.labelled]
                with rollout.lowered(kube, namespace, held, session.tell):
                    upgrade(session, wanted, look, path)
            elif planned.helm:
                upgrade(session, wanted, look, path)
            for name in nodes.unlabel:
                kube.label("nodes", name, {CAPABLE: None})
            found = _wait(session, wanted, nodes.targets) if planned.helm or nodes.label else []
        except Error as error:
            raise _after(session, wanted, look, error) from error
        failed = wanted.atomic and any(f.status in ILL for f in found)
        return found, told(put_back(session, wanted, look)) if failed else ()


def upgrade(session: Session, wanted: Wanted, look: Look, path: Path) -> None:
    """Let Helm do it; again while its API server goes away under it.

    Raises:
        Busy: another Helm has begun to work on the release meanwhile.
    """
    before = list(look.live.history)
    if before and before[-1].status in helm.PENDING:
        session.helm.forget(before.pop())  # judge_release has seen to it that the user wants that
    session.tell("helm", f"upgrade --install {session.helm.release} ({wanted.config.version})")
    attempt: Attempt | None = None
    deadline: float | None = None
    while True:
        try:
            if attempt is not None and _was_done(session, wanted, before, attempt):
                return
            began = datetime.now(UTC)
            try:
                session.helm.upgrade(path, values_of(wanted, look), force=wanted.force)
            finally:
                attempt = began, datetime.now(UTC)
        except ConnectionFailed as error:
            deadline = deadline or time.monotonic() + rollout.PATIENCE
            left = deadline - time.monotonic()
            if isinstance(error, Untrusted) or left <= 0:
                raise
            session.tell("waiting for", f"the API server: {error.evidence}")
            session.kube.patient(left).run("get", "--raw", "/readyz")
        else:
            return


def _was_done(session: Session, wanted: Wanted, before: Sequence[Revision], attempt: Attempt) -> bool:
    """Whether an attempt whose answer got lost was carried out; one that broke off is taken back."""
    latest = next(iter(reversed(session.helm.history())), None)
    if latest is None or (before and latest.number <= before[-1].number):
        return False
    own = latest.chart == wanted.config.version and _within(latest.since, attempt)
    if latest.status in helm.PENDING and not own:
        raise Busy(
            "another Helm has begun to work on the release",
            evidence=f"revision {latest.number} of {latest.since}, Kata {latest.chart}, is {latest.status}",
            cure="wait for it, and run this again; where no Helm is at work, with --force",
        )
    if latest.status in helm.PENDING:
        session.helm.forget(latest)
    return own and latest.status == helm.DEPLOYED


def _within(since: str, attempt: Attempt) -> bool:
    """Whether a revision was begun while our own Helm ran: by the clock of this machine, as Helm has it."""
    try:
        began = datetime.fromisoformat(since)
    except ValueError:
        return False
    return began.tzinfo is not None and attempt[0] <= began <= attempt[1]


def _wait(session: Session, wanted: Wanted, targets: Sequence[str]) -> list[Finding]:
    found = rollout.wait(
        session.kube, session.helm.namespace, "kata-deploy", targets,
        timeout=wanted.timeout, tell=session.tell,
    )  # fmt: skip
    return [f for f in found if f.status is not Status.PASS]


def _after(session: Session, wanted: Wanted, look: Look, error: Error) -> Error:
    """The same error, once what was there is back, or with the words of how to get there."""
    if not wanted.atomic:
        error.cure = f"{error.cure}; then run it again, or take it back: nestvirt kata-uninstall".lstrip("; ")
        return error
    left = put_back(session, wanted, look, busy=isinstance(error, Busy))
    how = "not all of what was there before is back" if left else "what was there before is back"
    error.message = f"{error.message}; {how}"
    error.evidence = "; ".join(part for part in (error.evidence, *left) if part)
    return error


# --- putting back


def told(left: Sequence[str]) -> tuple[str, ...]:
    """How things stand after put_back(), for people."""
    return tuple(f"not as it was before: {line}" for line in left) or (BACK,)


def put_back(session: Session, wanted: Wanted, look: Look, *, busy: bool = False) -> tuple[str, ...]:
    """As it was before, as far as that goes; what is not, for people. It raises no Error.

    Args:
        busy: another Helm is at work on the release, which is left to that one.
    """
    patient = session.patient
    left = ["another Helm is at work on the release"] if busy else []
    for step in (_labels_back,) if busy else (_release_back, _labels_back):
        try:
            left += step(patient, wanted, look)
        except Error as error:
            left.append(": ".join(part for part in (error.message, error.evidence) if part))
    return tuple(dict.fromkeys(left))


def _release_back(session: Session, wanted: Wanted, look: Look) -> list[str]:
    """The revision that was there, or no release at all. What somebody else has made is left alone."""
    live, now = look.live, session.helm.history()
    if now[-1:] == list(live.history[-1:]):
        return []  # Helm has not come to do anything
    if live.former is not None:
        session.tell("putting back", f"revision {live.former.number}")
        session.helm.rollback(live.former.number)
        _hold_no_more(session, look)
        return _ills(_wait(session, wanted, look.labelled) if look.labelled else ())
    if look.bare:
        session.tell("putting back", "nothing of Kata: uninstalling")
        return _ills(session.put_back())
    if live.history:
        return ["the release: it has no revision that one could go back to"]
    session.tell("putting back", "no release: uninstalling this one")
    session.helm.uninstall()
    there = {name_of(found) for found in session.kube.list("runtimeclasses")}
    gone = [_anew(found) for found in live.katas if name_of(found) not in there]  # Helm had taken them over
    if gone:
        session.kube.create(*gone)
    return ["Kata was there without a release: see what is left of that with nestvirt kata-check"]


def _anew(found: Object) -> Object:
    """A RuntimeClass as it can be created again; a list does not say of its objects what they are."""
    meta = found["metadata"]
    kept = {key: meta[key] for key in ("name", "labels", "annotations") if key in meta}
    return {**found, "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": kept}


def _ills(found: Sequence[Finding]) -> list[str]:
    return [f"{f.subject}: {f.evidence}" if f.subject else f.evidence for f in found if f.status in ILL]


def _hold_no_more(session: Session, look: Look) -> None:
    """Nodes whose kata-deploy was not replaced get their label back; a new pod sets it itself, at its end."""
    namespace = session.helm.namespace
    for pod in session.kube.list("pods", namespace=namespace, selector="name=kata-deploy"):
        meta, node = pod["metadata"], rollout.node_of(pod)
        stays = str(meta.get("uid")) in look.live.deployers and not meta.get("deletionTimestamp")
        if stays and node in look.labelled:
            session.kube.label("nodes", node, {rollout.LABEL: "true"})


def _labels_back(session: Session, _wanted: Wanted, look: Look) -> list[str]:
    """nestvirt's own label, on and off, wherever it is not as it was."""
    before = {name_of(node): _label(node, CAPABLE) for node in look.everywhere}
    for node in session.kube.list("nodes"):
        name = name_of(node)
        if name in before and _label(node, CAPABLE) != before[name]:
            session.kube.label("nodes", name, {CAPABLE: before[name]})
    return []
