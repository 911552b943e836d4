# ruff: noqa: E501 - these are others' sentences
"""kubectl's words, as versions 1.28 to 1.37 say them, read as errors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestvirt.errors import AccessDenied, ChangeRejected, ConnectionFailed, Error, SettingsError
from nestvirt.kata.answers import NotThere, Untrusted, read_error, refusals

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
        "create namespace",
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


@given(st.binary(max_size=400))
def test_whatever_is_said_is_an_error_that_can_be_shown(said: bytes) -> None:
    error = read_error(said, place="lab")
    assert error.message
    assert (error.message + error.evidence).isprintable()
