"""What Helm says, read; and a scripted Helm where the real one would have to be broken first."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from nestvirt.errors import (
    AccessDenied,
    Busy,
    ChangeRejected,
    ConnectionFailed,
    Error,
    MissingExtra,
    SettingsError,
)
from nestvirt.kata import helmwords
from nestvirt.kata.helm import Helm, Revision, Source, fetched, objects, revisions
from nestvirt.kata.kube import Kube

HISTORY = [
    {
        "revision": 2,
        "updated": "now",
        "status": "deployed",
        "chart": "kata-deploy-3.25.0",
        "app_version": "x",
    },
    {"revision": 1, "updated": "then", "status": "superseded", "chart": "kata-deploy-v3.24.0"},
]


def scripted(folder: Path, text: str) -> str:
    """A program that does that instead of Helm."""
    path = folder / "helm"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def with_helm(folder: Path, text: str) -> Helm:
    return Helm(Kube(context="lab"), "kata-deploy", "kube-system", 3, scripted(folder, text), timeout=5)


def test_a_history_is_read_oldest_first() -> None:
    read = revisions(json.dumps(HISTORY).encode())
    assert read == [
        Revision(1, "superseded", "3.24.0", "then"),
        Revision(2, "deployed", "3.25.0", "now"),
    ]


@pytest.mark.parametrize("answer", [b"", b"{", b"[" * 9999, b'[{"revision": "1"}]', b'[["x"]]'])
def test_what_is_no_history_is_refused(answer: bytes) -> None:
    with pytest.raises(ChangeRejected):
        revisions(answer)


CLUSTER = [
    (
        "Error: UPGRADE FAILED: another operation (install/upgrade/rollback) is in progress",
        Busy,
        "--force",
    ),
    (
        'Error: Unable to continue with install: RuntimeClass "kata-qemu" in namespace "" exists and cannot '
        "be imported into the current release: invalid ownership metadata",
        ChangeRejected,
        "--force",
    ),
    (
        "Error: UPGRADE FAILED: conflict occurred while applying object: Apply failed with 1 conflict: "
        'conflict with "kubectl-edit"',
        ChangeRejected,
        "--force",
    ),
    (
        "Error: failed post-install: 1 error occurred: job failed: BackoffLimitExceeded hooks",
        ChangeRejected,
        "job",
    ),
    (
        'Error: Kubernetes cluster unreachable: Get "https://127.0.0.1:1/version": dial tcp '
        "127.0.0.1:1: connect: connection refused",
        ConnectionFailed,
        "readyz",
    ),
    ("Error: UPGRADE FAILED: context deadline exceeded", ConnectionFailed, "readyz"),
    (
        "Error: resource DaemonSet/kube-system/kata-deploy not ready. status: InProgress, message: 0/1",
        ConnectionFailed,
        "readyz",
    ),
    ("Error: INSTALLATION FAILED: timed out waiting for the condition", ConnectionFailed, "readyz"),
    (
        'Error: query: failed to query with labels: secrets is forbidden: User "u" cannot list resource '
        '"secrets" in API group "" in the namespace "kube-system" (Forbidden)',
        AccessDenied,
        "kubectl",
    ),
    ('Error: Kubernetes cluster unreachable: context "nope" does not exist', SettingsError, "get-contexts"),
    ("Error: something that nobody foresaw", ChangeRejected, "helm history"),
    ("", ChangeRejected, "helm history"),
]


@pytest.mark.parametrize(("said", "kind", "cure"), CLUSTER, ids=[row[0][7:50] for row in CLUSTER])
def test_each_failure_of_the_cluster_has_its_cure(said: str, kind: type[Error], cure: str) -> None:
    error = helmwords.cluster_error(said.encode(), place="lab")
    assert type(error) is kind
    assert cure in error.cure
    assert error.evidence


REGISTRY = [
    (
        "Error: failed to do request: Head: http: server gave HTTP response to HTTPS client",
        SettingsError,
        "--plain-http",
    ),
    ("Error: tls: failed to verify certificate: x509: unknown authority", ConnectionFailed, "CA"),
    ("Error: unexpected status from HEAD request: 401 Unauthorized", AccessDenied, "helm registry login"),
    ("Error: dial tcp 127.0.0.1:1: connect: connection refused", ConnectionFailed, "--chart"),
    ("Error: failed to perform Fetch: lab/kata-deploy:9.9.9: not found", SettingsError, "version"),
    ("Error: the registry has a bad day", ConnectionFailed, "helm pull"),
]


@pytest.mark.parametrize(("said", "kind", "cure"), REGISTRY, ids=[row[0][7:40] for row in REGISTRY])
def test_each_failure_of_a_registry_has_its_cure(said: str, kind: type[Error], cure: str) -> None:
    error = helmwords.registry_error(said.encode(), chart="oci://reg/kata-deploy", version="9.9.9")
    assert type(error) is kind
    assert cure in error.cure


def test_helms_own_log_is_not_its_word() -> None:
    said = (
        b"WARNING: Kubernetes configuration file is group-readable\nlevel=WARN msg=x\nError: a\nb\x1b[31m\n"
    )
    assert helmwords.sentence(said) == "a b [31m"


@pytest.mark.parametrize(("said", "major"), [("v3.17.2", 3), ("v4.3.1", 4), ("v4.0.0-rc.1+g1", 4)])
def test_both_majors_are_known(tmp_path: Path, said: str, major: int) -> None:
    program = scripted(tmp_path, f"echo {said}")
    assert Helm.found(Kube(), "r", "n", program=program).major == major


@pytest.mark.parametrize("text", ["echo v2.17.0", "exit 1", "echo nonsense"])
def test_another_helm_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(MissingExtra):
        Helm.found(Kube(), "r", "n", program=scripted(tmp_path, text))


def test_no_helm_at_all(tmp_path: Path) -> None:
    with pytest.raises(MissingExtra, match="no program"):
        Helm.found(Kube(), "r", "n", program=str(tmp_path / "helm"))


def test_a_release_that_is_not_there(tmp_path: Path) -> None:
    there = with_helm(tmp_path, "echo 'Error: release: not found' >&2; exit 1")
    assert there.history() == []
    assert there.manifest() == ""
    assert there.values() == {}


def test_the_cluster_and_the_values_reach_helm(tmp_path: Path) -> None:
    """The context as an option; the values by standard input, and not among the words."""
    there = with_helm(tmp_path, f'echo "$@" > {tmp_path}/words; cat > {tmp_path}/values')
    there.upgrade(Path("chart.tgz"), "secret: 1\n", force=True)
    words = (tmp_path / "words").read_text()
    assert "--kube-context lab" in words
    assert "--take-ownership" in words
    assert "--force-conflicts" not in words  # Helm 3 knows none
    assert "secret" not in words
    assert (tmp_path / "values").read_text() == "secret: 1\n"


def test_a_helm_that_is_given_up_may_write_that_down(tmp_path: Path) -> None:
    """SIGTERM, and not at once SIGKILL: it would leave the release pending."""
    text = f"trap 'echo down > {tmp_path}/told; exit 1' TERM; sleep 60 & wait"
    there = Helm(Kube(), "r", "n", 3, scripted(tmp_path, text), timeout=0.3)
    with pytest.raises(ConnectionFailed, match="did not end"):
        there.rollback(1)
    assert (tmp_path / "told").read_text() == "down\n"


def test_reading_is_patient_only_where_the_cluster_is(tmp_path: Path) -> None:
    """The second attempt is answered."""
    text = f"[ -e {tmp_path}/again ] && echo '[]' && exit; touch {tmp_path}/again\n"
    text += "echo 'dial tcp: connection refused' >&2; exit 1"
    impatient = with_helm(tmp_path, text)
    with pytest.raises(ConnectionFailed):
        impatient.history()
    (tmp_path / "again").unlink()
    patient = Helm(Kube().patient(30), "r", "n", 3, impatient.program)
    assert patient.history() == []
    (tmp_path / "again").unlink()
    patient.rollback(1)
    (tmp_path / "again").unlink()
    with pytest.raises(ConnectionFailed):
        impatient.rollback(1)


@pytest.mark.parametrize(
    ("major", "more"), [(3, ["--take-ownership"]), (4, ["--take-ownership", "--force-conflicts"])]
)
def test_what_is_rendered_is_what_force_would_make(tmp_path: Path, major: int, more: list[str]) -> None:
    """Else Helm refuses in the dry run what the upgrade would take over."""
    program = scripted(tmp_path, f"""echo "$@" >> {tmp_path}/words; echo '{{"manifest": ""}}'""")
    there = Helm(Kube(), "r", "n", major, program)
    assert there.rendered(Path("c"), "", force=True) == there.rendered(Path("c"), "") == ""
    forced, plain = (line.split() for line in (tmp_path / "words").read_text().splitlines())
    assert [word for word in forced if word not in plain] == more


def chart(folder: Path, name: str = "kata-deploy", version: str = "3.25.0") -> str:
    """A Helm that knows one chart."""
    return scripted(folder, f"printf 'name: {name}\\nversion: {version}\\n'")


def test_a_chart_of_another_version_is_refused(tmp_path: Path) -> None:
    program = chart(tmp_path, version="4.1.0")
    with pytest.raises(SettingsError) as raised, fetched(Source(str(tmp_path), "3.25.0"), program=program):
        pass
    assert "4.1.0" in raised.value.evidence


def test_another_chart_is_refused(tmp_path: Path) -> None:
    program = chart(tmp_path, name="nginx")
    with pytest.raises(SettingsError), fetched(Source(str(tmp_path), "3.25.0"), program=program):
        pass


def test_a_chart_that_is_not_there(tmp_path: Path) -> None:
    source = Source(str(tmp_path / "none.tgz"), "3.25.0")
    with pytest.raises(SettingsError, match="there is no chart"), fetched(source, program=chart(tmp_path)):
        pass


def test_hooks_are_no_objects_of_the_release() -> None:
    hook = {"kind": "Job", "metadata": {"name": "a", "annotations": {"helm.sh/hook": "post-delete"}}}
    kept = {"kind": "DaemonSet", "metadata": {"name": "b"}}
    assert objects("\n---\n".join(map(json.dumps, (hook, kept, "text", None)))) == [kept]


def test_a_manifest_that_is_no_yaml() -> None:
    with pytest.raises(ChangeRejected):
        objects("a: [")
