"""Why a pod does not run: one cause, with what was seen and one thing to do. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from nestvirt.kata.api import Object, at
from nestvirt.kata.causes import LOGS, Cause, cause_of
from nestvirt.kata.pods import Outcome
from nestvirt.printable import printable

_FIRST = ("FailedScheduling", "FailedCreatePodSandBox", "FailedCreate", "Failed", "FailedMount", "BackOff")
"""Reasons of events, the one that tells most first."""
_TEMPLATE = re.compile(r"rpc error: code = \w+ desc = ")
_WAITING = re.compile(r"(?:Err|Image|Create|Run|Crash|Invalid|Config)\w+")
_LOG_LINES = 5

SCHEDULING = (
    (
        r"[Ii]nsufficient (memory|cpu|ephemeral-storage|pods)|[Tt]oo many pods",
        "the node has no room for the pod: a RuntimeClass adds its overhead to what the pod asks for",
        "free room on the node, or see what it has: kubectl describe node NODE",
    ),
    (
        r"didn't match (?:Pod's )?node (?:affinity|selector)|didn't satisfy plugin\(s\) \[NodeAffinity\]",
        "the RuntimeClass selects only nodes with a label that this node does not have",
        "see why kata-deploy has not labelled the node: kubectl get nodes -L katacontainers.io/kata-runtime",
    ),
    (
        r"untolerated taint|had taints? ",
        "a taint keeps the pod off the node",
        "see the taint: kubectl describe node NODE",
    ),
)


@dataclass(frozen=True)
class Trouble:
    """Why a pod does not run.

    Attributes:
        name: of the cause, as in causes.ROWS, or what this module itself concludes.
        evidence: the cause in words, and what was seen.
        cure: the one thing to do.
    """

    name: str
    evidence: str
    cure: str


def of_outcome(outcome: Outcome, *, node_ready: bool | None = True) -> Trouble:
    """Why a task did not succeed.

    Args:
        node_ready: what its node says of itself; None: unknown.
    """
    if outcome.phase == "Refused":
        return _known(outcome.trouble, "the API server refused the pod")
    if outcome.phase == "Gone":
        return Trouble("gone", "somebody deleted the pod before it had ended", "run it again, and let it be")
    found = of_pod(outcome.pod or {}, outcome.events, outcome.log)
    if found is not None and found.name != "silent":
        return found
    if node_ready is not True:
        return Trouble(
            "node-not-ready",
            "the pod was given to the node, whose kubelet does nothing: the node is not ready",
            "see what it says of itself: kubectl describe node NODE",
        )
    if outcome.phase == "Succeeded" and outcome.trouble:
        return Trouble("no-log", f"its log cannot be read: {outcome.trouble}", _REACH)
    return found or Trouble("silent", "it did not end in time, and nothing says why", _SEE)


_SEE = f"read what the node's runtime says: {LOGS} --node NODE; or give it longer with --timeout"
_REACH = "let the API server reach port 10250 of the node"


def of_pod(pod: Object, events: Sequence[Object] = (), log: bytes = b"") -> Trouble | None:
    """Why a pod hangs or has failed; None where nothing is the matter with it.

    Args:
        pod: as the API has it.
        events: about it.
        log: what its container wrote.
    """
    if at(pod, "status", "phase") == "Succeeded":
        return None
    unplaced = _unplaced(pod, events)
    if unplaced is not None:
        return unplaced
    if all(at(status, "ready") is True for status in _statuses(pod)) and _statuses(pod):
        return None
    return _by_events(events) or _by_state(pod, log) or _silent(pod)


def _unplaced(pod: Object, events: Sequence[Object]) -> Trouble | None:
    """A pod without a node: the scheduler has said why."""
    if at(pod, "spec", "nodeName"):
        return None
    conditions = at(pod, "status", "conditions")
    for condition in conditions if isinstance(conditions, list) else ():
        if at(condition, "type") == "PodScheduled" and at(condition, "status") == "False":
            return _scheduling(str(at(condition, "message")))
    said = [text for reason, text in _told(events) if reason == "FailedScheduling"]
    return _scheduling(said[0]) if said else None


def _scheduling(text: str) -> Trouble:
    for pattern, words, cure in SCHEDULING:
        if re.search(pattern, text):
            return Trouble("scheduling", f"{words}: {printable(text, 400)}", cure)
    return Trouble("scheduling", f"the scheduler does not place the pod: {printable(text, 400)}", _DESCRIBE)


_DESCRIBE = "see the node's taints, labels and room: kubectl describe node NODE"


def _by_events(events: Sequence[Object]) -> Trouble | None:
    """The events' own cause; of several that are known, that of the reason that tells most."""
    told = sorted(_told(events), key=lambda e: _FIRST.index(e[0]) if e[0] in _FIRST else len(_FIRST))
    for reason, text in told:
        cause = cause_of(f"{reason} {text}")
        if cause is not None:
            same = [t for r, t in told if cause_of(f"{r} {t}") == cause]
            return _trouble(cause, max(same, key=len))
    sandbox = [text for reason, text in told if reason in _FIRST[1:3]]
    return _known(sandbox[0], "the node could not start the pod") if sandbox else None


def _by_state(pod: Object, log: bytes) -> Trouble | None:
    for status in _statuses(pod):
        waiting, ended = at(status, "state", "waiting"), _ended(status)
        reason = str(at(waiting, "reason"))
        crashed = reason == "CrashLoopBackOff"
        if waiting and _WAITING.fullmatch(reason) and not crashed:
            text = f"{reason}: {at(waiting, 'message') or ''}"
            return _known(text, "the container does not start")
        if ended or crashed:
            return _failed(ended or {}, log)
    reason = at(pod, "status", "reason")
    if reason and at(pod, "status", "phase") == "Failed":
        return _known(f"{reason}: {at(pod, 'status', 'message') or ''}", "the node ended the pod")
    return None


def _failed(ended: Object, log: bytes) -> Trouble:
    code, reason = at(ended, "exitCode") or "unknown", str(at(ended, "reason") or "")
    lines = [line for line in log.decode(errors="replace").split("\n") if line.strip()]
    telling = [line for line in lines if re.search(r"error|denied|fail|cannot", line, re.IGNORECASE)]
    text = printable("; ".join((telling or lines)[-_LOG_LINES:]), 600)
    words = f"{reason} {at(ended, 'message') or ''} {text}".strip()
    cause = cause_of(words)
    if cause is not None:
        return _trouble(cause, text or words)
    return Trouble("exited", f"its program ended with exit code {code}: {text or words or 'no word'}", _LOG)


_LOG = f"read its whole log: {LOGS}"


def _silent(pod: Object) -> Trouble:
    reasons = [str(at(s, "state", "waiting", "reason") or "") for s in _statuses(pod)]
    shown = next((reason for reason in reasons if reason), "no container yet")
    return Trouble("silent", f"it did not start in time ({printable(shown, 60)}), and nothing says why", _SEE)


def _known(text: str, otherwise: str) -> Trouble:
    cause = cause_of(text)
    return _trouble(cause, text) if cause else Trouble("other", f"{otherwise}: {_short(text)}", _SEE)


def _trouble(cause: Cause, text: str) -> Trouble:
    return Trouble(cause.name, f"{cause.words}: {_short(text)}", cause.cure)


def _short(text: str) -> str:
    return printable(_TEMPLATE.sub("", text), 500)


def _told(events: Sequence[Object]) -> list[tuple[str, str]]:
    """(reason, message) of the events, the latest first."""
    ordered = sorted(
        events, key=lambda e: str(at(e, "lastTimestamp") or at(e, "eventTime") or ""), reverse=True
    )
    return [(str(at(e, "reason") or ""), str(at(e, "message") or "")) for e in ordered]


def _ended(status: Object) -> Object | None:
    for state in ("state", "lastState"):
        ended = at(status, state, "terminated")
        if isinstance(ended, dict) and at(ended, "exitCode") != 0:
            return ended
    return None


def _statuses(pod: Object) -> list[Object]:
    found = at(pod, "status", "containerStatuses")
    return [status for status in found if isinstance(status, dict)] if isinstance(found, list) else []
