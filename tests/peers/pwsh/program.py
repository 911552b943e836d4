"""powershell.exe: a command line and a standard input, an output and an exit code."""

from __future__ import annotations

import base64
import binascii
import threading
import time
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

from tests.peers.pwsh import expressions, objects, pipelines, statements
from tests.peers.pwsh.cmdlet import CMDLETS
from tests.peers.pwsh.convert import text
from tests.peers.pwsh.engine import Engine
from tests.peers.pwsh.raising import Exit, Raised
from tests.peers.pwsh.syntax import BadSyntax
from tests.peers.pwsh.unknown import NotKnown
from tests.peers.pwsh.values import Net
from tests.peers.winrm.command import Invocation, Result

REGISTERED = (expressions, objects, pipelines, statements)
"""Modules that are imported for what they register."""

CLIXML = (
    '#< CLIXML\r\n<Objs Version="1.1.0.1" xmlns="http://schemas.microsoft.com/powershell/2004/04">{}</Objs>'
)


class PowerShell:
    """The powershell.exe of a machine: one script at a time acts on it, and others while that one sleeps.

    Args:
        machine: what the cmdlets act on; has ``has_module(name)``.
        environment: $env:.

    Attributes:
        unknown: what scripts used that this PowerShell does not know; a test ends by seeing that it is empty.
        scripts: every script that it was given to run.
    """

    def __init__(self, machine: Any = None, environment: Mapping[str, str] | None = None) -> None:
        self.machine = machine
        self.environment = {"COMPUTERNAME": "HYPERV01", **(environment or {})}
        self.unknown: list[str] = []
        self.scripts: list[str] = []
        self._turn = threading.Lock()

    def __call__(self, invocation: Invocation) -> Result:
        """Run it. What is not known to this PowerShell is an exit code of 70 and is kept."""
        with self._turn:
            try:
                return self._run(invocation)
            except NotKnown as unknown:
                self.unknown.append(str(unknown))
                return Result(b"", f"the tests' PowerShell does not know {unknown}".encode(), 70)

    def _pause(self, seconds: float) -> None:
        self._turn.release()
        try:
            time.sleep(seconds)
        finally:
            self._turn.acquire()

    def _run(self, invocation: Invocation) -> Result:
        source = _script(invocation)
        if source is None:
            return Result(b"", b"'powershell' is asked for what it does not know", 1)
        self.scripts.append(source)
        engine = Engine(CMDLETS, self.machine, self.environment, self._pause)
        # powershell.exe itself reads a redirected standard input, line by line
        engine.globals.here["input"] = invocation.stdin.decode("utf-8", "replace").splitlines()
        code = 0
        try:
            for value in engine.run(source):
                engine.stdout.append(_line(value))
        except Exit as ended:
            code = ended.code
        except BadSyntax as error:
            engine.stderr.append(f"At line:1 char:1 {error} ParserError")
            code = 1
        except Raised as raised:
            engine.stderr.append(f"{raised.record.exception.message} {raised.record.id}")
            code = 1
        errors = "".join(f'<S S="Error">{escape(each)}_x000D__x000A_</S>' for each in engine.stderr)
        return Result(
            "".join(engine.stdout).encode(), CLIXML.format(errors).encode() if errors else b"", code
        )


def _line(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Net | dict):
        raise NotKnown("to show an object: its table wraps, so make a text of it")
    return f"{text(value)}\r\n"


def _script(invocation: Invocation) -> str | None:
    """The script of -EncodedCommand; the only way that nestvirt uses."""
    program = invocation.command.strip('"').lower().rpartition("\\")[2].removesuffix(".exe")
    if program != "powershell":
        raise NotKnown(f"the program {invocation.command}")
    words = [word for argument in invocation.arguments for word in argument.split()]
    while words and words[0].lower() in ("-noprofile", "-noninteractive", "-nologo"):
        words.pop(0)
    if len(words) != 2 or words[0].lower() not in ("-encodedcommand", "-enc", "-e"):
        raise NotKnown(f"the arguments {' '.join(words)[:80]}")
    try:
        return base64.b64decode(words[1], validate=True).decode("utf-16-le")
    except (binascii.Error, UnicodeDecodeError):
        return None
