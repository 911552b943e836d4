"""How a script's run is left: by an error, by a loop's or a function's end, by exit."""

from __future__ import annotations

from typing import Any

from tests.peers.pwsh.values import ErrorRecord, NetException

RUNTIME = "System.Management.Automation.RuntimeException"


class Raised(Exception):
    """A terminating error."""

    def __init__(self, record: ErrorRecord) -> None:
        super().__init__(f"{record.id}: {record.exception.message}")
        self.record = record


class Leave(Exception):
    """return, break and continue."""


class Return(Leave):
    pass


class Break(Leave):
    pass


class Continue(Leave):
    pass


class Exit(Leave):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def failure(
    error_id: str,
    message: str,
    category: str = "InvalidOperation",
    type_name: str = RUNTIME,
    target: Any = None,
) -> Raised:
    """An error of the language itself."""
    return Raised(ErrorRecord(NetException(type_name, message), error_id, category, target))


def unknown(command: str) -> Raised:
    """There is no such cmdlet here."""
    message = f"The term '{command}' is not recognized as the name of a cmdlet, function or script file."
    full = "System.Management.Automation.CommandNotFoundException"
    return failure("CommandNotFoundException", message, "ObjectNotFound", full, command)


def bad_conversion(value: Any, to: str, why: str = "") -> Raised:
    message = f'Cannot convert value "{value}" to type "{to}".'
    return failure(
        "InvalidCastFromStringToInteger" if why else "InvalidCast",
        f"{message} {why}".strip(),
        "InvalidArgument",
        "System.Management.Automation.PSInvalidCastException",
    )


def in_method(name: str, inner: NetException) -> Raised:
    """A .NET method's exception, as PowerShell hands it on."""
    message = f'Exception calling "{name}": "{inner.message}"'
    outer = NetException("System.Management.Automation.MethodInvocationException", message, inner=inner)
    return Raised(ErrorRecord(outer, inner.type_name.rpartition(".")[2], "NotSpecified"))
