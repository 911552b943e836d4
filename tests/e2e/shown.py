"""What the documentation shows of a terminal: read from its pages, typed anew, compared, and written back."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyte

SESSION = re.compile(r"^```console\n(?P<text>\$ .*\n(?:.*\n)*?)```$", re.MULTILINE)
FIGURE = re.compile(r"\b(0x[0-9a-f]+|\d{8}-\d{6}-[0-9a-f]{6}|\d+(\.\d+)*(us)?)\b")
LINES, COLUMNS = 200, 240
ANSWER = b"[y/N]: "


@dataclass(frozen=True)
class Typed:
    """A command that a page shows, and what it shows below it."""

    command: str
    output: str


def without_figures(text: str) -> str:
    """The text with every measured, random or dated figure as N."""
    return FIGURE.sub("N", text)


def sessions(page: Path) -> list[list[Typed]]:
    """The page's sessions that show what came of their commands."""
    found = [list(_typed(match["text"])) for match in SESSION.finditer(page.read_text(encoding="utf-8"))]
    return [session for session in found if any(typed.output for typed in session)]


def _typed(text: str) -> Iterator[Typed]:
    for block in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, output = block.partition("\n")
        yield Typed(command, output)


def written_anew(page: Path, outputs: Iterator[str]) -> None:
    """Put what was printed into the page, below each command of its sessions."""

    def session(match: re.Match[str]) -> str:
        typed = list(_typed(match["text"]))
        if not any(one.output for one in typed):
            return match[0]
        return "```console\n" + "".join(f"$ {one.command}\n{next(outputs)}" for one in typed) + "```"

    page.write_text(SESSION.sub(session, page.read_text(encoding="utf-8")), encoding="utf-8")


@dataclass
class Terminal:
    """A wide terminal; whatever is asked at it is answered with y.

    Attributes:
        environment: of what is typed there.
        code: how the last command ended.
    """

    environment: Mapping[str, str]
    code: int = 0

    def type(self, command: str) -> str:
        """What the screen shows when the command has ended, less blanks at the ends of lines."""
        if command == "echo $?":
            return f"{self.code}\n"
        program, *arguments = shlex.split(command)
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        words = [str(Path(sys.executable).with_name(program)), *arguments]
        size = {"LINES": str(LINES), "COLUMNS": str(COLUMNS)}  # whatever the test runs in
        own = {**self.environment, **size, "TERM": "xterm"}
        with subprocess.Popen(words, env=own, stdin=theirs, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            screen = self._watched(ours)
        os.close(ours)
        self.code = process.returncode
        lines = [line.rstrip() for line in screen.display]
        return "\n".join(lines).rstrip("\n") + "\n"

    def _watched(self, terminal: int) -> pyte.Screen:
        """The screen after all that was written to it."""
        screen = pyte.Screen(COLUMNS, LINES)
        stream = pyte.ByteStream(screen)
        said = b""
        while chunk := _read(terminal):
            stream.feed(chunk)
            said += chunk
            if said.endswith(ANSWER):
                os.write(terminal, b"y\n")
        return screen


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # Linux tells the end of a terminal so
        return b""
