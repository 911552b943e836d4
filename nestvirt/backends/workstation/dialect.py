"""The dialect of .vmx files, read and written as bytes, so that every byte that is not meant to change stays.

A line is ``name = "value"``, with spaces or tabs around each part and a comment after it; the quotes may be
missing around a value without spaces. Bytes are escaped as ``|22``. What is no such line (a comment,
``#!/usr/bin/vmware``, nonsense) is kept as it is. Source: VMware's own reader, lib/dict/dictll.c and
lib/misc/vmstdio.c of open-vm-tools; like that, this one looks at bytes: in all encodings that VMware writes
(UTF-8, windows-1252, GBK, Shift_JIS and others), a byte that is a quote, ``=``, ``#`` or a line end is part
of no other character.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

BOM = b"\xef\xbb\xbf"

_ENDS = re.compile(rb"(\r\n|\n|\r)")
_LINE = re.compile(
    rb"[ \t]*(?P<name>[^ \t#=\0]+)[ \t]*=[ \t]*"
    rb'(?:"(?P<quoted>[^"\0]*)"|(?P<plain>(?!")[^ \t#\0]*))[ \t]*(?:#.*)?',
    re.DOTALL,
)
_ESCAPE = re.compile(rb"\|([0-9A-Fa-f]{2})")
_APART = re.compile(r"\((\d+) other lines?\)")
_END = re.compile(r"\((LF|CRLF|CR)\)")
_MARKS = {b"\n": "(LF)", b"\r\n": "(CRLF)", b"\r": "(CR)"}
_PLAIN = 'vhv.enable = "TRUE" # |22\r\n'

# What VMware calls Shift_JIS is Windows' superset of it.
_CODECS = {"shift_jis": "cp932", "shift-jis": "cp932"}


@dataclass(frozen=True)
class Line:
    """One line.

    Attributes:
        raw: its bytes, without its end.
        end: ``\\n``, ``\\r\\n`` or ``\\r``; empty where the file ends without one.
        name: in lower case, as case does not matter; None where the line defines nothing.
        value: what it defines, with the escapes undone.
    """

    raw: bytes
    end: bytes
    name: str | None = None
    value: bytes = b""

    @classmethod
    def parse(cls, raw: bytes, end: bytes) -> Self:
        """Read one line; what is not well-formed defines nothing."""
        found = _LINE.fullmatch(raw)
        if found is None:
            return cls(raw, end)
        value = found["plain"] if found["quoted"] is None else found["quoted"]
        unescaped = _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), value)
        return cls(raw, end, found["name"].decode("latin-1").lower(), unescaped)

    @property
    def spelling(self) -> str:
        """The name as the line spells it."""
        found = _LINE.fullmatch(self.raw)
        return found["name"].decode("latin-1") if found else ""


@dataclass(frozen=True)
class Document:
    """A whole file; ``bytes(Document.parse(data)) == data``, whatever the data."""

    bom: bytes
    lines: tuple[Line, ...]

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a file. Any bytes can be read."""
        bom = BOM if data.startswith(BOM) else b""
        pieces = [*_ENDS.split(data[len(bom) :]), b""]
        lines = [Line.parse(raw, end) for raw, end in zip(pieces[::2], pieces[1::2], strict=True)]
        return cls(bom, tuple(lines if lines[-1].raw else lines[:-1]))

    def __bytes__(self) -> bytes:
        return self.bom + b"".join(line.raw + line.end for line in self.lines)

    @property
    def encoding(self) -> str:
        """What the line ``.encoding`` says; UTF-8 where there is none."""
        for line in self.lines:
            if line.name == ".encoding":
                return line.value.decode("latin-1")
        return "UTF-8"

    @property
    def legible(self) -> bool:
        """Whether bytes are what they seem: no NUL, and no encoding in which ASCII is something else."""
        if any(b"\0" in line.raw for line in self.lines):
            return False
        try:
            plain = _PLAIN.encode(_codec(self.encoding)) == _PLAIN.encode("ascii")
        except (LookupError, UnicodeError):
            return True  # an encoding that Python does not know; those that VMware writes are plain ones
        return plain and not re.match(r"iso-?2022|hz", self.encoding, re.IGNORECASE)

    def get(self, name: str) -> str | None:
        """A value as text; None where it is not set. Of several definitions the last counts."""
        found = self.definitions(name)
        if not found:
            return None
        try:
            return found[-1].value.decode(_codec(self.encoding), "replace")
        except LookupError:
            return found[-1].value.decode("utf-8", "replace")

    def definitions(self, name: str) -> list[Line]:
        """The lines that define a name, in order."""
        return [line for line in self.lines if line.name == name.lower()]

    def numbers(self, name: str) -> list[int]:
        """The numbers of those lines, from 1."""
        return [number for number, line in enumerate(self.lines, 1) if line.name == name.lower()]

    def text_of(self, name: str) -> str | None:
        """All definitions of a name, exactly: a line each, and between them how far apart they are.

        Where the file's line ends differ, each of several lines has its own told below it.

        Bytes beyond ASCII, which only a comment can have here, are written as latin-1 has them, so that
        each byte comes back whatever the file's encoding is.
        """
        mixed = len({line.end for line in self.lines if line.end}) > 1 and len(self.definitions(name)) > 1
        parts: list[str] = []
        apart = 0
        for line in self.lines:
            if line.name != name.lower():
                apart += 1
                continue
            parts += [f"({apart} other line{'s' * (apart != 1)})"] if parts and apart else []
            parts += [line.raw.decode("latin-1"), *([_MARKS[line.end]] if mixed and line.end else [])]
            apart = 0
        return "\n".join(parts) or None

    def with_text(self, name: str, text: str | None) -> Self:
        """The document with other definitions of a name: what ``text_of`` would say of it is then ``text``.

        Each line keeps its place. What is new goes to the end of the file; of several that become one, or
        one that becomes several, the last keeps its place, and each has the end that the text tells. A file
        whose last line has no end keeps that.

        Raises:
            ValueError: the text is none that defines that name.
        """
        wanted = _parsed(name, text)
        present = self.definitions(name)
        if wanted and len(wanted) == len(present):
            fresh = iter(wanted)
            lines = [
                replace(next(fresh)[1], end=line.end) if line.name == name.lower() else line
                for line in self.lines
            ]
            return replace(self, lines=tuple(lines))
        others = [line for line in self.lines if line.name != name.lower()]
        place = len(others)
        if present:
            last = max(self.numbers(name))
            place = last - len(present)
        for apart, line in reversed(wanted):
            others.insert(place, line)
            place = max(0, place - apart)
        return replace(self, lines=self._ended(others))

    def _ended(self, lines: Sequence[Line]) -> tuple[Line, ...]:
        """The lines, each with an end but the last one where the file's last line has none."""
        ends = [line.end for line in self.lines if line.end]
        usual = ends[-1] if ends else b"\n"
        whole = [line if line.end else replace(line, end=usual) for line in lines]
        if whole and self.lines and not self.lines[-1].end:
            whole[-1] = replace(whole[-1], end=b"")
        return tuple(whole)


def written(name: str, value: str) -> str:
    """A line as VMware itself writes it."""
    return f'{name} = "{value}"'


def _codec(encoding: str) -> str:
    return codecs.lookup(_CODECS.get(encoding.lower(), encoding)).name


def _parsed(name: str, text: str | None) -> list[tuple[int, Line]]:
    """Each definition in a text, and how many other lines stand between it and the one before."""
    found: list[tuple[int, Line]] = []
    apart = 0
    for row in text.split("\n") if text is not None else []:
        if (mark := _END.fullmatch(row)) and found and not (apart or found[-1][1].end):
            end = next(end for end, told in _MARKS.items() if told == mark[0])
            found[-1] = (found[-1][0], replace(found[-1][1], end=end))
            continue
        gap = _APART.fullmatch(row)
        if gap and found and not apart:
            apart = int(gap[1])
            continue
        line = Line.parse(row.encode("latin-1"), b"")
        if line.name != name.lower() or _ENDS.search(line.raw):
            raise ValueError(f"this is no line that sets {name}: {row[:100]!r}")
        found.append((apart, line))
        apart = 0
    if apart or (text is not None and not found):
        raise ValueError(f"this does not end with a line that sets {name}")
    return found
