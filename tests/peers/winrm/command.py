"""What the service hands to the programs behind it, and what they give back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Invocation:
    """A command that somebody has started in a shell.

    Attributes:
        command: the program, as the client names it: powershell.exe.
        arguments: the words after it.
        stdin: all that the client has sent, to its end; empty where stdin is the console.
        user: who has logged in: the account's name.
    """

    command: str
    arguments: tuple[str, ...] = ()
    stdin: bytes = b""
    user: str = ""


@dataclass(frozen=True)
class Result:
    """What the program has written, and how it ended."""

    stdout: bytes = b""
    stderr: bytes = b""
    code: int = 0


Program = Callable[[Invocation], Result]
"""It is called from other threads than the test's, and from several at once."""
