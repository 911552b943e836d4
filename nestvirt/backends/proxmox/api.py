"""Requests to Proxmox's API, whichever way they go: in what form, and what is made of their failures.

API: https://pve.proxmox.com/pve-docs/api-viewer/. All paths are here.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any, Protocol

from nestvirt.errors import AccessDenied, ConnectionFailed

VERSION = "version"
RESOURCES = "cluster/resources"
NODES = "nodes"
PERMISSIONS = "access/permissions"

_ENABLING = ("VM.Audit", "VM.Config.CPU", "VM.PowerMgmt")
_AGENT_9 = ("VM.GuestAgent.Audit", "VM.GuestAgent.FileRead")
_AGENT_8 = ("VM.Monitor",)

UNREACHED = (502, 503, 504, 595, 596, 597, 598, 599)
"""Statuses of a proxy, or of AnyEvent (59x), that say: the node that was meant has not answered."""

_DENIED = re.compile(r"Permission check failed \((?P<path>[^,)]+), (?P<privileges>[\w.|, ]+)\)")


def vm_path(node: str, vmid: str, *rest: str) -> str:
    """The path of a VM, or of something of it."""
    return "/".join(["nodes", node, "qemu", vmid, *rest])


def node_path(node: str, *rest: str) -> str:
    """The path of something of a node."""
    return "/".join(["nodes", node, *rest])


class Way(Protocol):
    """How requests reach the API: over HTTPS, by pvesh on the node itself, or by pvesh over SSH."""

    address: str
    """What is reached, for people and for the journal: ``https://pve1:8006``."""

    who: str
    """The user or token in whose name it is asked: ``root@pam``, ``ops@pve!nestvirt``."""

    def request(self, method: str, path: str, values: Mapping[str, object]) -> object:
        """Send one request; return the answer's data.

        Raises:
            Refused: it was answered with an error.
            AccessDenied: the credentials were refused.
            ConnectionFailed: no answer, or none of Proxmox.
        """

    def node_words(self) -> str | None:
        """What READ_NESTED prints on the machine that answers; None where this way runs no program there."""

    def close(self) -> None:
        """Close the connection."""


class Refused(AccessDenied):
    """The API answered a request with an error.

    Args:
        status: HTTP's, or 500 where a command failed without naming one.
        text: PVE's own words, with those about single parameters.
    """

    def __init__(
        self, message: str, *, evidence: str = "", cure: str = "", status: int = 500, text: str = ""
    ) -> None:
        super().__init__(message, evidence=evidence, cure=cure)
        self.status = status
        self.text = text


def is_elsewhere(error: Refused) -> bool:
    """Whether the node that was asked has no such VM: it has moved, or it is gone."""
    return re.search(r"Configuration file '\S+' does not exist", error.text) is not None


def refused(request: str, status: int, text: str) -> Refused:
    """A Refused with its words for people."""
    text = " ".join(text.split()) or "no reason given"
    return Refused(
        f"Proxmox refused: {request}",
        evidence=f"{status} {text}",
        cure="the evidence has Proxmox's own words",
        status=status,
        text=text,
    )


class NoAnswer(ConnectionFailed):
    """The connection was there, and the answer did not come: what was asked for may have been done."""


def denied(who: str, request: str, text: str, version: tuple[int, ...]) -> AccessDenied:
    """A 403 as an error that names the privilege, and the command that grants it."""
    found = _DENIED.search(text)
    if found is None:
        cure = "use a user or token that may"
        return AccessDenied(f"{who} may not do this: {request}", evidence=text, cure=cure)
    path = found["path"]
    privileges = re.split(r"[|, ]+", found["privileges"])
    lacks_all = privileges == ["VM.Audit"]  # who may not even look has nothing else there
    return AccessDenied(
        f"{who} lacks {' or '.join(privileges)} on {path}",
        evidence=f"{request}: {text}",
        cure=grant(who, path, version) if lacks_all else extend(who, path, privileges[0]),
    )


def grant(who: str, path: str, version: tuple[int, ...]) -> str:
    """The commands that give a user or token that has none the rights to enable nesting (pveum(1)).

    The right to run programs in the guest is not among them: whoever wants it, decides that.
    """
    privileges = (*_ENABLING, *(_AGENT_8 if version < (9,) else _AGENT_9))
    user, _, token = who.partition("!")
    whom = f"--users {shlex.quote(user)}" + (f" --tokens {shlex.quote(who)}" if token else "")
    return (
        f"on a node, as root: pveum role add Nestvirt --privs {shlex.quote(' '.join(privileges))}; "
        f"pveum acl modify {shlex.quote(path)} {whom} --roles Nestvirt"
    )


def extend(who: str, path: str, privilege: str) -> str:
    """The command that adds a privilege to the role that somebody has on a path.

    A second grant on a deeper path would take the place of what is inherited there, and take rights away
    (pveum(1), inheritance).
    """
    return (
        f"on a node, as root: pveum role modify ROLE --privs {privilege} --append 1; "
        f"ROLE is the one that pveum acl list shows for {who} on {path} or above (a built-in one cannot be "
        "modified: make one of your own)"
    )


class Api:
    """One connection, which refuses requests once it is closed."""

    def __init__(self, way: Way) -> None:
        self._way: Way | None = way
        self.address, self.who = way.address, way.who
        self.version: tuple[int, ...] = (9,)  # of pve-manager; until it has been asked, the present one

    def get(self, path: str, values: Mapping[str, object] | None = None) -> Any:
        """Ask for something; see Way.request for what it raises."""
        return self._request("GET", path, values)

    def put(self, path: str, values: Mapping[str, object]) -> None:
        """Write; what a command prints in its answer says nothing, so nothing is returned."""
        self._request("PUT", path, values)

    def post(self, path: str, values: Mapping[str, object] | None = None) -> Any:
        """Have something done; mostly the answer is a task's UPID."""
        return self._request("POST", path, values)

    def node_words(self) -> str | None:
        """See Way."""
        return self._open().node_words()

    def close(self) -> None:
        """Close the connection; a second time does nothing."""
        if self._way is not None:
            self._way.close()
        self._way = None

    def _request(self, method: str, path: str, values: Mapping[str, object] | None) -> Any:
        way = self._open()
        try:
            return way.request(method, path, values or {})
        except Refused as error:
            if error.status == 403:
                raise denied(self.who, f"{method} /{path}", error.text, self.version) from error
            raise

    def _open(self) -> Way:
        if self._way is None:
            raise ConnectionFailed(
                "the connection to Proxmox is closed", evidence=self.address, cure="run this again"
            )
        return self._way
