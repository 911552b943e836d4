"""Helm 3 and 4: kata-deploy's release, read strictly and changed one step at a time.

What is the same on both is used alone. ``--atomic`` (``--rollback-on-failure``) and ``--wait`` are not: they
end before kata-deploy has done its work on a node, and put back while its API server restarts. Values go in
by standard input, so that nothing of them is in a list of processes.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nestvirt.errors import ChangeRejected, ConnectionFailed, Error, MissingExtra, SettingsError
from nestvirt.guest.channel import Completed, clipped
from nestvirt.kata import helmwords
from nestvirt.kata.kube import Kube, Waiting
from nestvirt.printable import printable

CHART_NAME = "kata-deploy"
MAJORS = (3, 4)
ANSWER_LIMIT = 16 << 20
STOPPING = 60.0
"""Seconds that Helm gets to write down that it was stopped."""

DEPLOYED, FAILED, SUPERSEDED = "deployed", "failed", "superseded"
PENDING = ("pending-install", "pending-upgrade", "pending-rollback", "uninstalling")


@dataclass(frozen=True)
class Revision:
    """One revision of a release.

    Attributes:
        chart: the version of its chart, such as 3.25.0.
        since: when it came into that status, as Helm writes it.
    """

    number: int
    status: str
    chart: str
    since: str


@dataclass(frozen=True)
class Source:
    """Where the chart comes from.

    Attributes:
        ref: ``oci://…``, or the path of a packaged chart or of its folder.
        version: the one that is wanted; a file of another is refused.
        plain_http: ask the registry without TLS.
    """

    ref: str
    version: str
    plain_http: bool = False


@dataclass(frozen=True)
class Helm:
    """One release of one cluster.

    Attributes:
        major: Helm's own version, 3 or 4.
        timeout: seconds for one command.
    """

    kube: Kube
    release: str
    namespace: str
    major: int
    program: str = "helm"
    timeout: float = 300.0

    @classmethod
    def found(cls, kube: Kube, release: str, namespace: str, *, program: str = "helm") -> Helm:
        """The Helm of this machine.

        Raises:
            MissingExtra: there is none, or it is of a version that is not known.
        """
        done = _run([program, "version", "--template", "{{.Version}}"], b"", 30.0)
        said = done.stdout.decode(errors="replace").strip()
        version = re.match(r"v(\d+)\.", said)
        if done.code or version is None or int(version[1]) not in MAJORS:
            raise MissingExtra(
                "this Helm cannot be used",
                evidence=printable(said or helmwords.sentence(done.stderr), 200),
                cure="install Helm 3 or 4",
            )
        return cls(kube, release, namespace, int(version[1]), program)

    # --- reading

    def history(self) -> list[Revision]:
        """All revisions that Helm keeps, oldest first; none where there is no release.

        Raises:
            ConnectionFailed, AccessDenied, SettingsError: see Kube.
        """
        done = self._read("history", self.release, "--output", "json")
        return revisions(done.stdout) if done else []

    def manifest(self) -> str:
        """What the latest revision has rendered."""
        done = self._read("get", "manifest", self.release)
        return done.stdout.decode(errors="replace") if done else ""

    def values(self) -> dict[str, Any]:
        """The values that the latest revision was given."""
        done = self._read("get", "values", self.release, "--output", "json")
        read = _json(done.stdout) if done else {}
        return read if isinstance(read, dict) else {}

    def rendered(self, chart: Path, values: str, *, force: bool = False, pending: bool = False) -> str:
        """What an upgrade would make, as this cluster's API server sees it; nothing is changed.

        Args:
            force: as for the upgrade: without it, Helm refuses what the upgrade would take over.
            pending: the release is, so that Helm refuses even to try: it renders without the cluster then.
        """
        if pending:
            alone = ("template", self.release, str(chart), "--values", "-")
            return self._checked(self._attempt(*alone, stdin=values)).stdout.decode(errors="replace")
        words = ("--dry-run=server", "--output", "json")
        done = self._checked(self._attempt(*self._upgrade(chart, force), *words, stdin=values))
        read = _json(done.stdout)
        manifest = read.get("manifest") if isinstance(read, dict) else None
        if not isinstance(manifest, str):
            raise _nonsense("a dry run without a manifest")
        return manifest

    # --- changing

    def upgrade(self, chart: Path, values: str, *, force: bool = False) -> None:
        """Install the release, or upgrade it; returns when the API server has the objects.

        Args:
            values: YAML.
            force: take over objects that are not the release's, and fields that others have written.

        Raises:
            Busy: another Helm is at work on it.
            ChangeRejected: the chart or an object was refused.
        """
        self._checked(self._attempt(*self._upgrade(chart, force), stdin=values))

    def _upgrade(self, chart: Path, force: bool) -> list[str]:
        forced = ["--take-ownership", *(["--force-conflicts"] if self.major > 3 else [])] if force else []
        # Without --reset-values Helm 3 and 4 differ in what of the former values they keep.
        return ["upgrade", self.release, str(chart), "--install", "--reset-values", "--values", "-", *forced]

    def rollback(self, revision: int) -> None:
        """Go back to a revision; again while nobody answers, for as long as the cluster is patient."""
        self._checked(self._patiently("rollback", self.release, str(revision)))

    def uninstall(self) -> None:
        """Remove the release; its hooks are waited for. A release that is not there is fine."""
        words = ("--ignore-not-found", "--timeout", f"{self.timeout:.0f}s")
        self._checked(self._patiently("uninstall", self.release, *words, longer=30.0))

    def forget(self, revision: Revision) -> None:
        """Take back a revision that a killed Helm left pending; what it has made is found by the next one."""
        kind = "configmaps" if os.environ.get("HELM_DRIVER", "").startswith("configmap") else "secrets"
        name = f"sh.helm.release.v1.{self.release}.v{revision.number}"
        self.kube.delete(kind, names=[name], namespace=self.namespace)

    # --- the program

    def _read(self, *words: str) -> Completed | None:
        """An answer; None where there is no such release."""
        done = self._patiently(*words)
        if done.code and "release: not found" in done.stderr.decode(errors="replace"):
            return None
        return self._checked(done)

    def _patiently(self, *words: str, longer: float = 0.0) -> Completed:
        """Run a command to its end; again while nobody answers it and there is patience left."""
        waiting = Waiting(self.kube.patience)
        while True:
            try:
                done = self._attempt(*words, longer=longer)
                error = helmwords.cluster_error(done.stderr, place=self.kube.place) if done.code else None
                if not isinstance(error, ConnectionFailed):
                    return done
                raise error
            except ConnectionFailed as error:
                waiting.pause(error)

    def _attempt(self, *words: str, stdin: str = "", longer: float = 0.0) -> Completed:
        command = [self.program, *words, "--namespace", self.namespace, *self.kube.helm_words()]
        return _run(command, stdin.encode(), self.timeout + longer)

    def _checked(self, done: Completed) -> Completed:
        if done.code != 0:
            raise helmwords.cluster_error(done.stderr, place=self.kube.place)
        if done.truncated:
            raise _nonsense(f"more than {ANSWER_LIMIT >> 20} MiB")
        return done


@contextmanager
def fetched(source: Source, *, program: str = "helm") -> Iterator[Path]:
    """The chart as a file or folder here; it is pulled once, whatever is done with it then.

    Raises:
        SettingsError: there is no such chart, or it is another one, or of another version.
        ConnectionFailed, AccessDenied: the registry does not answer, or refused.
    """
    if not source.ref.startswith("oci://"):
        _verify(Path(source.ref), source, program)
        yield Path(source.ref)
        return
    with tempfile.TemporaryDirectory(prefix="nestvirt-chart-") as folder:
        words = ["pull", source.ref, "--version", source.version, "--destination", folder]
        done = _run([program, *words, *(["--plain-http"] if source.plain_http else [])], b"", 300.0)
        if done.code != 0:
            raise helmwords.registry_error(done.stderr, chart=source.ref, version=source.version)
        pulled = list(Path(folder).glob("*.tgz"))
        if len(pulled) != 1:
            raise _nonsense(f"a pull that leaves {len(pulled)} files")
        _verify(pulled[0], source, program)
        yield pulled[0]


def _verify(path: Path, source: Source, program: str) -> None:
    """Refuse what is not the chart that the configuration is written for: unknown values are ignored."""
    import yaml  # when it is used: it takes its time

    if not path.exists():
        raise SettingsError(
            f"there is no chart {printable(source.ref, 200)}",
            evidence="it is neither oci://… nor a file or folder here",
            cure="name the .tgz of helm pull, or a registry: --chart oci://HOST/PATH/kata-deploy",
        )
    done = _run([program, "show", "chart", str(path)], b"", 60.0)
    if done.code != 0:
        raise helmwords.file_error(done.stderr, path=source.ref)
    try:
        meta = yaml.safe_load(done.stdout)
    except yaml.YAMLError as error:
        raise _nonsense("a Chart.yaml that is no YAML") from error
    name, version = (str(meta.get(key)) if isinstance(meta, dict) else "" for key in ("name", "version"))
    if (name, version) != (CHART_NAME, source.version):
        raise SettingsError(
            f"the chart is not {CHART_NAME} {source.version}",
            evidence=f"{printable(source.ref, 200)} is {printable(name, 100)} {printable(version, 100)}",
            cure="set kataContainers.version to the chart's, or name the chart of that version",
        )


def revisions(answer: bytes) -> list[Revision]:
    """Read ``helm history --output json``."""
    read = _json(answer)
    found = []
    for item in read if isinstance(read, list) else []:
        fields = item if isinstance(item, dict) else {}
        number, status, chart = (fields.get(key) for key in ("revision", "status", "chart"))
        if not isinstance(number, int) or not isinstance(status, str) or not isinstance(chart, str):
            raise _nonsense("a history with a revision that is none")
        version = re.search(r"-v?(\d+\.\d+\.\d+.*)$", chart)
        since = printable(str(fields.get("updated", "")), 40)
        found.append(
            Revision(number, printable(status, 40), printable(version[1] if version else chart, 60), since)
        )
    return sorted(found, key=lambda revision: revision.number)


def objects(manifest: str) -> list[dict[str, Any]]:
    """The objects of a rendered manifest, without those of hooks.

    Raises:
        ChangeRejected: it is no YAML.
    """
    import yaml  # when it is used: it takes its time

    try:
        found = list(yaml.safe_load_all(manifest))
    except (yaml.YAMLError, RecursionError) as error:
        raise ChangeRejected(
            "the chart renders what is no YAML", evidence=str(error), cure="look: helm template"
        ) from error
    named = [o for o in found if isinstance(o, dict) and isinstance(o.get("metadata"), dict)]
    return [o for o in named if "helm.sh/hook" not in (o["metadata"].get("annotations") or {})]


def _run(command: Sequence[str], stdin: bytes, timeout: float) -> Completed:
    """Run Helm to its end. One that is stopped gets the time to write that down, not to stay pending."""
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        source.write(stdin)
        source.seek(0)
        environment = {**os.environ, "LC_ALL": "C", "HELM_DEBUG": "false", "NO_COLOR": "1"}
        try:
            process = subprocess.Popen(
                command, stdin=source, stdout=out, stderr=err, env=environment, start_new_session=True
            )
        except (FileNotFoundError, PermissionError) as error:
            raise MissingExtra(
                f"there is no program {printable(command[0], 100)} that this user may run",
                evidence="kata-deploy is a Helm chart",
                cure="install Helm 3 or 4",
            ) from error
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise ConnectionFailed(
                f"helm {command[1]} did not end within {timeout:.0f} s",
                evidence="it waits for the API server, or for a hook of the chart",
                cure="see: kubectl get pods --all-namespaces; then run it again",
            ) from error
        finally:
            _stop(process)
        out.seek(0)
        err.seek(0)
        return clipped(code, out.read(ANSWER_LIMIT + 1), err.read(1 << 16), limit=ANSWER_LIMIT)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOPPING)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _json(answer: bytes) -> Any:
    try:
        return json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise _nonsense(printable(answer[:200].decode(errors="replace"))) from error


def _nonsense(evidence: str) -> Error:
    return ChangeRejected(
        "Helm's answer cannot be read", evidence=evidence, cure="report this, with: helm version"
    )
