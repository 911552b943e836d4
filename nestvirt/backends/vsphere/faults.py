"""What vSphere says when it refuses, and what is made of it.

A fault's class is its stable name (InvalidPowerState, NoPermission); its text is for people, in the server's
language. API: https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/.
"""

from __future__ import annotations

from typing import Any

from nestvirt.errors import AccessDenied, ConnectionFailed
from nestvirt.printable import printable

EXPIRED = "NotAuthenticated"
GONE = "ManagedObjectNotFound"


_AGAIN = "connect that host again (its menu: Connection > Connect), then run this again"
CURES = {
    "FileLocked": "another host has the VM registered, too, and runs it: find that host (vmkfstools -D on "
    "the .vmx tells who holds it), and shut the VM down there, or name it to that host",
    "HostCommunication": _AGAIN,
    "HostNotConnected": _AGAIN,
    "HostNotReachable": _AGAIN,
    "RestrictedVersion": "the API of a free ESXi only reads: give the host a licence, or set it in its own "
    "web page while the VM is off (Edit > CPU > Expose hardware assisted virtualization to the guest OS)",
}
"""What to do about a fault, by its name, where more can be told than what it says."""


class NoAnswer(ConnectionFailed):
    """A request was sent, and it is not known what has become of it."""


class Partly(NoAnswer):
    """Of a change that takes two tasks the first was done, and the second was refused."""


class Refused(AccessDenied):
    """vSphere answered a request, or ended a task, with a fault.

    Args:
        name: of the fault's class, without its package.
        privilege: which one is missing, where that is the reason.
    """

    def __init__(
        self, message: str, *, evidence: str = "", cure: str = "", name: str = "", privilege: str = ""
    ) -> None:
        super().__init__(message, evidence=evidence, cure=cure)
        self.name = name
        self.privilege = privilege


def name_of(fault: Any) -> str:
    """``InvalidPowerState``, of an object or a class of pyvmomi."""
    return type(fault).__name__.rpartition(".")[2]


def words_of(fault: Any) -> str:
    """A fault's name, and all that it says, once."""
    told = [getattr(fault, "msg", None), getattr(fault, "reason", None)]
    told += [message.message for message in getattr(fault, "faultMessage", None) or []]
    # The state that stands in the way is not always in the text.
    told += [f"it is {fault.existingState}" if getattr(fault, "existingState", None) else None]
    text = "; ".join(dict.fromkeys(" ".join(str(words).split()) for words in told if words))
    return printable(f"{name_of(fault)}: {text}" if text else name_of(fault), 600)


def refused(request: str, fault: Any) -> Refused:
    """What a fault means for people.

    Args:
        request: the method, by its name in the API.
        fault: what it was answered with, or what its task has ended with.
    """
    name, privilege = name_of(fault), str(getattr(fault, "privilegeId", None) or "")
    if name == "NoPermission":
        return Refused(
            f"vSphere does not let this user do that: {request}",
            evidence=f"it lacks {privilege or 'a privilege'}: {words_of(fault)}",
            cure=f"add {privilege or 'it'} to this user's role (Administration > Roles), on the VM or above",
            name=name,
            privilege=privilege,
        )
    return Refused(
        f"vSphere refused: {request}",
        evidence=words_of(fault),
        cure=CURES.get(name, "mend what vSphere says in the evidence; then run this again"),
        name=name,
    )
