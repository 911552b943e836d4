# ruff: noqa: E501 - these are others' sentences
"""kubectl's words, as versions 1.28 to 1.37 say them, read as errors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestvirt.errors import AccessDenied, ChangeRejected, ConnectionFailed, Error, SettingsError
from nestvirt.kata.answers import NotThere, Untrusted, of_cluster, read_error, refusal, refusals

KLOG = (
    'E1129 07:42:28.648756   12880 memcache.go:265] "Unhandled Error" err="couldn\'t get current server API '
    'group list: Get \\"https://127.0.0.1:6443/api?timeout=32s\\": dial tcp 127.0.0.1:6443: connect: connection '
    'refused"\n'
)
FORBIDDEN = (
    'Error from server (Forbidden): pods is forbidden: User "dev" cannot list resource "pods" in API group "" in '
    'the namespace "kube-system"'
)
LEVEL = (
    'Error from server (Forbidden): error when creating "STDIN": pods "nestvirt-x" is forbidden: violates '
    'PodSecurity "baseline:latest": host namespaces (hostNetwork=true, hostPID=true), hostPath volumes (volume '
    '"host"), privileged (container "task" must not set securityContext.privileged=true)'
)
SAYINGS: list[tuple[str, type[Error], str, str]] = [
    (
        f"{KLOG}The connection to the server 127.0.0.1:6443 was refused - did you specify the right host or port?",
        ConnectionFailed,
        "does not answer",
        "readyz",
    ),
    (
        "Unable to connect to the server: net/http: TLS handshake timeout",
        ConnectionFailed,
        "does not answer",
        "",
    ),
    ("Unable to connect to the server: dial tcp: lookup api.example: no such host", ConnectionFailed, "", ""),
    ('error: Get "https://127.0.0.1:6443/api": EOF', ConnectionFailed, "does not answer", ""),
    ("Error from server: etcdserver: leader changed", ConnectionFailed, "does not answer", ""),
    ("Error from server (ServiceUnavailable): apiserver not ready", ConnectionFailed, "does not answer", ""),
    (
        'Error from server: Get "https://worker-1:10250/containerLogs/x": error dialing backend: dial tcp',
        ConnectionFailed,
        "kubelet",
        "10250",
    ),
    (
        "Unable to connect to the server: tls: failed to verify certificate: x509: certificate signed by unknown "
        "authority",
        Untrusted,
        "not trusted",
        "certificate-authority-data",
    ),
    (FORBIDDEN, AccessDenied, "may not do", "administrator"),
    (
        "error: You must be logged in to the server (Unauthorized)",
        AccessDenied,
        "does not know this user",
        "whoami",
    ),
    (
        "Unable to connect to the server: getting credentials: exec: executable gke-gcloud-auth-plugin not found",
        AccessDenied,
        "does not know this user",
        "",
    ),
    (LEVEL, AccessDenied, "level baseline", "pod-security.kubernetes.io/enforce=privileged"),
    ('error: context "prod" does not exist', SettingsError, "kubeconfig", "get-contexts"),
    (
        "Error in configuration: context was not found for specified context: prod",
        SettingsError,
        "kubeconfig",
        "",
    ),
    ("error: stat /nowhere/config: no such file or directory", SettingsError, "kubeconfig", ""),
    (
        f"{KLOG}The connection to the server localhost:8080 was refused - did you specify the right host or port?",
        SettingsError,
        "no cluster is named",
        "KUBECONFIG",
    ),
    ('Error from server (NotFound): nodes "worker-9" not found', NotThere, "no such object", ""),
    (
        'Error from server (NotFound): namespaces "kata" not found',
        NotThere,
        "no namespace kata",
        "kubectl create namespace kata && kubectl label namespace kata pod-security.kubernetes.io/enforce=",
    ),
    (
        "Error from server (NotFound): the server could not find the requested resource",
        NotThere,
        "no such object",
        "",
    ),
    ('The Pod "x_" is invalid: metadata.name: Invalid value: "x_"', ChangeRejected, "did not take", ""),
    ('Error from server (AlreadyExists): pods "x" already exists', ChangeRejected, "did not take", ""),
    ("", ConnectionFailed, "kubectl failed", ""),
]


@pytest.mark.parametrize(("stderr", "kind", "message", "cure"), SAYINGS)
def test_each_saying_is_its_error(stderr: str, kind: type[Error], message: str, cure: str) -> None:
    error = read_error(stderr.encode(), place="lab")
    assert type(error) is kind
    assert message in error.message
    assert cure in error.cure
    assert error.cure
    assert "memcache.go" not in error.evidence


def test_warnings_and_log_lines_are_no_reason() -> None:
    said = b'Warning: would violate PodSecurity "restricted:latest"\n' + FORBIDDEN.encode()
    assert "may not do" in read_error(said, place="lab").message


def test_a_refusal_is_found_by_the_name_of_its_object() -> None:
    said = (
        'Error from server (Forbidden): error when creating "STDIN": pods "nestvirt-a-1" is forbidden: pod '
        'rejected: RuntimeClass "kata-fc" not found\n'
        'Error from server (Forbidden): error when creating "STDIN": pods "nestvirt-a-2" is forbidden: exceeded '
        "quota: q, requested: pods=1\n"
    )
    found = refusals(said.encode(), ["nestvirt-a-1", "nestvirt-a-2", "nestvirt-a-3"])
    assert found == {
        "nestvirt-a-1": 'pods "nestvirt-a-1" is forbidden: pod rejected: RuntimeClass "kata-fc" not found',
        "nestvirt-a-2": 'pods "nestvirt-a-2" is forbidden: exceeded quota: q, requested: pods=1',
    }


HELMS = (
    'query: failed to query with labels: secrets is forbidden: User "dev" cannot list resource "secrets" in API '
    'group "" in the namespace "kube-system"; clusterroles.rbac.authorization.k8s.io "kata" is forbidden: User '
    '"dev" cannot create resource "clusterroles" in API group "rbac.authorization.k8s.io" at the cluster scope'
)


@pytest.mark.parametrize(
    ("said", "lacking"),
    [
        (FORBIDDEN, "list pods in kube-system"),
        (HELMS, "list secrets in kube-system, create clusterroles.rbac.authorization.k8s.io"),
        ('clusterroles "kata" is forbidden: user "dev" is attempting to grant RBAC permissions', ""),
    ],
)
def test_a_right_that_is_lacking_is_named_whoever_says_so(said: str, lacking: str) -> None:
    error = read_error(said.encode(), place="lab")
    assert error.message == "this user may not do what is needed"
    assert error.evidence.startswith(f"what is lacking: {lacking}; " if lacking else said)
    assert "cluster administrator" in error.cure


def test_what_is_no_matter_of_rights_has_a_cure_too() -> None:
    error = refusal('pods "x" is forbidden: exceeded quota: q, requested: pods=1')
    assert error.message == "the cluster refused"
    assert "quota" in error.cure


WORDS = ["--context", "the lab", "--kubeconfig", "/etc/k"]
NAMED = "kubectl --context 'the lab' --kubeconfig /etc/k"


@pytest.mark.parametrize(
    ("stderr", "cure"),
    [
        ("Unable to connect to the server: EOF", f"see whether this answers: {NAMED} get --raw /readyz"),
        (
            'error: context "the lab" does not exist',
            "look at what there is: kubectl --kubeconfig /etc/k config get-contexts",
        ),
        (FORBIDDEN, f"use a kubeconfig of a cluster administrator; see: {NAMED} auth can-i --list"),
        (LEVEL, f"{NAMED} label namespace NAME"),
        ("error: You must be logged in to the server (Unauthorized)", f"{NAMED} auth whoami"),
        ('namespaces "n" not found', f"{NAMED} create namespace n && {NAMED} label namespace n"),
    ],
)
def test_a_cure_asks_the_cluster_that_was_asked(stderr: str, cure: str) -> None:
    assert cure in read_error(stderr.encode(), place="the lab", words=WORDS).cure
    assert NAMED not in read_error(stderr.encode(), place="the lab").cure


def test_only_commands_get_the_words() -> None:
    assert (
        of_cluster("install kubectl, or: kubectl version", WORDS) == f"install kubectl, or: {NAMED} version"
    )


@given(st.binary(max_size=400))
def test_whatever_is_said_is_an_error_that_can_be_shown(said: bytes) -> None:
    error = read_error(said, place="lab")
    assert error.message
    assert (error.message + error.evidence).isprintable()
