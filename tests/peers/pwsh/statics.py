"""Static members: [Convert]::FromBase64String and the few others that scripts use."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from tests.peers.pwsh.convert import ENUMS, cast, enumeration, from_base64, number, text
from tests.peers.pwsh.raising import in_method
from tests.peers.pwsh.syntax import BadSyntax, parsed
from tests.peers.pwsh.unknown import NotKnown
from tests.peers.pwsh.values import (
    NOTHING,
    Credential,
    ErrorRecord,
    Hashtable,
    Net,
    NetException,
    ScriptBlock,
    Secure,
    TypeName,
    Variables,
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
        return {
            "write": lambda words: self._add(text(words)),
            "writeline": lambda words="": self._add(text(words) + "\r\n"),
            "flush": lambda: NOTHING,
        }

    def _add(self, words: str) -> Any:
        self.sink.append(words)
        return NOTHING


class Reader(Net):
    """[Console]::In, and a StreamReader on the standard input: both at one end."""

    def __init__(self, engine: Engine, encoding: str = "utf-8-sig") -> None:
        super().__init__("System.IO.StreamReader", {})
        self.engine, self.encoding = engine, encoding

    def methods(self) -> dict[str, Any]:
        return {
            "readtoend": self._all,
            "readline": self._line,
            "dispose": lambda: NOTHING,
            "close": lambda: NOTHING,
        }

    def _all(self) -> str:
        raw, self.engine.stdin = self.engine.stdin, b""
        return raw.decode(self.encoding, "replace")

    def _line(self) -> str | None:
        if not self.engine.stdin:
            return None
        line, _end, self.engine.stdin = self.engine.stdin.partition(b"\n")
        return line.decode(self.encoding, "replace").rstrip("\r")


def short(owner: Any) -> str:
    if not isinstance(owner, TypeName):
        raise NotKnown(f"a static member of {owner!r}")
    return owner.short


def value(engine: Engine, owner: Any, name: str) -> Any:
    """[type]::name."""
    kind, wanted = short(owner), name.lower()
    known: dict[tuple[str, str], Callable[[], Any]] = {
        ("text.encoding", "utf8"): lambda: Encoding("utf-8"),
        ("text.encoding", "unicode"): lambda: Encoding("utf-16-le"),
        ("text.encoding", "ascii"): lambda: Encoding("ascii"),
        ("console", "out"): lambda: Writer(engine.stdout),
        ("console", "error"): lambda: Writer(engine.stderr),
        ("console", "in"): lambda: Reader(engine),
        ("datetime", "utcnow"): lambda: datetime.now(UTC),
        ("datetime", "now"): lambda: datetime.now(UTC),
        ("string", "empty"): lambda: "",
        ("guid", "empty"): lambda: UUID(int=0),
        ("environment", "machinename"): lambda: engine.environment["COMPUTERNAME"],
        ("environment", "newline"): lambda: "\r\n",
        ("int32", "maxvalue"): lambda: 2**31 - 1,
        ("int64", "maxvalue"): lambda: 2**63 - 1,
        ("timespan", "zero"): lambda: timedelta(),
    }
    if (kind, wanted) in known:
        return known[kind, wanted]()
    if kind == "stringcomparison":
        return text(name)
    full = next((each for each in ENUMS if each.lower().removeprefix("system.") == kind), None)
    if full is not None:
        return enumeration(full, name)
    raise NotKnown(f"[{owner.name}]::{name}")


def call(engine: Engine, owner: Any, name: str, arguments: list[Any], _scope: Variables) -> Any:
    """[type]::name(arguments)."""
    kind, wanted = short(owner), name.lower()
    if wanted == "new":
        return new(engine, owner, arguments)
    method = METHODS.get((kind, wanted))
    if method is None:
        raise NotKnown(f"[{owner.name}]::{name}()")
    try:
        return method(engine, *arguments)
    except (binascii.Error, ValueError) as error:
        raise in_method(name, NetException("System.FormatException", str(error), -2146233033)) from None
    except BadSyntax as error:
        raise in_method(
            name, NetException("System.Management.Automation.ParseException", str(error))
        ) from None


def _block(_engine: Engine, source: str) -> ScriptBlock:
    return ScriptBlock(parsed(source))


def _same(_engine: Engine, a: Any, b: Any, mode: Any = "Ordinal") -> bool:
    if text(mode) not in ("Ordinal", "OrdinalIgnoreCase"):
        raise NotKnown(f"[string]::Equals with {text(mode)}")
    if a is None or b is None:
        return a is b
    return bool(a.upper() == b.upper() if "Ignore" in text(mode) else a == b)


METHODS: dict[tuple[str, str], Callable[..., Any]] = {
    ("convert", "frombase64string"): lambda _engine, words: from_base64(words),
    ("convert", "tobase64string"): lambda _engine, raw: base64.b64encode(bytes(raw)).decode(),
    ("string", "isnullorempty"): lambda _engine, words: not words,
    ("string", "isnullorwhitespace"): lambda _engine, words: not (words or "").strip(),
    ("string", "equals"): _same,
    ("string", "join"): lambda _engine, by, items: by.join(text(item) for item in items),
    ("math", "max"): lambda _engine, a, b: max(a, b),
    ("math", "min"): lambda _engine, a, b: min(a, b),
    ("math", "round"): lambda _engine, a, digits=0: round(a, digits),
    ("math", "floor"): lambda _engine, a: a // 1,
    ("guid", "newguid"): lambda _engine: uuid4(),
    ("guid", "parse"): lambda _engine, words: UUID(words),
    ("scriptblock", "create"): _block,
    ("timespan", "fromseconds"): lambda _engine, figure: timedelta(seconds=float(number(figure))),
    ("console", "openstandardinput"): lambda _engine: Net("System.IO.Stream", {}),
    ("console", "writeline"): lambda engine, words="": engine.stdout.append(text(words) + "\r\n") or NOTHING,
    ("console", "write"): lambda engine, words: engine.stdout.append(text(words)) or NOTHING,
    ("object", "referenceequals"): lambda _engine, a, b: a is b,
}


def new(engine: Engine, owner: TypeName, arguments: list[Any]) -> Any:
    """[type]::new(arguments), and New-Object."""
    kind = owner.short
    if kind.startswith(("collections.generic.list[", "collections.arraylist")):
        return list(arguments[0]) if arguments and isinstance(arguments[0], list) else []
    if kind in ("hashtable", "collections.hashtable"):
        return Hashtable()
    if kind == "io.streamreader":
        return Reader(engine, arguments[1].codec if len(arguments) > 1 else "utf-8-sig")
    if kind in ("text.utf8encoding", "text.unicodeencoding"):
        return Encoding("utf-8" if "utf8" in kind else "utf-16-le")
    if kind in ("management.automation.pscredential", "pscredential"):
        return _credential(arguments)
    if kind in ("management.automation.errorrecord",):
        return _record(arguments)
    if kind == "security.securestring":
        return Secure("")
    if kind == "version":
        return cast(owner, text(arguments[0]) if len(arguments) == 1 else ".".join(map(text, arguments)))
    if kind == "timespan":
        return timedelta(hours=arguments[0], minutes=arguments[1], seconds=arguments[2])
    if kind.endswith("exception") and len(arguments) <= 2:
        full = owner.name if "." in owner.name else f"System.{owner.name}"
        return NetException(
            full, text(arguments[0]) if arguments else f"Exception of type '{full}' was thrown."
        )
    raise NotKnown(f"[{owner.name}]::new({', '.join(map(repr, arguments))})")


def _credential(arguments: list[Any]) -> Credential:
    user, password = arguments
    if not isinstance(password, Secure) or not user:
        raise in_method(
            ".ctor", NetException("System.ArgumentException", 'Cannot process argument "userName".')
        )
    return Credential(text(user), password)


def _record(arguments: list[Any]) -> ErrorRecord:
    exception, error_id, category, target = arguments
    if not isinstance(exception, NetException):
        raise in_method(".ctor", NetException("System.ArgumentException", "no exception"))
    return ErrorRecord(exception, text(error_id), text(category), target)
