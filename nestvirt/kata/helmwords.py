"""Helm's words on stderr, read as errors. Pure.

The texts are those of Helm 3.17 and 4.3, of their registry client (oras), and of the API server that they
pass on; Helm has one exit code for all that goes wrong.
"""

from __future__ import annotations

import re

from nestvirt.errors import AccessDenied, Busy, ChangeRejected, ConnectionFailed, Error, SettingsError
from nestvirt.kata import answers
from nestvirt.printable import printable

UNKNOWN = "kubectl failed"
"""What answers.py calls what it does not know."""

_LOG = re.compile(r"(?:WARNING:|level=WARN|time=\S+ level=(?:DEBUG|INFO|WARN)|walk\.go:)")
_UNREACHABLE = re.compile(r"[Kk]ubernetes cluster unreachable:? *")
_FAILED = re.compile(
    r"^(?:Error: )?(?:INSTALLATION FAILED|UPGRADE FAILED|uninstallation completed with .*?): *"
)
_LATE = re.compile(r"timed out waiting|not ready\. status:|context deadline exceeded|rate limiter")
_UNOWNED = re.compile(r"(\w+) \"([^\"]+)\"(?: in namespace \"[^\"]*\")? exists and cannot be imported")
_CONFLICT = re.compile(r"[Aa]pply failed with \d+ conflict")
_BUSY = re.compile(r"another operation \(install/upgrade/rollback\) is in progress")
_HOOK = re.compile(r"(?:pre|post)-(?:install|upgrade|delete|rollback)\b.*\bhooks?\b|failed .*hooks")

_PLAIN = "server gave HTTP response to HTTPS client"
_NO_HOST = re.compile(
    r"no such host|dial tcp|i/o timeout|connection refused|TLS handshake timeout|network is unreachable|EOF\b"
)
_DENIED = re.compile(
    r"\b40[13]\b|unauthorized|denied|failed to authorize|basic credential not found", re.IGNORECASE
)
_NO_CHART = re.compile(
    r"not found|manifest unknown|\b404\b|no such|could not locate a version", re.IGNORECASE
)


def sentence(stderr: bytes) -> str:
    """What Helm said last, without warnings and its own log, on one line."""
    lines = [line.strip() for line in stderr.decode(errors="replace").splitlines()]
    said = [line for line in lines if line and not _LOG.match(line)]
    start = next((i for i, line in enumerate(said) if line.startswith("Error: ")), len(said) - 1)
    return printable(
        " ".join(said[max(0, start) :]).removeprefix("Error: ") or "helm failed, and said nothing"
    )


def cluster_error(stderr: bytes, *, place: str) -> Error:
    """The error of a command that works on the cluster.

    Args:
        stderr: all that it wrote there.
        place: which cluster was asked, for people.
    """
    text = sentence(stderr)
    return _of_release(text) or _of_cluster(text, place)


def _of_release(text: str) -> Error | None:
    unowned = _UNOWNED.search(text)
    if _BUSY.search(text):
        return Busy(
            "another Helm is at work on the release, or was killed there",
            evidence=text,
            cure="wait for it; where none is at work: run it again with --force",
        )
    if unowned:
        return ChangeRejected(
            f"{unowned[1]} {unowned[2]} is there already, and not the release's",
            evidence=text,
            cure="let this release take it over with --force, or delete it where nothing uses it: "
            f"kubectl delete {unowned[1].lower()} {unowned[2]}",
        )
    if _CONFLICT.search(text):
        return ChangeRejected(
            "somebody else has changed an object of the release",
            evidence=text,
            cure="overwrite that with --force, or put it into the configuration file",
        )
    if _HOOK.search(text):
        return ChangeRejected(
            "a hook of the chart failed",
            evidence=text,
            cure="see why: kubectl get pods --all-namespaces --selector job-name",
        )
    return None


def _of_cluster(text: str, place: str) -> Error:
    text = _FAILED.sub("", text)
    bare = _UNREACHABLE.sub("", text)
    if _LATE.search(text):
        return ConnectionFailed(
            f"the API server of {place} did not answer Helm in time",
            evidence=text,
            cure="see whether this answers: kubectl get --raw /readyz; then run it again",
        )
    error = answers.read_error(bare.encode(), place=place)
    if bare != text and not isinstance(error, ConnectionFailed | SettingsError):
        return ConnectionFailed(error.message, evidence=text, cure="see: kubectl get --raw /readyz")
    known = isinstance(error, ConnectionFailed | SettingsError) and error.message != UNKNOWN
    if "Forbidden" in text or "forbidden" in text or known:
        return error
    return ChangeRejected(
        "Helm could not carry it out", evidence=text, cure="see: helm history, and helm get manifest"
    )


def registry_error(stderr: bytes, *, chart: str, version: str) -> Error:
    """The error of a pull from a registry."""
    text = sentence(stderr)
    host = re.sub(r"^oci://([^/]*).*", r"\1", chart)
    if _PLAIN in text:
        return SettingsError(
            f"the registry {host} speaks plain HTTP", evidence=text, cure="where that is meant: --plain-http"
        )
    if "x509" in text or "certificate" in text:
        return ConnectionFailed(
            f"the certificate of the registry {host} is not trusted",
            evidence=text,
            cure="make this machine trust its CA (SSL_CERT_FILE names one)",
        )
    if _DENIED.search(text):
        return AccessDenied(
            f"the registry {host} refused", evidence=text, cure=f"log in: helm registry login {host}"
        )
    if _NO_HOST.search(text):
        return ConnectionFailed(
            f"the registry {host} does not answer",
            evidence=text,
            cure="name a mirror with --chart oci://…; or, where nothing is reached from here, carry the "
            f"chart over (helm pull {chart} --version {version}) and name the file",
        )
    if _NO_CHART.search(text):
        return SettingsError(
            f"{chart} has no version {version}",
            evidence=text,
            cure="set a version that is there: kataContainers.version in the configuration file",
        )
    return ConnectionFailed("the chart cannot be had", evidence=text, cure=f"try: helm pull {chart}")


def file_error(stderr: bytes, *, path: str) -> Error:
    """The error of reading a chart that is a file or a folder."""
    return SettingsError(
        f"{printable(path, 200)} is not a chart",
        evidence=sentence(stderr),
        cure="name the .tgz of helm pull, or the folder that holds Chart.yaml",
    )
