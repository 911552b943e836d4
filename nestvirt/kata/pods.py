"""Short pods on nodes: one task each, all at once, and nothing of them is left behind.

A pod is bound to its node by affinity and not by name, so that the scheduler has its say: what it cannot
place it explains. It tolerates every taint, for it has to reach every node.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime

from nestvirt.errors import Error, Interrupted
from nestvirt.kata import answers
from nestvirt.kata.api import Object, Query, at, name_of
from nestvirt.kata.causes import LASTING, cause_of
from nestvirt.kata.kube import LOG_LIMIT, Kube
from nestvirt.kata.logs import AT_ONCE
from nestvirt.kata.task import CONTAINER, FOLDER, GRACE, LIFETIME, OURS, RUN, TASK, Setting, Task

__all__ = ["FOLDER", "Outcome", "Task", "Tell", "run"]

Tell = Callable[[str, str], None]
"""Called with a step and its detail, before the step is taken."""

CLEARING = 60.0
"""Seconds within which deleted pods have to be gone, and an API server that restarts has to be back."""
SETTLE = 2.0
"""Seconds without a change after which pods that are stuck are given up."""
LAG = 35.0
"""Seconds for which the scheduler may not yet know a node, or a label of it: after the API server was away,
it waits up to 30 s before it reads on (client-go's reflector backs off that far)."""
PARALLEL = 4

_STUCK = {"ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RunContainerError"}
_STUCK |= {"CreateContainerError", "CreateContainerConfigError", "CrashLoopBackOff"}
_NO_SANDBOX = ("FailedCreatePodSandBox", "FailedMount")
_NO_NODE = re.compile(r"no nodes available|0/(\d+) nodes are available: \1 node\(s\) didn't (match|satisfy)")
"""What the scheduler says of a pod for which it sees no node: there is none such, or it looks at old news."""


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes:
        phase: Succeeded, Failed, Pending (it did not end in time), Gone (somebody deleted it), or Refused
            (the API server did not admit the pod).
        log: what it wrote; foreign, and bounded.
        pod: as it was last seen.
        events: the warnings about it.
        trouble: why it was refused, or why there is no log; the API server's words.
        remains: how to delete what could not be deleted, as a command; empty where all is gone.
    """

    task: Task
    phase: str
    exit_code: int | None = None
    log: bytes = b""
    pod: Object | None = None
    events: tuple[Object, ...] = ()
    trouble: str = ""
    remains: str = ""


class _Run:
    """The pods of one run."""

    def __init__(
        self, kube: Kube, tasks: Sequence[Task], namespace: str, timeout: float, tell: Tell, limit: int
    ) -> None:
        self.kube, self.tasks, self.namespace = kube, tasks, namespace
        self.limit = limit
        self.timeout, self.tell = timeout, tell
        self.setting = Setting(secrets.token_hex(4), namespace, round(timeout + 2 * CLEARING))
        self.names = [self.setting.pod_name(i, task) for i, task in enumerate(tasks)]
        self.pods: dict[str, Object] = {}
        self.events: dict[str, dict[str, Object]] = {}
        self.refused: dict[str, str] = {}
        self.gone: set[str] = set()

    @property
    def selector(self) -> str:
        return f"{RUN}={self.setting.run}"

    # --- starting

    def create(self) -> None:
        self.tell("starting", f"{len(self.tasks)} short pods in the namespace {self.namespace}")
        shared = {self.setting.files_name(task.files): task.files for task in self.tasks if task.files}
        if shared:
            self.kube.create(*(self.setting.config_map(files) for files in shared.values()))
        manifests = [self.setting.pod(i, task) for i, task in enumerate(self.tasks)]
        parts = [manifests[i : i + AT_ONCE] for i in range(0, len(manifests), AT_ONCE)]
        with ThreadPoolExecutor(PARALLEL) as pool:
            for refused in pool.map(self.kube.create_each, parts):
                self.refused.update(refused)
        for words in self.refused.values():
            if "violates PodSecurity" in words:
                raise answers.refusal(words, self.kube.words())

    # --- following

    def follow(self) -> None:
        """Until all have ended, or those that have not are stuck, or time is up."""
        queries = [
            Query("pods", self.namespace, self.selector),
            Query("events", self.namespace, fields="involvedObject.kind=Pod,type=Warning"),
        ]
        waiting = {name for name in self.names if name not in self.refused}
        if not waiting:
            return
        names = frozenset(waiting)
        self.tell("waiting for", f"{len(waiting)} pods")
        last = time.monotonic()
        with closing(self.kube.watches(queries, timeout=self.timeout, quiet=SETTLE)) as changes:
            for kind, change, found in changes:
                about = name_of(found) if kind == "pods" and found else ""
                if kind == "events" and found:
                    about = str(at(found, "involvedObject", "name"))
                if about in names:  # of a namespace's other pods there are events, too
                    last = time.monotonic()
                    if kind == "pods":
                        self._seen(about, change, found, waiting)
                    else:
                        self.events.setdefault(about, {})[name_of(found)] = found
                settled = time.monotonic() - last
                if not waiting or all(settled >= self._patience(name) for name in waiting):
                    break

    def _seen(self, name: str, change: str, pod: Object, waiting: set[str]) -> None:
        before = len(waiting)
        self.pods[name] = pod
        if change == "DELETED":
            self.gone.add(name)
        if change == "DELETED" or at(pod, "status", "phase") in ("Succeeded", "Failed"):
            waiting.discard(name)
        if 0 < len(waiting) < before:
            self.tell("waiting for", f"{len(waiting)} of {len(self.names)} pods")

    def _patience(self, name: str) -> float:
        """Seconds without a change after which a pod is given up."""
        pod = self.pods.get(name, {})
        conditions = at(pod, "status", "conditions")
        for condition in conditions if isinstance(conditions, list) else ():
            if at(condition, "reason") == "Unschedulable" and at(condition, "status") == "False":
                return LAG if _NO_NODE.match(str(at(condition, "message"))) else SETTLE
        return SETTLE if self._stuck(name, pod) else float("inf")

    def _stuck(self, name: str, pod: Object) -> bool:
        """Whether a pod will not start by waiting on: it was refused something, or failed twice."""
        if any(at(state, "waiting", "reason") in _STUCK for state in _states(pod)):
            return True
        failed = [e for e in self.events.get(name, {}).values() if at(e, "reason") in _NO_SANDBOX]
        lasting = [cause_of(str(at(event, "message"))) in LASTING for event in failed]
        return any(lasting) or sum(_count(event) for event in failed) > 1

    # --- reading

    def logs(self) -> tuple[dict[str, bytes], dict[str, str]]:
        """The logs of those that ran, and why there is none of one."""
        ran = [i for i, name in enumerate(self.names) if name in self.pods and name not in self.gone]
        ran = [i for i in ran if at(self.pods[self.names[i]], "status", "phase") != "Pending"]
        found: dict[str, bytes] = {}
        with ThreadPoolExecutor(PARALLEL) as pool:
            for part in pool.map(self._logs_of, [ran[i : i + AT_ONCE] for i in range(0, len(ran), AT_ONCE)]):
                found.update(part)
        trouble: dict[str, str] = {}
        silent = [self.names[i] for i in ran if self.names[i] not in found]
        for name in silent[:PARALLEL]:  # the reason is the same for many; each may take its time
            try:
                found[name] = self.kube.log(
                    name, namespace=self.namespace, container=CONTAINER, limit=self.limit
                )
            except Error as error:
                trouble |= dict.fromkeys(silent, f"{error.message}: {error.evidence}")
        return found, trouble

    def _logs_of(self, part: Sequence[int]) -> dict[str, bytes]:
        selector = f"{self.selector},{TASK} in ({','.join(map(str, part))})"
        names = [self.names[i] for i in part]
        return self.kube.logs(
            selector, namespace=self.namespace, container=CONTAINER, pods=names, limit=self.limit
        )

    def outcomes(self, logs: Mapping[str, bytes], trouble: Mapping[str, str], remains: str) -> list[Outcome]:
        return [
            Outcome(
                task,
                self._phase(name),
                _exit_code(self.pods.get(name, {})),
                logs.get(name, b""),
                self.pods.get(name),
                tuple(self.events.get(name, {}).values()),
                self.refused.get(name) or trouble.get(name, ""),
                remains,
            )
            for name, task in zip(self.names, self.tasks, strict=True)
        ]

    def _phase(self, name: str) -> str:
        if name in self.refused:
            return "Refused"
        phase = str(at(self.pods.get(name, {}), "status", "phase"))
        if phase in ("Succeeded", "Failed"):
            return phase
        return "Gone" if name in self.gone else "Pending"

    # --- cleaning

    def clean(self) -> str:
        """Delete all of it; return the command for what is left, or nothing."""
        self.tell("deleting", "the short pods")
        kube = self.kube.patient(CLEARING)
        command = f"kubectl delete pods,configmaps --namespace {self.namespace} --selector {self.selector}"
        command = answers.of_cluster(command, kube.words())
        try:
            for _ in range(2):  # a request that was under way when we were stopped may come late
                self._delete(kube, self.selector)
                if not kube.wait_gone(
                    "pods", namespace=self.namespace, selector=self.selector, timeout=CLEARING
                ):
                    self._clean_older(kube)
                    return ""
        except KeyboardInterrupt:
            self._delete(kube, self.selector)
            raise
        except Error as error:
            self.tell("not deleted:", f"{error.message}; do it: {command}")
        return command

    def _delete(self, kube: Kube, selector: str) -> None:
        kube.delete("pods", namespace=self.namespace, selector=selector, grace=GRACE)
        kube.delete("configmaps", namespace=self.namespace, selector=selector)

    def _clean_older(self, kube: Kube) -> None:
        """Delete what runs that were killed have left, once its time has passed by the cluster's clock."""
        now = max((_created(pod) for pod in self.pods.values()), default=0.0)
        left = [
            found
            for kind in ("pods", "configmaps")
            for found in kube.list(kind, namespace=self.namespace, selector=OURS)
        ]
        past = {str(at(o, "metadata", "labels", RUN)) for o in left if _expires(o) < now}
        past = {run for run in past if re.fullmatch(r"[0-9a-f]{8}", run)}
        if past:
            self._delete(kube, f"{RUN} in ({','.join(sorted(past))})")


def run(
    kube: Kube,
    tasks: Sequence[Task],
    *,
    namespace: str,
    timeout: float,
    tell: Tell,
    log_limit: int = LOG_LIMIT,
) -> list[Outcome]:
    """Run all tasks at once; return what became of each, in their order. Their pods are always deleted.

    Args:
        timeout: seconds within which they have to end.
        log_limit: bytes that are read of each log.

    Raises:
        AccessDenied: the cluster, or the namespace's PodSecurity level, does not admit such pods.
        ConnectionFailed: nobody answers.
    """
    if not tasks:
        return []
    work = _Run(kube, tasks, namespace, timeout, tell, log_limit)
    try:
        work.create()
        work.follow()
        logs, trouble = work.logs()
    except BaseException as failure:
        remains = work.clean()
        if remains and isinstance(failure, Error):
            failure.cure = f"{failure.cure}; and delete what is left: {remains}".lstrip("; ")
        elif remains and isinstance(failure, KeyboardInterrupt):
            raise Interrupted("stopped, and pods are left", cure=remains) from failure
        raise
    return work.outcomes(logs, trouble, work.clean())


def _states(pod: Object) -> list[Object]:
    statuses = at(pod, "status", "containerStatuses")
    states = [at(status, "state") for status in statuses] if isinstance(statuses, list) else []
    return [state for state in states if isinstance(state, dict)]


def _exit_code(pod: Object) -> int | None:
    codes = [at(state, "terminated", "exitCode") for state in _states(pod)]
    return next((code for code in codes if isinstance(code, int)), None)


def _count(event: Object) -> int:
    counts = (at(event, "count"), at(event, "series", "count"))
    return max((n for n in counts if isinstance(n, int)), default=1)


def _created(found: Object) -> float:
    try:
        return datetime.fromisoformat(str(at(found, "metadata", "creationTimestamp"))).timestamp()
    except ValueError:
        return 0.0


def _expires(found: Object) -> float:
    lifetime = str(at(found, "metadata", "annotations", LIFETIME))
    return _created(found) + int(lifetime) if re.fullmatch(r"\d{1,6}", lifetime) else float("inf")
