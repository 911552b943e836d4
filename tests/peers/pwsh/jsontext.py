"""ConvertTo-Json and ConvertFrom-Json as Windows PowerShell 5.1 has them."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from tests.peers.pwsh.convert import text, type_of
from tests.peers.pwsh.raising import failure
from tests.peers.pwsh.unknown import NotKnown
from tests.peers.pwsh.values import NOTHING, EnumValue, Hashtable, Net, PsObject, ScriptBlock, Secure, Wrapped

ESCAPED = str.maketrans({sign: f"\\u{ord(sign):04x}" for sign in "<>&'\u0085\u2028\u2029"})
DATE = re.compile(r'"\\/Date\((-?\d{1,15})\)\\/"')
"""A text that becomes a date: by its slashes, which nobody needs to escape."""
MARK = "\ue000date:"


def to_json(value: Any, depth: int) -> str:
    """A value as compressed JSON; what lies deeper than asked for is its text, without a word."""
    plain = _plain(value, depth, 0)
    return json.dumps(plain, separators=(",", ":"), ensure_ascii=False).translate(ESCAPED)


def _plain(value: Any, depth: int, at: int) -> Any:
    if value is NOTHING:
        return {}  # as 5.1 has it: what a pipeline without output left is an object without properties
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, EnumValue):
        return value.number
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        return f"/Date({int(value.timestamp() * 1000)})/"
    if at > depth:
        return text(value)
    return _structure(value, depth, at)


def _structure(value: Any, depth: int, at: int) -> Any:
    if isinstance(value, Wrapped):
        return {"value": [_plain(item, depth, at + 1) for item in value], "Count": len(value)}
    if isinstance(value, list | bytes):
        return [_plain(item, depth, at + 1) for item in value]
    if isinstance(value, Hashtable | PsObject):
        return {text(key): _plain(item, depth, at + 1) for key, item in value.items()}
    if isinstance(value, Net):
        return {key: _plain(item, depth, at + 1) for key, item in value.properties.items()}
    if isinstance(value, ScriptBlock | Secure):
        raise NotKnown(f"{type_of(value)} in ConvertTo-Json")
    raise NotKnown(f"{value!r} in ConvertTo-Json")


def from_json(source: str) -> Any:
    """JSON as objects; an array comes as one object, as 5.1 has it."""
    try:
        marked = DATE.sub(rf'"{MARK}\1"', source)
        return _object(json.loads(marked, object_pairs_hook=_pairs))
    except (ValueError, RecursionError) as error:
        full = "System.ArgumentException"
        raise failure(
            f"{full},Microsoft.PowerShell.Commands.ConvertFromJsonCommand", str(error), "NotSpecified", full
        ) from None


def _pairs(pairs: list[tuple[str, Any]]) -> Any:
    made = PsObject()
    for key, item in pairs:
        if not key or (key in made and key not in list(made)):
            raise ValueError(f"Cannot convert the JSON string because it contains the key {key!r}")
        made[key] = item
    return made


def _object(value: Any) -> Any:
    if isinstance(value, str):
        dated = value.startswith(MARK)
        return datetime.fromtimestamp(int(value[len(MARK) :]) / 1000, UTC) if dated else value
    if isinstance(value, list):
        return [_object(item) for item in value]
    if isinstance(value, PsObject):
        return PsObject({key: _object(item) for key, item in value.items()})
    return value
