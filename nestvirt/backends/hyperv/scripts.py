"""What is sent to a host's PowerShell: static scripts, and in front of them the data, as base64 of JSON.

No value is ever part of a script's text, so that a VM's name is a name whatever it holds.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

PROGRAM = "powershell.exe"

COMMAND_LINE = 32766
"""Characters of a command line without cmd.exe: CreateProcess takes 32767, and the last one ends it
(https://learn.microsoft.com/en-us/windows/win32/api/processthreadsapi/nf-processthreadsapi-createprocessw)."""

ALONGSIDE: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("find", "read", "apply", "power", "list"), ("vm",)),
    "direct": ("guest_reading",),
}
"""What a phase is sent with: functions that several of them use."""

_OPTIONS = ("-NoProfile", "-NonInteractive", "-EncodedCommand")
_DATA = "$nestvirtData = '"
_GIVEN = re.compile(re.escape(_DATA) + "([A-Za-z0-9+/=]+)'")


@dataclass(frozen=True)
class Invocation:
    """One start of PowerShell.

    Attributes:
        arguments: of its command line; they hold no secret.
        stdin: what it reads; None where it reads nothing.
    """

    arguments: tuple[str, ...]
    stdin: bytes | None = None

    @property
    def length(self) -> int:
        """Characters of the command line."""
        return len(" ".join((PROGRAM, *self.arguments)))


def invocation(phase: str, data: Mapping[str, Any], secret: Mapping[str, str] | None = None) -> Invocation:
    """How to run a phase.

    Args:
        phase: the name of a script, without its ending.
        data: what it is given; anything that JSON can hold.
        secret: what it is given beside, out of sight: it never is on the command line, nor in the script.
    """
    if not secret:
        short = _encoded(f"{_DATA}{_packed(data)}'\n{_around(phase)}")
        if short.length <= COMMAND_LINE:
            return short
        lines = [_packed(data), "-", _around(phase)]
    else:
        pairs = " ".join(f"{name}:{_base64(value.encode())}" for name, value in secret.items())
        lines = [_packed({**data, "secret": None}), pairs, _around(phase, "secrets")]
    # The end of the last line makes sure that it is read as one.
    stdin = ("\n".join(lines) + "\n").encode("ascii")
    return Invocation(_encoded(text("bootstrap")).arguments, stdin)


def given(line: str) -> dict[str, Any]:
    """What a script was given that goes by its command line; nothing where that is none of ours."""
    encoded = line.strip(' "').rpartition(" ")[2]
    try:
        script = base64.b64decode(encoded, validate=True).decode("utf-16-le")
        found = _GIVEN.match(script)
        data = json.loads(base64.b64decode(found[1])) if found else {}
    except (binascii.Error, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


@cache
def text(name: str) -> str:
    """A script as it is sent: without comment lines and indentation, for which a command line has no room."""
    file = resources.files("nestvirt.backends.hyperv") / "scripts" / f"{name}.ps1"
    lines = (line.strip() for line in file.read_text(encoding="ascii").splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("#"))


def _around(phase: str, *more: str) -> str:
    names = ("prelude", *more, *ALONGSIDE.get(phase, ()), phase, "epilogue")
    return "\n".join(text(name) for name in names)


def _encoded(script: str) -> Invocation:
    return Invocation((*_OPTIONS, _base64(script.encode("utf-16-le"))))


def _packed(data: Mapping[str, Any]) -> str:
    return _base64(json.dumps(data, allow_nan=False).encode())


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


MARK = _base64(_DATA[:12].encode("utf-16-le"))
"""How the encoded command of each script begins that goes by the command line."""
