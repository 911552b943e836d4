"""What can go wrong between a client and the service, on purpose."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from enum import Enum


class Ill(Enum):
    """One thing that goes wrong with one request."""

    CUT = "the connection ends before anything is done"
    LOST = "it is done, and the connection ends without an answer"
    HALF = "it is done, and the connection ends in the middle of the answer"
    STALL = "nothing is done, and nothing is ever answered"
    GARBAGE = "the answer is no XML"
    BOMB = "the answer is XML that grows without bounds when it is read"
    HUGE = "the answer is endless"
    FLOOD = "the command writes without end"
    PLAIN = "the answer to an encrypted message is not encrypted, as somebody in between would do"
    FOREIGN = "the answer is one to another message"
    ELSEWHERE = "HTTP sends the client to another server"
    BUSY = "HTTP says that the service is not available"
    TIMED_OUT = "the operation takes longer than the client has said"
    BUSY_SHELL = "the user has had as many operations as there may be"
    GONE = "the shell has been idle for too long and is not there any more"
    DENIED = "the user may not log in remotely"
    HANG = "the command never ends"
    PROGRESS = "PowerShell tells of its progress, as CLIXML on stderr"


class Ills:
    """Which of them are due."""

    def __init__(self) -> None:
        self._due: list[_Due] = []
        self._lock = threading.Lock()

    def add(self, ill: Ill, operation: str, times: int, after: int) -> None:
        with self._lock:
            self._due.append(_Due(ill, operation, times, after))

    def clear(self) -> None:
        with self._lock:
            self._due.clear()

    def take(self, operation: str, among: Sequence[Ill]) -> Ill | None:
        """The next one that is due with this operation."""
        with self._lock:
            for due in self._due:
                if due.ill in among and due.operation in ("", operation) and due.times:
                    if due.after:
                        due.after -= 1
                        continue
                    due.times -= 1
                    return due.ill
        return None


class _Due:
    def __init__(self, ill: Ill, operation: str, times: int, after: int) -> None:
        self.ill = ill
        self.operation = operation
        self.times = times
        self.after = after
