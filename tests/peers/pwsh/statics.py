"""Static members: [Convert]::FromBase64String and the few others that scripts use."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.peers.pwsh.convert import from_base64, text
from tests.peers.pwsh.raising import in_method
from tests.peers.pwsh.syntax import BadSyntax, parsed
from tests.peers.pwsh.unknown import NotKnown
from tests.peers.pwsh.values import (
    NOTHING,
    Credential,
    Net,
    NetException,
    ScriptBlock,
    Secure,
    TypeName,
)

if TYPE_CHECKING:
    from tests.peers.pwsh.engine import Engine


class Encoding(Net):
    """A text encoding."""

    def __init__(self, codec: str) -> None:
        super().__init__("System.Text.UTF8Encoding", {"WebName": codec})
        self.codec = codec

    def methods(self) -> dict[str, Any]:
        return {
            "getstring": lambda raw: bytes(raw).decode(self.codec, "replace"),
            "getbytes": lambda words: words.encode(self.codec, "replace"),
        }


class Writer(Net):
    """[Console]::Out."""

    def __init__(self, sink: list[str]) -> None:
        super().__init__("System.IO.TextWriter", {})
        self.sink = sink

    def methods(self) -> dict[str, Any]:
        return {"writeline": self._line}

    def _line(self, words: Any) -> Any:
        self.sink.append(f"{text(words)}\r\n")
        return NOTHING


def short(owner: Any) -> str:
    if not isinstance(owner, TypeName):
        raise NotKnown(f"a static member of {owner!r}")
    return owner.short


def value(engine: Engine, owner: Any, name: str) -> Any:
    """[type]::name."""
    kind, wanted = short(owner), name.lower()
    known: dict[tuple[str, str], Callable[[], Any]] = {
        ("text.encoding", "utf8"): lambda: Encoding("utf-8"),
        ("console", "out"): lambda: Writer(engine.stdout),
    }
    if (kind, wanted) in known:
        return known[kind, wanted]()
    if kind == "stringcomparison":
        return text(name)
    raise NotKnown(f"[{owner.name}]::{name}")


def call(owner: Any, name: str, arguments: list[Any]) -> Any:
    """[type]::name(arguments)."""
    kind, wanted = short(owner), name.lower()
    method = METHODS.get((kind, wanted))
    if method is None:
        raise NotKnown(f"[{owner.name}]::{name}()")
    try:
        return method(*arguments)
    except (binascii.Error, ValueError) as error:
        raise in_method(name, NetException("System.FormatException", str(error), -2146233033)) from None
    except BadSyntax as error:
        raise in_method(
            name, NetException("System.Management.Automation.ParseException", str(error))
        ) from None


def _same(a: Any, b: Any, mode: Any = "Ordinal") -> bool:
    if text(mode) not in ("Ordinal", "OrdinalIgnoreCase"):
        raise NotKnown(f"[string]::Equals with {text(mode)}")
    if a is None or b is None:
        return a is b
    return bool(a.upper() == b.upper() if "Ignore" in text(mode) else a == b)


METHODS: dict[tuple[str, str], Callable[..., Any]] = {
    ("convert", "frombase64string"): from_base64,
    ("convert", "tobase64string"): lambda raw: base64.b64encode(bytes(raw)).decode(),
    ("string", "equals"): _same,
    ("string", "join"): lambda by, items: by.join(map(text, items)),
    ("scriptblock", "create"): lambda source: ScriptBlock(parsed(source)),
}


def new(name: TypeName, arguments: list[Any]) -> Any:
    """What New-Object makes."""
    kind = name.short
    if kind == "management.automation.pscredential" and len(arguments) == 2:
        return _credential(*arguments)
    if kind == "security.securestring" and not arguments:
        return Secure("")
    raise NotKnown(f"New-Object {name.name} of {len(arguments)} arguments")


def _credential(user: Any, password: Any) -> Credential:
    if not isinstance(password, Secure) or not user:
        message = "Cannot process argument because the value of an argument is not valid."
        raise in_method(".ctor", NetException("System.ArgumentException", message))
    return Credential(text(user), password)
