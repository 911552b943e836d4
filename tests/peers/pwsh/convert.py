"""PowerShell's conversions: to text, to truth, to numbers, to what a cast names."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from tests.peers.pwsh.raising import bad_conversion
from tests.peers.pwsh.unknown import NotKnown
from tests.peers.pwsh.values import (
    NOTHING,
    CaseDict,
    EnumValue,
    ErrorRecord,
    Hashtable,
    Net,
    PsObject,
    ScriptBlock,
    Secure,
    TypeName,
    Wrapped,
)

RANGES = {
    "byte": (0, 2**8 - 1),
    "int16": (-(2**15), 2**15 - 1),
    "uint16": (0, 2**16 - 1),
    "int32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint64": (0, 2**64 - 1),
}
ALIASES = {"int": "int32", "long": "int64", "short": "int16", "uint": "uint32", "ulong": "uint64"}
UNITS = {"kb": 2**10, "mb": 2**20, "gb": 2**30, "tb": 2**40, "pb": 2**50}
ENUMS: dict[str, dict[str, int]] = {}
"""Enumerations that a text can be cast to, by full name."""


def is_list(value: Any) -> bool:
    return isinstance(value, list)


def type_of(value: Any) -> str:
    """The full name of a value's .NET type."""
    if isinstance(value, bool):
        return "System.Boolean"
    if isinstance(value, int):
        low, high = RANGES["int32"]
        return (
            "System.Int32"
            if low <= value <= high
            else "System.Int64"
            if value <= RANGES["int64"][1]
            else "System.UInt64"
        )
    if isinstance(value, Net | Hashtable | PsObject | EnumValue):
        return value.type_name
    for kind, name in TYPES:
        if isinstance(value, kind):
            return name
    raise NotKnown(f"the type of {value!r}")


TYPES: tuple[tuple[type, str], ...] = (
    (str, "System.String"),
    (float, "System.Double"),
    (UUID, "System.Guid"),
    (datetime, "System.DateTime"),
    (timedelta, "System.TimeSpan"),
    (list, "System.Object[]"),
    (bytes, "System.Byte[]"),
    (ScriptBlock, "System.Management.Automation.ScriptBlock"),
    (Secure, "System.Security.SecureString"),
    (TypeName, "System.RuntimeType"),
    (CaseDict, "System.Collections.Hashtable"),
)


def text(value: Any) -> str:
    """What [string] makes of a value."""
    if value is None or value is NOTHING:
        return ""
    if isinstance(value, bool):
        return "True" if value else "False"
    if isinstance(value, list | bytes):
        return " ".join(text(item) for item in value)
    if isinstance(value, PsObject):
        return "@{" + "; ".join(f"{key}={text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Net):
        return value.text
    if isinstance(value, datetime):
        return value.strftime("%m/%d/%Y %H:%M:%S")
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if isinstance(value, Hashtable | Secure | TypeName):
        return value.name if isinstance(value, TypeName) else type_of(value)
    return str(value)


def truth(value: Any) -> bool:
    if value is None or value is NOTHING:
        return False
    if isinstance(value, list):
        return bool(value) and (len(value) > 1 or truth(value[0]))
    if isinstance(value, bool | int | float | str):
        return bool(value)
    return value.number != 0 if isinstance(value, EnumValue) else True


def number(value: Any, to: str = "System.Int32") -> int | float:
    """A value as a number; an empty text and $null are 0."""
    if value is None or value is NOTHING:
        return 0
    if isinstance(value, bool | int | float):
        return value if isinstance(value, int | float) and not isinstance(value, bool) else int(value)
    if isinstance(value, EnumValue):
        return value.number
    if isinstance(value, str):
        return _parsed(value, to)
    raise bad_conversion(text(value), to)


def _parsed(value: str, to: str) -> int | float:
    stripped = value.strip()
    if not stripped:
        return 0
    found = re.fullmatch(r"([+-]?)(0x[0-9a-f]+|\d+|\d*\.\d+(?:e[+-]?\d+)?)(l?)([kmgtp]b)?", stripped.lower())
    if not found:
        raise bad_conversion(value, to, "Input string was not in a correct format.")
    digits = found[2]
    size: int | float = float(digits) if "." in digits else int(digits, 16 if "x" in digits else 10)
    size = size * UNITS.get(found[4] or "", 1)
    return -size if found[1] == "-" else size


def whole(value: Any, kind: str) -> int:
    """A value as a whole number of a .NET type, rounded as .NET does, refused where it does not fit."""
    low, high = RANGES[kind]
    figure = round(number(value, f"System.{kind.capitalize()}"))
    if not low <= figure <= high:
        why = f"Value was either too large or too small for an {kind.capitalize()}."
        raise bad_conversion(text(value), f"System.{kind.capitalize()}", why)
    return figure


def cast(name: TypeName, value: Any) -> Any:
    """[name] value. ``ordered`` and ``void`` are the syntax's own and are not handled here."""
    short = ALIASES.get(name.short, name.short)
    if short.endswith("[]"):
        return _array(TypeName(short[:-2]), value)
    value = None if value is NOTHING else value
    if short in RANGES:
        return whole(value, short)
    if short in CASTS:
        return CASTS[short](value)
    enum = next((full for full in ENUMS if full.lower().removeprefix("system.") == short), None)
    enum = enum or next((full for full in ENUMS if full.lower().rpartition(".")[2] == short), None)
    if enum:
        return enumeration(enum, value)
    raise NotKnown(f"a cast to [{name.name}]")


def enumeration(full: str, value: Any) -> EnumValue:
    members = ENUMS[full]
    if isinstance(value, EnumValue) and value.type_name == full:
        return value
    for member, figure in members.items():
        if (isinstance(value, str) and value.lower() == member.lower()) or value is figure:
            return EnumValue(full, member, figure)
    raise bad_conversion(text(value), full)


def _array(inner: TypeName, value: Any) -> Any:
    if value is None:
        return None
    if inner.short == "byte" and isinstance(value, bytes):
        return value
    items = value if isinstance(value, list) else [] if value is NOTHING else [value]
    if inner.short == "char" and isinstance(value, str):
        return list(value)
    made = [item if inner.short == "object" else cast(inner, item) for item in items]
    return bytes(made) if inner.short == "byte" else made


def _guid(value: Any) -> UUID:
    if isinstance(value, UUID):
        return value
    try:
        return UUID(text(value))
    except ValueError:
        raise bad_conversion(text(value), "System.Guid") from None


def _pscustomobject(value: Any) -> Any:
    return PsObject(dict(value)) if isinstance(value, Hashtable) else value


def _double(value: Any) -> float:
    return float(number(value, "System.Double"))


def _hashtable(value: Any) -> Any:
    if value is None or isinstance(value, Hashtable):
        return value
    raise bad_conversion(text(value), "System.Collections.Hashtable")


def _version(value: Any) -> Any:
    if isinstance(value, Net) and value.type_name == "System.Version":
        return value
    try:
        return version(text(value))
    except ValueError:
        raise bad_conversion(text(value), "System.Version") from None


def version(dotted: str) -> Net:
    """A System.Version."""
    if not re.fullmatch(r"\d+(\.\d+){1,3}", dotted):
        raise ValueError(dotted)
    parts = [*map(int, dotted.split("."))]
    figures = dict(zip(("Major", "Minor", "Build", "Revision"), [*parts, -1, -1], strict=False))
    return Net("System.Version", figures, dotted)


def _secure(value: Any) -> Any:
    if value is None or isinstance(value, Secure):
        return value
    raise bad_conversion(text(value), "System.Security.SecureString")


def _script(value: Any) -> Any:
    if value is None or isinstance(value, ScriptBlock):
        return value
    raise NotKnown("a cast to [scriptblock]: use [scriptblock]::Create")


def _credential(value: Any) -> Any:
    if value is None or type_of(value).endswith("PSCredential"):
        return value
    raise bad_conversion(text(value), "System.Management.Automation.PSCredential")


CASTS: Mapping[str, Callable[[Any], Any]] = {
    "string": text,
    "bool": truth,
    "boolean": truth,
    "switch": truth,
    "double": _double,
    "guid": _guid,
    "array": lambda value: _array(TypeName("object"), value),
    "object": lambda value: value,
    "psobject": lambda value: value,
    "pscustomobject": _pscustomobject,
    "management.automation.psobject": lambda value: value,
    "hashtable": _hashtable,
    "collections.hashtable": _hashtable,
    "collections.idictionary": _hashtable,
    "version": _version,
    "security.securestring": _secure,
    "securestring": _secure,
    "scriptblock": _script,
    "pscredential": _credential,
    "management.automation.pscredential": _credential,
}


def unrolled(value: Any) -> list[Any]:
    """What a value is when it is written to a pipeline: one object, many, or none."""
    if value is NOTHING:
        return []
    if isinstance(value, list):
        return list(value)
    return list(value) if isinstance(value, bytes) else [value]


def collapsed(items: list[Any]) -> Any:
    """What a variable gets of a pipeline's output."""
    if not items:
        return NOTHING
    if len(items) > 1:
        return list(items)
    only = items[0]
    return Wrapped(only) if isinstance(only, list) else only


def from_base64(value: str) -> bytes:
    """Strict as .NET's, which only forgives white space."""
    return base64.b64decode(re.sub(r"[ \t\r\n]", "", value), validate=True)


def described(record: ErrorRecord) -> str:
    return f"{record.exception.message} [{record.id}]"
