"""Properties, methods and elements of values: what .NET has of them, as far as scripts use it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from tests.peers.pwsh.convert import is_list, number, text, type_of
from tests.peers.pwsh.operators import equal
from tests.peers.pwsh.raising import failure, in_method
from tests.peers.pwsh.unknown import NotKnown
from tests.peers.pwsh.values import (
    NOTHING,
    CaseDict,
    EnumValue,
    Hashtable,
    Net,
    NetException,
    Property,
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
    if wanted == "psobject":
        return _Reflection(owner)
    if isinstance(owner, Net):
        return owner.properties.get(name, MISSING)
    if isinstance(owner, Property):
        return {"name": owner.name, "value": owner.owner[owner.name]}.get(wanted, MISSING)
    if isinstance(owner, CaseDict):
        if name in owner:
            return owner[name]
        return _of_dictionary(owner, wanted) if isinstance(owner, Hashtable) else MISSING
    reader = _READERS.get((_kind(owner), wanted))
    return reader(owner) if reader else MISSING


def _of_dictionary(owner: Hashtable, wanted: str) -> Any:
    own = {"keys": list(owner), "values": list(owner.values()), "count": len(owner)}
    return own.get(wanted, MISSING)


class _Reflection(Net):
    """PSObject: the properties as a collection."""

    def __init__(self, owner: Any) -> None:
        if isinstance(owner, Net):
            holder: Any = owner.properties
        elif isinstance(owner, PsObject):
            holder = owner
        else:
            raise NotKnown(f"PSObject of {type_of(owner)}")
        super().__init__("System.Management.Automation.PSObject", {"Properties": Properties(holder)})


class Properties(list[Any]):
    """PSObject.Properties: by number, by name, and each in turn."""

    def __init__(self, holder: CaseDict) -> None:
        super().__init__(Property(holder, name) for name in holder)
        self.holder = holder

    def named(self, name: str) -> Property | None:
        return Property(self.holder, name) if name in self.holder else None


def _kind(owner: Any) -> str:
    if isinstance(owner, list | bytes):
        return "array"
    if isinstance(owner, EnumValue):
        return "enum"
    return {
        "System.String": "string",
        "System.DateTime": "datetime",
        "System.TimeSpan": "timespan",
        "System.Guid": "guid",
        "System.RuntimeType": "type",
        "System.Security.SecureString": "secure",
    }.get(type_of(owner), "number")


_READERS: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("array", "count"): len,
    ("array", "length"): len,
    ("string", "length"): len,
    ("enum", "value__"): lambda owner: owner.number,
    ("timespan", "totalseconds"): timedelta.total_seconds,
    ("timespan", "totalmilliseconds"): lambda owner: owner.total_seconds() * 1000,
    ("timespan", "ticks"): lambda owner: int(owner.total_seconds() * 10_000_000),
    ("timespan", "seconds"): lambda owner: owner.seconds % 60,
    ("datetime", "ticks"): lambda owner: int(
        (owner.replace(tzinfo=None) - datetime(1, 1, 1)).total_seconds() * 10**7
    ),
    ("datetime", "year"): lambda owner: owner.year,
    ("type", "name"): lambda owner: owner.name.rpartition(".")[2],
    ("type", "fullname"): lambda owner: owner.name,
}


def put(owner: Any, name: str, new: Any) -> None:
    """owner.name = new."""
    if isinstance(owner, Hashtable) or (isinstance(owner, PsObject) and name in owner):
        owner[name] = new
    elif isinstance(owner, Net) and name in owner.properties:
        setter = getattr(owner, f"set_{name.lower()}", None)
        if setter is None:
            raise NotKnown(f"to set {name} of {owner.type_name}")
        setter(new)
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
    if wanted == "equals":
        return equal(owner, arguments[0], ignore_case=False)
    if isinstance(owner, Secure) and wanted == "appendchar":
        owner.value += text(arguments[0])
        return NOTHING
    if isinstance(owner, Properties):
        raise NotKnown(f"the method {name} of PSObject.Properties")
    if isinstance(owner, CaseDict):
        table = _DICTIONARY
    else:
        table = {"array": _LIST, "string": _STRING}.get(_kind(owner), _OTHER)
    method = table.get(wanted)
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
    if isinstance(owner, Properties) and isinstance(index, str):
        return owner.named(index)
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
    if isinstance(owner, CaseDict):
        owner[index] = new
    elif isinstance(owner, list):
        owner[int(number(index))] = new
    else:
        raise NotKnown(f"to set an element of {type_of(owner)}")


def _add(owner: list[Any], item: Any) -> int:
    owner.append(item)
    return len(owner) - 1


def _substring(owner: str, start: int, length: int | None = None) -> str:
    if start > len(owner) or (length is not None and start + length > len(owner)):
        raise ValueError("startIndex cannot be larger than length of string.")
    return owner[start:] if length is None else owner[start : start + length]


def _split(owner: str, *by: Any) -> list[str]:
    signs = [sign for each in by for sign in (each if is_list(each) else [each])]
    if len(signs) != 1 or len(signs[0]) != 1:
        raise NotKnown(f"Split by {by!r}: of several characters .NET Framework makes several separators")
    return owner.split(signs[0])


def _put_key(owner: CaseDict, key: str, item: Any) -> Any:
    if key in owner:
        raise ValueError(f"Item has already been added. Key in dictionary: '{key}'")
    owner[key] = item
    return NOTHING


def _remove_key(owner: CaseDict, key: str) -> Any:
    owner.pop(key, None)
    return NOTHING


def _extended(owner: list[Any], items: Any) -> Any:
    owner.extend(items)
    return NOTHING


def _guid_text(owner: Any, form: str = "D") -> str:
    if isinstance(owner, UUID):
        return {"D": str(owner), "N": owner.hex, "B": f"{{{owner}}}"}[form.upper()]
    if isinstance(owner, int | float) and form.upper() in ("D", "X", "G"):
        return f"{int(owner):X}" if form.upper() == "X" else str(owner)
    if isinstance(owner, datetime) and form in ("o", "s"):
        return owner.strftime("%Y-%m-%dT%H:%M:%S") + (f".{owner.microsecond:06d}0Z" if form == "o" else "")
    raise NotKnown(f"ToString({form!r}) of {type_of(owner)}")


_DICTIONARY: dict[str, Callable[..., Any]] = {
    "containskey": lambda owner, key: key in owner,
    "contains": lambda owner, key: key in owner,
    "add": _put_key,
    "remove": _remove_key,
}
_LIST: dict[str, Callable[..., Any]] = {
    "add": _add,
    "addrange": _extended,
    "toarray": list,
    "contains": lambda owner, item: any(equal(each, item, ignore_case=False) for each in owner),
}
_STRING: dict[str, Callable[..., Any]] = {
    "toupper": str.upper,
    "toupperinvariant": str.upper,
    "tolower": str.lower,
    "tolowerinvariant": str.lower,
    "trim": lambda owner, *signs: owner.strip("".join(signs) or None),
    "trimend": lambda owner, *signs: owner.rstrip("".join(signs) or None),
    "trimstart": lambda owner, *signs: owner.lstrip("".join(signs) or None),
    "startswith": lambda owner, start, *_mode: owner.startswith(start),
    "endswith": lambda owner, end, *_mode: owner.endswith(end),
    "contains": lambda owner, part: part in owner,
    "indexof": lambda owner, part, *_mode: owner.find(part),
    "replace": lambda owner, old, new: owner.replace(old, new),
    "substring": _substring,
    "split": _split,
    "padleft": lambda owner, width, sign=" ": owner.rjust(width, sign),
    "tochararray": list,
    "getenumerator": list,
}
_OTHER: dict[str, Callable[..., Any]] = {
    "tostring": _guid_text,
    "addminutes": lambda owner, minutes: owner + timedelta(minutes=minutes),
    "adddays": lambda owner, days: owner + timedelta(days=days),
    "addseconds": lambda owner, seconds: owner + timedelta(seconds=seconds),
    "addmilliseconds": lambda owner, figure: owner + timedelta(milliseconds=figure),
    "touniversaltime": lambda owner: owner,
}
