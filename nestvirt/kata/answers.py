"""kubectl's words on stderr, read as errors. Pure.

The texts are those of kubectl and of the API server (k8s.io/apimachinery's status reasons stand in
parentheses: ``Error from server (Forbidden): …``); there is no other way to tell them apart.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from nestvirt.errors import AccessDenied, ChangeRejected, ConnectionFailed, Error, SettingsError
from nestvirt.printable import printable

_KLOG = re.compile(r"[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+\s+\d+ |Warning: |W\d{4} ")
_NO_ANSWER = re.compile(
    r"was refused|[Uu]nable to connect|connection refused|no such host|i/o timeout|TLS handshake timeout"
    r"|deadline exceeded|EOF\b|connection (?:was )?(?:lost|reset|closed)|no route to host|etcdserver"
    r"|\((?:ServiceUnavailable|Timeout|ServerTimeout|InternalError|TooManyRequests)\)"
    r"|request timed out|apiserver not ready|currently unable to handle the request|network is unreachable"
    r"|the server was unable to return a response"
)
_UNTRUSTED = re.compile(r"x509: |certificate signed by unknown authority|certificate has expired")
_WHO = re.compile(
    r"\(Unauthorized\)|must be logged in|provide credentials|Please enter Username|getting credentials"
    r"|executable \S+ (?:not found|failed)"
)
_SETTING = re.compile(
    r"context .*does not exist|context was not found|no configuration has been provided|loading config file"
    r"|cluster .*does not exist|auth info .*does not exist|[Ii]nvalid configuration|in configuration"
    r"|error: stat |current-context|unable to read (?:client|certificate)"
)
_POD_SECURITY = re.compile(r'violates PodSecurity "([a-z]+)')
_CANNOT = re.compile(
    r'cannot (\w+) resources? "([^"]+)" in API group "([^"]*)"(?:[^"]{0,40}in the namespace "([^"]+)")?'
)
_NO_RIGHT = re.compile(r"\bcannot (?:\w+ resource|\w+ path|impersonate)|attempting to grant")
_NO_NAMESPACE = re.compile(r'namespaces? "([^"]{1,253})" not found')
_STDIN = re.compile(
    r'Error from server \(\w+\): (?:error when creating "STDIN": )?|error when creating "STDIN": '
)


class NotThere(Error):
    """The cluster has no such object, or does not know its kind."""


class Untrusted(ConnectionFailed):
    """The server's certificate is not what the kubeconfig trusts; asking again does not help."""


def read_error(stderr: bytes, *, place: str, words: Sequence[str] = ()) -> Error:
    """The error that kubectl reports.

    Args:
        stderr: all that it wrote there.
        place: which cluster was asked, for people.
        words: kubectl's options that name that cluster; the commands of the cure get them.
    """
    said = sentences(stderr)
    text = printable(said[-1] if said else "kubectl failed, and said nothing")
    refused = [line for line in said if "Forbidden" in line or "Unauthorized" in line]
    if _WHO.search(text):
        return refusal(text, words)
    error = _setting(text) or _connection(text, place) or refusal(refused[0] if refused else text)
    error.cure = of_cluster(error.cure, words)
    return error


def of_cluster(cure: str, words: Sequence[str]) -> str:
    """The cure, with the options that name the cluster in each kubectl command of it.

    Args:
        words: pairs of an option and its value, as ``Kube.words`` gives them.
    """
    pairs = list(zip(words[::2], words[1::2], strict=False))

    def named(command: re.Match[str]) -> str:
        # Which contexts there are is asked where the one that was named may not be there.
        kept = [pair for pair in pairs if not (command[1] and pair[0] == "--context")]
        return "kubectl " + "".join(f"{option} {shlex.quote(printable(value))} " for option, value in kept)

    return re.sub(r"\bkubectl (?=(config get-contexts)|[a-z])", named, cure)


def sentences(stderr: bytes) -> list[str]:
    """What kubectl said, without the log lines and warnings among it."""
    lines = stderr.decode(errors="replace").split("\n")
    return [line.strip() for line in lines if line.strip() and not _KLOG.match(line)]


def _setting(text: str) -> Error | None:
    if "localhost:8080" in text:  # where kubectl turns to without any kubeconfig
        return SettingsError(
            "no cluster is named",
            evidence=f"there is no kubeconfig, or it names none, and kubectl says: {text}",
            cure="set KUBECONFIG, or name the file with --kubeconfig",
        )
    if _UNTRUSTED.search(text):
        return Untrusted(
            "the API server's certificate is not trusted",
            evidence=text,
            cure="put the cluster's own CA into the kubeconfig (certificate-authority-data), and look at the "
            "clock: kubectl config view",
        )
    if _SETTING.search(text):
        return SettingsError(
            "the kubeconfig cannot be used",
            evidence=text,
            cure="look at what there is: kubectl config get-contexts",
        )
    return None


def _connection(text: str, place: str) -> Error | None:
    if "error trying to reach service" in text or "error dialing backend" in text:
        return ConnectionFailed(
            "the API server does not reach a node's kubelet",
            evidence=text,
            cure="let the API server reach port 10250 of the node, and see: kubectl get nodes -o wide",
        )
    if _NO_ANSWER.search(text):
        return ConnectionFailed(
            f"the API server of {place} does not answer",
            evidence=text,
            cure="see whether this answers: kubectl get --raw /readyz",
        )
    return None


def refusal(text: str, words: Sequence[str] = ()) -> Error:
    """The error that the API server's own sentence tells of.

    Args:
        words: as those of ``read_error``.
    """
    lacking = _lacking(text)
    text = printable(text)
    error = _not_allowed(text, lacking) or _not_taken(text)
    error.cure = of_cluster(error.cure, words)
    return error


def _lacking(text: str) -> str:
    """The verbs and resources that the user has no right to, by the sentences of RBAC."""
    found = {
        f"{verb} {resource}{'.' + group if group else ''}{' in ' + namespace if namespace else ''}": None
        for verb, resource, group, namespace in _CANNOT.findall(text)
    }
    return printable(", ".join(found), 300)


def _not_allowed(text: str, lacking: str) -> Error | None:
    """The error where it is a matter of rights."""
    level = _POD_SECURITY.search(text)
    if level:
        return AccessDenied(
            f"the namespace admits only pods of the level {level[1]}",
            evidence=text,
            cure="name a namespace for privileged pods with -n (kube-system is one), or: kubectl label "
            "namespace NAME pod-security.kubernetes.io/enforce=privileged --overwrite",
        )
    if _WHO.search(text):
        return AccessDenied(
            "the API server does not know this user",
            evidence=text,
            cure="log in to the cluster again, until this answers: kubectl auth whoami",
        )
    if "forbidden" in text.lower() and _NO_RIGHT.search(text):
        return AccessDenied(
            "this user may not do what is needed",
            evidence=f"what is lacking: {lacking}; {text}" if lacking else text,
            cure="use a kubeconfig of a cluster administrator; see: kubectl auth can-i --list",
        )
    return None


def _not_taken(text: str) -> Error:
    missing = _NO_NAMESPACE.search(text)
    if missing:
        name = shlex.quote(missing[1])
        return NotThere(
            f"there is no namespace {missing[1]}",
            evidence=text,
            cure=f"kubectl create namespace {name} && kubectl label namespace {name} "
            "pod-security.kubernetes.io/enforce=privileged; or name another with -n",
        )
    if "NotFound" in text or "could not find the requested resource" in text:
        return NotThere("the cluster has no such object", evidence=text, cure="see: kubectl api-resources")
    if "is invalid" in text or re.search(r"\((?:Invalid|BadRequest|AlreadyExists|Conflict)\)", text):
        return ChangeRejected(
            "the API server did not take an object",
            evidence=text,
            cure="report this, with the cluster's version: kubectl version",
        )
    if "from server" in text or "forbidden" in text:
        return AccessDenied(
            "the cluster refused",
            evidence=text,
            cure="let those who run the cluster allow it (a quota or an admission policy stands in the way), "
            "or name another namespace with -n",
        )
    return ConnectionFailed("kubectl failed", evidence=text, cure="see whether it works: kubectl version")


def refusals(stderr: bytes, names: Sequence[str]) -> dict[str, str]:
    """Which of the named objects were refused, each with the API server's words.

    A line names its object: ``pods "NAME" is forbidden: …``, ``The Pod "NAME" is invalid: …``.
    """
    found: dict[str, str] = {}
    for line in sentences(stderr):
        quoted = set(re.findall(r'"([^"]{1,253})"', line))
        for name in names:
            if name in quoted and name not in found:
                found[name] = printable(_STDIN.sub("", line), 2000)
    return found
