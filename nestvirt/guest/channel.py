"""What a way into a guest is: it runs a program there, or lets the guest tell of itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from nestvirt.errors import GuestUnreachable

OUTPUT_LIMIT = 1 << 20
"""Bytes of one output stream that are kept; what a guest sends beyond is dropped and marked."""

NOT_FOUND = 127
"""Exit code that stands for "no such program", as in a POSIX shell."""


@dataclass(frozen=True)
class Completed:
    """A program's end inside the guest. Its output is the guest's word: bounded, and never trusted."""

    code: int
    stdout: bytes
    stderr: bytes
    truncated: bool = False


class Channel(Protocol):
    """A way into one guest."""

    name: str

    def ping(self, *, timeout: float) -> None:
        """Return when the guest answers.

        Raises:
            GuestUnreachable: it did not answer within ``timeout`` seconds.
        """

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float) -> Completed:
        """Run a program to its end; code 127 where the guest has no such program.

        Raises:
            GuestUnreachable: the guest does not let us, or did not finish within ``timeout`` seconds.
        """


@runtime_checkable
class Examiner(Protocol):
    """A way into a guest that is read by its own means, where the probe cannot run: Windows."""

    name: str

    def ping(self, *, timeout: float) -> None:
        """Return when the guest is up; see Channel."""

    def examine(self, *, timeout: float) -> bytes:
        """What the guest says of itself: JSON, for ``windows.judge_answer`` to read.

        Raises:
            GuestUnreachable: the guest does not let us, or did not finish within ``timeout`` seconds.
        """


class RunRefused(GuestUnreachable):
    """The guest answers, but runs no programs for us; it may let us read files."""


@runtime_checkable
class FileReader(Protocol):
    """A channel that can also read a file of the guest, which is often allowed where programs are not."""

    def file(self, path: str) -> bytes | None:
        """A file's content; None where there is no such file; empty for a device that is there.

        Raises:
            GuestUnreachable: the guest does not let us, or did not answer.
        """


def clipped(
    code: int, stdout: bytes, stderr: bytes, *, truncated: bool = False, limit: int = OUTPUT_LIMIT
) -> Completed:
    """A Completed whose output is cut to the limit, and says so."""
    over = truncated or len(stdout) > limit or len(stderr) > limit
    return Completed(code, stdout[:limit], stderr[:limit], over)
