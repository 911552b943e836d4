"""Properties, methods and elements of values: what .NET has of them, as far as scripts use it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from tests.peers.pwsh.convert import is_list, number, text, type_of
from tests.peers.pwsh.raising import failure, in_method
from tests.peers.pwsh.unknown import NotKnown
from tests.peers.pwsh.values import (
    NOTHING,
    CaseDict,
    Hashtable,
    Net,
    NetException,
    PsObject,
    Secure,
    TypeName,
)

MISSING = object()


def value(owner: Any, name: str, *, strict: bool) -> Any:
    """owner.name; what a list lacks is asked of each of its elements."""
    if owner is None or owner is NOTHING:
        return _absent(name, strict)
    found = _own(owner, name)
    if found is MISSING and is_list(owner):
        found = _of_each(owner, name)
    return _absent(name, strict) if found is MISSING else found


def _absent(name: str, strict: bool) -> None:
    if strict:
        message = f"The property '{name}' cannot be found on this object. Verify that the property exists."
        raise failure(
            "PropertyNotFoundStrict",
            message,
            "NotSpecified",
            "System.Management.Automation.PropertyNotFoundException",
        )


def _of_each(owner: list[Any], name: str) -> Any:
    found: list[Any] = []
    for item in owner:
        one = _own(item, name) if item is not None else MISSING
        if one is not MISSING:
            found.extend(one if isinstance(one, list) else [one])
    if not found:
        return MISSING
    return found[0] if len(found) == 1 else found


def _own(owner: Any, name: str) -> Any:
    wanted = name.lower()
    if isinstance(owner, Net):
        return owner.properties.get(name, MISSING)
    if isinstance(owner, CaseDict):
        if name in owner:
            return owner[name]
        return _of_dictionary(owner, wanted) if isinstance(owner, Hashtable) else MISSING
    reader = _READERS.get((_kind(owner), wanted))
    return reader(owner) if reader else MISSING


def _of_dictionary(owner: Hashtable, wanted: str) -> Any:
    own = {"keys": list(owner), "values": list(owner.values()), "count": len(owner)}
    return own.get(wanted, MISSING)


def _kind(owner: Any) -> str:
    if isinstance(owner, list | bytes):
        return "array"
    return {
        "System.String": "string",
        "System.DateTime": "datetime",
        "System.RuntimeType": "type",
        "System.Security.SecureString": "secure",
    }.get(type_of(owner), "number")


_READERS: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("array", "count"): len,
    ("array", "length"): len,
    ("string", "length"): len,
    ("type", "name"): lambda owner: owner.name.rpartition(".")[2],
    ("type", "fullname"): lambda owner: owner.name,
}


def put(owner: Any, name: str, new: Any) -> None:
    """owner.name = new."""
    if isinstance(owner, Hashtable) or (isinstance(owner, PsObject) and name in owner):
        owner[name] = new
    elif isinstance(owner, Net) and name in owner.properties:
        raise NotKnown(f"to set {name} of {owner.type_name}")
    else:
        message = f"The property '{name}' cannot be found on this object, or cannot be set."
        raise failure("PropertyAssignmentException", message)


def call(owner: Any, name: str, arguments: list[Any]) -> Any:
    """owner.name(arguments)."""
    if owner is None or owner is NOTHING:
        raise failure("InvokeMethodOnNull", "You cannot call a method on a null-valued expression.")
    wanted = name.lower()
    if wanted == "gettype" and not arguments:
        return TypeName(type_of(owner))
    if isinstance(owner, Net) and wanted in owner.methods():
        return owner.methods()[wanted](*arguments)
    if wanted == "tostring" and not arguments:
        return text(owner)
    if isinstance(owner, Secure) and wanted == "appendchar":
        owner.value += text(arguments[0])
        return NOTHING
    kind = "dictionary" if isinstance(owner, CaseDict) else _kind(owner)
    method = _METHODS.get(kind, {}).get(wanted)
    if method is None:
        raise NotKnown(f"the method {name} of {type_of(owner)}")
    try:
        return method(owner, *arguments)
    except (ValueError, IndexError) as error:
        raise in_method(name, NetException("System.ArgumentException", str(error))) from None


def element(owner: Any, index: Any, *, strict: bool) -> Any:
    """owner[index]."""
    if owner is None or owner is NOTHING:
        raise failure("NullArray", "Cannot index into a null array.")
    if isinstance(owner, CaseDict):
        return owner.get(index)
    if is_list(index):
        return [element(owner, each, strict=strict) for each in index]
    if isinstance(owner, list | bytes | str):
        at = int(number(index))
        if -len(owner) <= at < len(owner):
            return owner[at]
        if strict:
            message = "Index was outside the bounds of the array."
            raise failure(
                "System.IndexOutOfRangeException",
                message,
                "OperationStopped",
                "System.IndexOutOfRangeException",
            )
        return None
    message = f"Unable to index into an object of type {type_of(owner)}."
    raise failure("CannotIndex", message)


def put_element(owner: Any, index: Any, new: Any) -> None:
    """owner[index] = new."""
    if not isinstance(owner, CaseDict):
        raise NotKnown(f"to set an element of {type_of(owner)}")
    owner[index] = new


def _substring(owner: str, start: int, length: int | None = None) -> str:
    end = len(owner) if length is None else start + length
    if not 0 <= start <= end <= len(owner):
        raise ValueError("Index and length must refer to a location within the string.")
    return owner[start:end]


def _split(owner: str, by: str) -> list[str]:
    if len(by) != 1:
        raise NotKnown(f"Split by {by!r}: of several characters .NET Framework makes several separators")
    return owner.split(by)


_METHODS: dict[str, dict[str, Callable[..., Any]]] = {
    "dictionary": {"containskey": lambda owner, key: key in owner},
    "datetime": {"addminutes": lambda owner, minutes: owner + timedelta(minutes=minutes)},
    "string": {
        "toupperinvariant": str.upper,
        "tolowerinvariant": str.lower,
        "replace": str.replace,
        "split": _split,
        "startswith": str.startswith,
        "substring": _substring,
        "tochararray": list,
        "trim": str.strip,
    },
}
