"""What a script has answered: one line of base64 among whatever else its host may have written."""

from __future__ import annotations

import base64
import binascii
import html
import json
import re
from typing import Any, NoReturn

from nestvirt.backends.hyperv.faults import ScriptFailed
from nestvirt.errors import Error
from nestvirt.printable import printable

_LINE = re.compile(rb"^NESTVIRT:([A-Za-z0-9+/=]*)\r?$", re.MULTILINE)
_CLIXML = re.compile(r"#< CLIXML\s*(.*)", re.DOTALL)
_CLIXML_LINE = re.compile(r'<S S="[Ee]rror">(.*?)</S>', re.DOTALL)
_LANGUAGE = "ConstrainedLanguage"
_CURE = "see on the host that powershell.exe runs, and which policy holds for scripts; then run this again"


def parse(phase: str, stdout: bytes, stderr: bytes, code: int) -> dict[str, Any]:
    """The object that a script has returned.

    Raises:
        ScriptFailed: it has ended with an error of PowerShell's.
        Error: it has answered nothing, or nonsense.
    """
    lines = _LINE.findall(stdout)
    if not lines:
        raise _no_answer(phase, stderr, code)
    answer: object = None
    if len(lines) == 1:
        try:
            answer = json.loads(base64.b64decode(lines[0], validate=True), parse_constant=_refuse)
        except (binascii.Error, ValueError, RecursionError):
            answer = None
    ok, error = (answer.get("ok"), answer.get("error")) if isinstance(answer, dict) else (None, None)
    if isinstance(ok, dict) and error is None:
        return ok
    if isinstance(error, dict) and ok is None:
        raise _failed(phase, error)
    raise Error(
        f"the script {phase!r} has answered what cannot be understood",
        evidence=f"{len(lines)} answers; the first of {len(lines[0])} characters",
        cure=_CURE,
    )


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _failed(phase: str, error: dict[str, Any]) -> ScriptFailed:
    names = ("id", "category", "type", "message")
    told = {name: printable(str(error.get(name) or ""), 600) for name in names}
    hresult = error.get("hresult")
    return ScriptFailed(
        f"the script {phase!r} failed on the Hyper-V host",
        evidence=printable(f"{told['message']} ({told['id']}, {told['category']})", 900),
        cure="mend what Windows says in the evidence; then run this again",
        id=told["id"],
        category=told["category"],
        type=told["type"],
        text=told["message"],
        hresult=hresult if type(hresult) is int else 0,
    )


def _no_answer(phase: str, stderr: bytes, code: int) -> Error:
    words = words_of(stderr)
    if _LANGUAGE in words:
        return Error(
            "PowerShell on the Hyper-V host is restricted to its constrained language",
            evidence=words,
            cure="let this user use the full language: see AppLocker's and Windows Defender Application "
            "Control's rules on the host ($ExecutionContext.SessionState.LanguageMode)",
        )
    return Error(
        f"the script {phase!r} has answered nothing",
        evidence=f"exit code {code}; {words or 'nothing on stderr'}",
        cure=_CURE,
    )


def words_of(stderr: bytes) -> str:
    """What PowerShell has written on stderr, as one line; its CLIXML (MS-PSRP 2.2.5) as text."""
    text = stderr[:65536].decode("utf-8", "replace")
    wrapped = _CLIXML.search(text)
    if wrapped:
        # The error's lines are cut at the console's width, and their ends are written as _x000D__x000A_.
        text = "".join(html.unescape(line) for line in _CLIXML_LINE.findall(wrapped[1]))
        text = re.sub("_x([0-9A-Fa-f]{4})_", lambda match: chr(int(match[1], 16)), text)
    return printable(text, 600)
