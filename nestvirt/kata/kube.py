"""One cluster, asked through kubectl: it knows every way to log in, and nothing is cached here.

What is read and watched goes by ``kubectl get --raw``: the API's own JSON, without the discovery that
kubectl otherwise begins with. Data goes in by standard input. What comes back is foreign: bounded, and
parsed strictly.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from nestvirt.errors import ConnectionFailed, MissingExtra
from nestvirt.guest.channel import Completed
from nestvirt.guest.ssh import run_bounded
from nestvirt.kata import answers, logs, watching
from nestvirt.kata.answers import NotThere, Untrusted
from nestvirt.kata.api import Object, Objects, Query, as_list, items, name_of, nonsense, parsed
from nestvirt.kata.watching import LISTED, QUIET
from nestvirt.printable import printable

__all__ = ["Kube", "Object", "Objects", "Query"]

ANSWER_LIMIT = 128 << 20
"""Bytes of one answer: some thousand nodes or pods."""
LOG_LIMIT = 256 << 10
"""Bytes of one container's log, unless told otherwise."""
PAUSE = 1.0
"""Seconds before an API server that did not answer is asked again."""


@dataclass
class Waiting:
    """How long one call is still made again, while nobody answers it.

    Attributes:
        patience: seconds from its first failure on; None for no second attempt.
    """

    patience: float | None
    until: float | None = None

    def pause(self, error: ConnectionFailed) -> None:
        """Wait a little before the next attempt; or raise the error, where there is to be none."""
        if self.until is None:
            self.until = time.monotonic() + (self.patience or 0.0)
        if isinstance(error, Untrusted) or time.monotonic() + PAUSE > self.until:
            raise error
        time.sleep(PAUSE)


@dataclass(frozen=True)
class Kube:
    """One cluster.

    Attributes:
        context: of the kubeconfig; None for its current one.
        kubeconfig: the file; None for the user's own.
        program: kubectl.
        timeout: seconds for one request.
        patience: seconds for which each call is made again, from the first time that the API server did not
            answer it; None: it is not.
    """

    context: str | None = None
    kubeconfig: str | None = None
    program: str = "kubectl"
    timeout: float = 60.0
    patience: float | None = None

    def patient(self, timeout: float) -> Kube:
        """The same cluster; a call is made again for ``timeout`` seconds while its API server restarts.

        Each call has those seconds for itself, and they begin when it is not answered: an API server may go
        away at any time of a long wait.
        """
        return replace(self, patience=timeout)

    @property
    def place(self) -> str:
        """Which cluster this is, for people."""
        return self.context or "the current context"

    def words(self) -> list[str]:
        """The options that name this cluster to kubectl."""
        named = {"--context": self.context, "--kubeconfig": self.kubeconfig}
        return [word for option, value in named.items() if value is not None for word in (option, value)]

    def helm_words(self) -> list[str]:
        """The options that name this cluster to helm."""
        return ["--kube-context" if word == "--context" else word for word in self.words()]

    # --- reading

    def raw(self, path: str) -> Any:
        """What the API has at a path, as JSON.

        Raises:
            NotThere: nothing is there.
            ConnectionFailed, AccessDenied: no answer, or no JSON.
        """
        return parsed(self._run("get", "--raw", path).stdout, self.place)

    def list(
        self, kind: str, *, namespace: str | None = None, selector: str = "", fields: str = ""
    ) -> Objects:
        """All objects of a kind.

        Args:
            kind: a key of KINDS.
            namespace: where; "*" for all. None for kinds outside namespaces.
            selector: of labels.
            fields: of fields, such as ``involvedObject.name=web-1``.
        """
        return items(self.raw(Query(kind, namespace, selector, fields).path()), self.place)

    def get(self, kind: str, name: str, *, namespace: str | None = None) -> Object | None:
        """One object; None where it is not there."""
        try:
            found = self.raw(Query(kind, namespace).path_of(name))
        except NotThere as error:
            if "could not find the requested resource" in error.evidence:
                raise
            return None
        return found if isinstance(found, dict) else None

    def version(self) -> tuple[int, int]:
        """The API server's version: (1, 30)."""
        told = self.raw("/version")
        try:
            major, minor = (int("".join(filter(str.isdigit, told[part]))) for part in ("major", "minor"))
        except (TypeError, KeyError, ValueError) as error:
            raise nonsense(self.place, f"/version says {str(told)[:100]}") from error
        return major, minor

    def watch(
        self,
        kind: str,
        *,
        namespace: str | None = None,
        selector: str = "",
        fields: str = "",
        timeout: float,
    ) -> Iterator[tuple[str, Object]]:
        """What is there as ADDED, then each change (ADDED, MODIFIED, DELETED); ends at the timeout.

        What changed while the API server was away is told afterwards, so nothing is missed.
        """
        with closing(self.watches([Query(kind, namespace, selector, fields)], timeout=timeout)) as changes:
            for _, change, found in changes:
                if change not in (LISTED, QUIET):
                    yield change, found

    def watches(
        self, queries: Sequence[Query], *, timeout: float, quiet: float = 3600.0
    ) -> Generator[tuple[str, str, Object], None, None]:
        """The same of several kinds at once: (kind, change, object).

        LISTED, without an object, follows when all that is there of a kind has been told; QUIET, without
        kind and object, when nothing happened for ``quiet`` seconds.
        """
        return watching.watch(self, queries, timeout=timeout, quiet=quiet)

    # --- writing

    def create(self, *objects: Object) -> None:
        """Create all of them, by one kubectl.

        Raises:
            AccessDenied, ChangeRejected: the API server refused one of them.
        """
        words = ("create", "--validate=false", "-f", "-", "-o", "name")
        done = self._attempt(words, stdin=as_list(objects))
        said = answers.sentences(done.stderr)
        # A second attempt finds what the first one made before its answer got lost.
        if done.code and not (self.patience is not None and all("AlreadyExists" in line for line in said)):
            raise answers.read_error(done.stderr, place=self.place, words=self.words())

    def create_each(self, objects: Objects) -> dict[str, str]:
        """Create what the API server admits; return what it refused: name to its words.

        Raises:
            AccessDenied, ConnectionFailed: it admitted none, and not for something about that object alone.
        """
        names = [str(found["metadata"]["name"]) for found in objects]
        words = ("create", "--validate=false", "-f", "-", "-o", "name")
        done = self._attempt(words, stdin=as_list(objects))
        if done.code == 0:
            return {}
        made = {line.rpartition("/")[2] for line in done.stdout.decode(errors="replace").split()}
        refused = answers.refusals(done.stderr, [name for name in names if name not in made])
        again = {name for name, why in refused.items() if "already exists" in why}
        if len(refused) + len(made) < len(names):
            raise answers.read_error(done.stderr, place=self.place, words=self.words())
        return {name: why for name, why in refused.items() if name not in again}

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
        """Delete objects, by name or (a whole collection, by one request) by label; absent ones are fine.

        Args:
            wait: return when they are gone, or raise ConnectionFailed after ``timeout``.
            grace: seconds for a pod to end by itself; None for what the pod says.
        """
        names = tuple(names)
        query = Query(kind, namespace, selector)
        paths = [query.path_of(name, further={"gracePeriodSeconds": grace}) for name in names]
        if selector:
            paths.append(query.path({"gracePeriodSeconds": grace}))
        for path in paths:
            try:
                self._run("delete", "--raw", path)
            except NotThere:
                continue
        if wait:
            wanted = frozenset(names) or None
            left = self.wait_gone(kind, selector=selector, names=wanted, namespace=namespace)
            if left:
                raise ConnectionFailed(
                    f"{len(left)} {kind} are still there {self.timeout:.0f} s after they were deleted",
                    evidence=", ".join(sorted(left)[:5]),
                    cure=f"see what holds them: kubectl describe {kind} {min(left)}",
                )

    def wait_gone(
        self,
        kind: str,
        *,
        namespace: str | None = None,
        selector: str = "",
        names: frozenset[str] | None = None,
        timeout: float | None = None,
    ) -> set[str]:
        """Wait until no such object is left; return the names of those that still are at the timeout."""
        left: set[str] = set()
        listed = False
        query = Query(kind, namespace, selector)
        with closing(self.watches([query], timeout=timeout or self.timeout)) as changes:
            for _, change, found in changes:
                listed = listed or change == LISTED
                if change == "DELETED":
                    left.discard(name_of(found))
                elif change == "ADDED" and (names is None or name_of(found) in names):
                    left.add(name_of(found))
                if listed and not left:
                    break
        return left

    def label(self, kind: str, name: str, labels: Mapping[str, str | None]) -> None:
        """Set labels of an object; None removes one."""
        patch = json.dumps({"metadata": {"labels": dict(labels)}}).encode()
        self._run("patch", kind, name, "--type=merge", "--patch-file=/dev/stdin", "-o", "name", stdin=patch)

    # --- logs

    def log(
        self,
        pod: str,
        *,
        namespace: str,
        container: str | None = None,
        tail: int | None = None,
        limit: int = LOG_LIMIT,
        previous: bool = False,
    ) -> bytes:
        """What a container wrote, at most ``limit`` bytes of it.

        Args:
            tail: the last so many lines only.
            previous: of the container's run before this one.
        """
        path = Query("pods", namespace).path_of(
            pod,
            "log",
            {
                "container": container,
                "tailLines": tail,
                "limitBytes": limit,
                "previous": "true" if previous else None,
            },
        )
        return self._run("get", "--raw", path).stdout[:limit]

    def logs(
        self,
        selector: str,
        *,
        namespace: str,
        container: str,
        pods: Collection[str] | None = None,
        limit: int = LOG_LIMIT,
        tail: int = -1,
    ) -> dict[str, bytes]:
        """The logs of many pods, by one kubectl: pod name to what its container wrote.

        Args:
            pods: the names of those that the selector selects; None to ask for them.
        """
        if pods is None:
            pods = {name_of(pod) for pod in self.list("pods", namespace=namespace, selector=selector)}
        return logs.of_many(
            self, pods, selector, namespace=namespace, container=container, limit=limit, tail=tail
        )

    # --- kubectl itself

    def run(self, *words: str, stdin: bytes = b"", limit: int = ANSWER_LIMIT) -> bytes:
        """What another kubectl command says on stdout."""
        return self._run(*words, stdin=stdin, limit=limit).stdout

    def _run(self, *words: str, stdin: bytes = b"", limit: int = ANSWER_LIMIT) -> Completed:
        done = self._attempt(words, stdin=stdin, limit=limit)
        if done.code != 0:
            raise answers.read_error(done.stderr, place=self.place, words=self.words())
        return done

    def _attempt(self, words: Sequence[str], *, stdin: bytes, limit: int = ANSWER_LIMIT) -> Completed:
        """Run kubectl to its end; again while nobody answers and there is patience left."""
        waiting = Waiting(self.patience)
        while True:
            try:
                done = self._once(words, stdin, limit)
                error = (
                    answers.read_error(done.stderr, place=self.place, words=self.words())
                    if done.code
                    else None
                )
                if not isinstance(error, ConnectionFailed):
                    return done
                raise error
            except ConnectionFailed as error:
                waiting.pause(error)

    def _once(self, words: Sequence[str], stdin: bytes, limit: int) -> Completed:
        command = self.command(words, timeout=self.timeout)
        try:
            done = run_bounded(command, stdin, self.timeout + 5, limit=limit, env=self.environment())
        except (FileNotFoundError, PermissionError) as error:
            raise self.missing() from error
        except subprocess.TimeoutExpired as error:
            raise ConnectionFailed(
                f"the API server of {self.place} did not answer within {self.timeout:.0f} s",
                evidence=f"{self.program} {' '.join(words[:3])}",
                cure=answers.of_cluster("see whether this answers: kubectl get --raw /readyz", self.words()),
            ) from error
        if done.truncated:
            raise nonsense(self.place, f"its answer is longer than {limit} bytes")
        return done

    def command(self, words: Sequence[str], *, timeout: float) -> Sequence[str]:
        """The kubectl to run."""
        return [self.program, *self.words(), f"--request-timeout={timeout:.0f}s", *words]

    def environment(self) -> dict[str, str]:
        """Ours, without what lets a user's own preferences change kubectl's words."""
        return {**os.environ, "KUBECTL_KUBERC": "false", "LC_ALL": "C"}

    def missing(self) -> MissingExtra:
        """The error where there is no kubectl."""
        return MissingExtra(
            f"there is no program {printable(self.program, 100)} that this user may run",
            evidence="clusters are asked through kubectl",
            cure="install kubectl, of a version near the cluster's",
        )
