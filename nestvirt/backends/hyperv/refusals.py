"""What Hyper-V's cmdlets refuse, told as nestvirt's errors.

Judged by an error's id and category, as its words are in the host's language.
"""

from __future__ import annotations

from nestvirt.backends.hyperv.faults import ScriptFailed
from nestvirt.errors import AccessDenied, ChangeRejected, Error, PowerError, TargetError
from nestvirt.model import Change, Vm
from nestvirt.printable import printable

_GET_VM = ",Microsoft.HyperV.PowerShell.Commands.GetVM"
_NO_MODULE = ("CommandNotFoundException", "Modules_ModuleNotFound")
_OPT_OUT = "VirtualizationBasedSecurityOptOut"


def told(error: ScriptFailed, name: str) -> Error | None:
    """What an error means whatever was asked for; None where that depends.

    Args:
        name: of the VM that it was asked for.
    """
    kind = error.id.partition(",")[0]
    if error.category == "PermissionDenied" or kind == "AccessDenied":
        return AccessDenied(
            "Hyper-V lets this user do nothing with its VMs",
            evidence=error.evidence,
            cure="add the user to the host's local group Hyper-V Administrators, and log in anew",
        )
    if kind in _NO_MODULE:
        return Error(
            "the host has no Hyper-V, or not its PowerShell module",
            evidence=error.evidence,
            cure="on the host: Install-WindowsFeature Hyper-V -IncludeManagementTools -Restart; or on "
            "Windows 10 and 11: Enable-WindowsOptionalFeature -Online -FeatureName Microsoft-Hyper-V -All",
        )
    if error.id.endswith(_GET_VM) and error.category == "InvalidArgument":
        return gone(name)
    if error.id.endswith(_GET_VM) and error.category == "ObjectNotFound":
        return Error(
            "Hyper-V's management service does not answer on the host",
            evidence=error.evidence,
            cure="on the host: Start-Service vmms; then run this again",
        )
    return None


def gone(name: str) -> TargetError:
    """A VM that was there a moment ago."""
    return TargetError(
        f"the VM {printable(name, 100)} is not there any more",
        evidence="the host has no VM of this id",
        cure="see whether it was removed, or moved to another host; then name it again",
    )


def unexpected(error: ScriptFailed, name: str) -> Error:
    """An error in what only reads."""
    return told(error, name) or Error(
        f"Hyper-V does not let {printable(name, 100)} be read",
        evidence=error.evidence,
        cure="try the cmdlet that the evidence names on the host itself",
    )


def rejected(vm: Vm, change: Change, error: ScriptFailed) -> Error:
    """A write that was refused, and has written nothing."""
    cure = "mend what Hyper-V says in the evidence, then run this again"
    if error.id.startswith("InvalidState"):
        cure = "Hyper-V takes this change only while the VM is off, and not saved: shut it down first"
    elif _OPT_OUT in error.text:  # no language has another name for it
        cure = f"install the host's updates; or first: Set-VMSecurity with -{_OPT_OUT} $true"
    return told(error, vm.name) or ChangeRejected(
        f"Hyper-V refused {change.setting} of {printable(vm.name, 100)}",
        evidence=error.evidence,
        cure=f"{cure}; nothing was written",
    )


def left(vm: Vm, change: Change, warned: object) -> ChangeRejected:
    """A write that Hyper-V only warned of, and has not done."""
    return ChangeRejected(
        f"Hyper-V left {change.setting} of {printable(vm.name, 100)} as it was",
        evidence=printable(str(warned), 300),
        cure="mend what Hyper-V says in the evidence, then run this again; nothing was written",
    )


def powerless(what: str, error: ScriptFailed, name: str) -> Error:
    """Power that was refused."""
    return told(error, name) or PowerError(
        what, evidence=error.evidence, cure="mend what Hyper-V says in the evidence, then run this again"
    )
