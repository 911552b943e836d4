"""The operators on values: comparison with the left side's mind, arithmetic, -f, -join and the others."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from datetime import datetime, timedelta
from fnmatch import translate
from typing import Any
from uuid import UUID

from tests.peers.pwsh.convert import ENUMS, cast, enumeration, is_list, number, text, truth, type_of
from tests.peers.pwsh.raising import Raised, failure
from tests.peers.pwsh.unknown import NotKnown
from tests.peers.pwsh.values import NOTHING, EnumValue, Hashtable, Net, PsObject, TypeName

IGNORED = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")


def folded(value: str, ignore_case: bool = True) -> str:
    """By what Windows PowerShell compares texts: it sees no soft hyphen, and composed is decomposed."""
    seen = IGNORED.sub("", unicodedata.normalize("NFD", value))
    return seen.casefold() if ignore_case else seen


def equal(left: Any, right: Any, ignore_case: bool = True) -> bool:
    left, right = (None if side is NOTHING else side for side in (left, right))
    if left is None or right is None:
        return left is right
    if isinstance(left, str):
        return folded(left, ignore_case) == folded(text(right), ignore_case)
    if isinstance(left, bool):
        return left == truth(right)
    if isinstance(left, int | float | UUID | EnumValue):
        return _equal_after_conversion(left, right)
    if isinstance(left, Net) and left.type_name == "System.Version":
        return parts_of(left) == parts_of(cast(TypeName("version"), right))
    if isinstance(left, datetime | timedelta):
        return bool(left == right)
    return left is right


def _equal_after_conversion(left: Any, right: Any) -> bool:
    try:
        if isinstance(left, UUID):
            return bool(left == cast(TypeName("guid"), right))
        if isinstance(left, EnumValue):
            known = left.type_name in ENUMS
            if isinstance(right, str) and not known:
                return left.name.lower() == right.lower()
            return left == enumeration(left.type_name, right) if known else left.number == number(right)
        return bool(left == number(right))
    except Raised:
        return False


def parts_of(version: Any) -> tuple[int, ...]:
    return tuple(version.properties[part] for part in ("Major", "Minor", "Build", "Revision"))


def order(left: Any, right: Any) -> int:
    """-1, 0 or 1, by the left side's type."""
    if isinstance(left, str):
        a, b = folded(left), folded(text(right))
        return (a > b) - (a < b)
    if isinstance(left, Net) and left.type_name == "System.Version":
        mine, other = parts_of(left), parts_of(cast(TypeName("version"), right))
        return int(mine > other) - int(mine < other)
    if isinstance(left, datetime | timedelta):
        return int(left > right) - int(left < right)
    x, y = number(left), number(right)
    return (x > y) - (x < y)


def wildcard(pattern: str, value: str) -> bool:
    """-like: * ? [..], and a backtick that takes their meaning away."""
    plain = re.sub(r"`([*?\[\]])", lambda found: f"[{found[1]}]" if found[1] != "]" else "]", pattern)
    return re.match(translate(plain), value, re.IGNORECASE | re.DOTALL) is not None


def is_wildcard(pattern: str) -> bool:
    return re.search(r"(?<!`)[*?\[]", pattern) is not None


def _filtered(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], Any]:
    """A comparison whose left side, where it is a list, is filtered by it."""

    def compared(left: Any, right: Any) -> Any:
        return [item for item in left if test(item, right)] if is_list(left) else test(left, right)

    return compared


def _is(value: Any, name: TypeName) -> bool:
    short = name.short
    if value is None or value is NOTHING:
        return False
    full = type_of(value)
    if short in ("psobject", "pscustomobject"):
        return isinstance(value, PsObject)
    if short in ("array", "collections.ienumerable", "collections.ilist"):
        return is_list(value) or isinstance(value, bytes)
    if short in ("hashtable", "collections.idictionary"):
        return isinstance(value, Hashtable)
    names = {"int": "int32", "long": "int64", "bool": "boolean"}
    known = [full, *getattr(value, "bases", ())]
    if full.endswith("Exception"):
        known.append("System.Exception")
    return names.get(short, short) in [entry.lower().removeprefix("system.") for entry in known] or (
        short in ("object", "valuetype") and not isinstance(value, str)
    )


def _as(value: Any, name: TypeName) -> Any:
    try:
        return cast(name, value)
    except Raised:
        return None


def regex(pattern: str) -> str:
    return (
        pattern.replace("\\z", "\\Z").replace("(?<", "(?P<").replace("(?P<=", "(?<=").replace("(?P<!", "(?<!")
    )


def _contains(left: Any, right: Any) -> bool:
    return any(equal(item, right) for item in (left if is_list(left) else [left]))


COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": _filtered(equal),
    "ne": _filtered(lambda a, b: not equal(a, b)),
    "ceq": _filtered(lambda a, b: equal(a, b, ignore_case=False)),
    "cne": _filtered(lambda a, b: not equal(a, b, ignore_case=False)),
    "gt": _filtered(lambda a, b: order(a, b) > 0),
    "ge": _filtered(lambda a, b: order(a, b) >= 0),
    "lt": _filtered(lambda a, b: order(a, b) < 0),
    "le": _filtered(lambda a, b: order(a, b) <= 0),
    "like": _filtered(lambda a, b: wildcard(text(b), text(a))),
    "notlike": _filtered(lambda a, b: not wildcard(text(b), text(a))),
    "contains": _contains,
    "notcontains": lambda a, b: not _contains(a, b),
    "in": lambda a, b: _contains(b, a),
    "notin": lambda a, b: not _contains(b, a),
    "is": _is,
    "isnot": lambda a, b: not _is(a, b),
    "as": _as,
}


def formatted(left: Any, right: Any) -> str:
    """-f with {0} and the like, without formats of their own."""
    values = right if is_list(right) else [right]

    def one(found: re.Match[str]) -> str:
        if found[0] in ("{{", "}}"):
            return found[0][0]
        if not found[0][1:-1].isdigit():
            raise NotKnown(f"the format {found[0]}")
        if int(found[0][1:-1]) >= len(values):
            raise failure("FormatError", "Error formatting a string: the index is too large.")
        return text(values[int(found[0][1:-1])])

    return re.sub(r"\{\{|\}\}|\{[^{}]*\}", one, text(left))


def _plus(left: Any, right: Any) -> Any:
    if left is None or left is NOTHING:
        return None if right is NOTHING else right
    if is_list(left):
        return [*left, *(right if is_list(right) else [] if right is NOTHING else [right])]
    if isinstance(left, Hashtable):
        return Hashtable({**left, **right})
    if isinstance(left, str):
        return left + text(right)
    if isinstance(left, datetime | timedelta):
        return left + right
    return number(left) + number(right)


def _divided(left: Any, right: Any) -> int | float:
    a, b = number(left), number(right)
    if b == 0:
        raise failure("RuntimeException", "Attempted to divide by zero.", "NotSpecified")
    whole = a / b
    return int(whole) if isinstance(a, int) and isinstance(b, int) and a % b == 0 else whole


def _times(left: Any, right: Any) -> Any:
    return left * int(number(right)) if isinstance(left, str | list) else number(left) * number(right)


def _minus(left: Any, right: Any) -> Any:
    return left - right if isinstance(left, datetime | timedelta) else number(left) - number(right)


ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": _plus,
    "-": _minus,
    "*": _times,
    "/": _divided,
    "%": lambda a, b: number(a) % number(b),
}
