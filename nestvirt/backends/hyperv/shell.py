"""A shell of WinRM (MS-WSMV): opened when first needed, always closed, its commands within our deadlines."""

from __future__ import annotations

import contextlib
import math
import struct
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import TypeVar

import requests
from spnego.exceptions import SpnegoError
from winrm.exceptions import (
    WinRMError,
    WinRMOperationTimeoutError,
    WinRMTransportError,
    WSManFaultError,
)
from winrm.protocol import Protocol

from nestvirt.backends.hyperv.address import Address
from nestvirt.backends.hyperv.auth import Login, Trust
from nestvirt.backends.hyperv.scripts import PROGRAM, Invocation
from nestvirt.backends.hyperv.wire import Lost, Refused, Wire
from nestvirt.backends.hyperv.words import GONE, QuotaReached, Words
from nestvirt.errors import Error

T = TypeVar("T")

OPERATION = 20
"""Seconds after which the host answers a Receive that has nothing to say; it is then asked anew."""

ANSWER = 30.0
"""Seconds to wait for any other answer."""

GRACE = 10.0
"""Seconds to wait for an answer beyond those that the host was given."""

CLOSING = 10.0
"""Seconds in which a shell is closed; the host closes it by itself after IDLE."""

IDLE = "PT900S"

OUTPUT = 16 * 2**20
"""Bytes that a command may write."""

UTF8 = 65001
_CHUNK = 65536

MALFORMED = (
    ET.ParseError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    StopIteration,
    TypeError,
    ValueError,
    struct.error,
)
"""What pywinrm and what is below it raise at an answer that was cut off, or is none of WinRM's."""


def _not_let_in() -> tuple[type[Exception], ...]:
    """What the ways to log in raise; the packages of some need not be there."""
    found: list[type[Exception]] = [
        Refused,
        SpnegoError,
        PermissionError,
    ]  # requests-ntlm's, for no challenge
    with contextlib.suppress(ImportError):
        from kerberos import KrbError

        found.append(KrbError)
    with contextlib.suppress(ImportError):
        from requests_credssp.exceptions import AuthenticationException, NTStatusException

        found += [AuthenticationException, NTStatusException]
    return tuple(found)


class _NotBegun(Exception):
    """The host did nothing of what was asked; in another shell it may.

    Args:
        told: what it comes to where that is of no use, either.
        gone: whether the shell is.
    """

    def __init__(self, told: Error, *, gone: bool) -> None:
        super().__init__(told.message)
        self.told, self.gone = told, gone


class Shell:
    """One shell on one host.

    Args:
        address: where.
        login: who one is.
        trust: by what the host is known.
    """

    def __init__(self, address: Address, login: Login, trust: Trust) -> None:
        # Protocol makes a transport of its own; it is replaced before anything is sent.
        self._protocol = Protocol(address.url, transport="kerberos")
        self._wire = Wire(address, login, trust)
        self._protocol.transport = self._wire
        self._words = Words(address, login, trust)
        self._not_let_in = _not_let_in()
        self._id: str | None = None
        self._running: str | None = None
        self._denied = False

    def open(self, timeout: float = ANSWER) -> None:
        """Log in, and open the shell; where that was done, do nothing.

        Raises:
            ConnectionFailed: nobody answers, or is not trusted.
            AccessDenied: the credentials or the user are refused.
        """
        if self._id is None:
            self._id = self._sent(
                "Create", timeout, lambda: self._protocol.open_shell(codepage=UTF8, idle_timeout=IDLE)
            )

    def run(self, invocation: Invocation, timeout: float) -> tuple[bytes, bytes, int]:
        """Start PowerShell, and wait for its end.

        Args:
            invocation: how.
            timeout: seconds for all of it.

        Returns:
            What it wrote on stdout and on stderr, and its exit code.

        Raises:
            ConnectionFailed: it was not started.
            AccessDenied: neither, as the credentials or the user are refused.
            NoAnswer: it was, and what has become of it is not known.
            Error: it writes without an end.
        """
        until = time.monotonic() + timeout
        if self._running is not None:  # what nobody waits for any more is not to interfere
            self._terminate(ANSWER)
        try:
            command = self._begin(invocation, until)
        except _NotBegun as error:
            self._leave(gone=error.gone)
            try:
                command = self._begin(invocation, until)
            except _NotBegun as again:
                raise again.told from again
        self._running = command
        if invocation.stdin is not None:
            self._feed(command, invocation.stdin, until)
        done = self._collect(command, until)
        self._running = None
        return done

    def close(self) -> None:
        """End what still runs, and close the shell; not beyond its deadline."""
        with contextlib.suppress(Error):
            if self._running is not None and not self._denied:
                self._terminate(CLOSING)
        self._leave(gone=self._denied)
        self._wire.close_session()

    def _leave(self, *, gone: bool) -> None:
        """Close the shell, where it is not gone by itself; it is not used any more."""
        shell, self._id = self._id, None
        if shell is not None and not gone:
            with contextlib.suppress(Error, _NotBegun):
                self._sent("Delete", CLOSING, lambda: self._protocol.close_shell(shell, close_session=False))

    def _begin(self, invocation: Invocation, until: float) -> str:
        self.open(_left(until))
        shell = self._id or ""
        return self._sent(
            "Command",
            _left(until),
            lambda: self._protocol.run_command(
                shell,
                PROGRAM,
                invocation.arguments,
                console_mode_stdin=invocation.stdin is None,
                skip_cmd_shell=True,
            ),
        )

    def _feed(self, command: str, stdin: bytes, until: float) -> None:
        shell = self._id or ""
        for start in range(0, len(stdin), _CHUNK):
            part, end = stdin[start : start + _CHUNK], start + _CHUNK >= len(stdin)
            self._sent(
                "Send",
                _left(until),
                lambda part=part, end=end: self._protocol.send_command_input(shell, command, part, end),  # type: ignore[misc]
            )

    def _collect(self, command: str, until: float) -> tuple[bytes, bytes, int]:
        shell = self._id or ""
        stdout, stderr = bytearray(), bytearray()
        while time.monotonic() < until:
            seconds = max(1, min(OPERATION, math.ceil(until - time.monotonic())))
            try:
                out, err, code, done = self._sent(
                    "Receive", seconds, lambda: self._protocol.get_command_output_raw(shell, command)
                )
            except WinRMOperationTimeoutError:
                continue
            stdout += out
            stderr += err
            if done:
                return bytes(stdout), bytes(stderr), code
            if len(stdout) + len(stderr) > OUTPUT:
                self._terminate(ANSWER)
                raise self._words.endless(OUTPUT)
        self._terminate(ANSWER)
        raise self._words.late()

    def _terminate(self, seconds: float) -> None:
        """End the command that runs; a host that does not know it has ended it.

        Raises:
            NoAnswer: that is not known.
        """
        shell, command = self._id or "", self._running or ""
        with contextlib.suppress(_NotBegun, WinRMOperationTimeoutError):
            self._sent("Signal", seconds, lambda: self._protocol.cleanup_command(shell, command))
        self._running = None

    def _sent(self, action: str, seconds: float, do: Callable[[], T]) -> T:
        """Send one message; over a new connection, where the old one is gone and nothing was sent.

        Raises:
            WinRMOperationTimeoutError: a Receive, or a Signal, has nothing to say yet.
        """
        self._protocol.operation_timeout_sec = max(1, math.ceil(seconds))
        self._wire.patience = seconds + GRACE
        try:
            return self._translated(action, do)
        except Lost:
            self._wire.close_session()
            return self._translated(action, do)

    def _translated(self, action: str, do: Callable[[], T]) -> T:
        words = self._words
        try:
            return do()
        except WSManFaultError as error:
            told, gone = words.fault(action, error), error.wsman_fault_code == GONE
            # What counts as going on in a shell counts until it is closed.
            full = action == "Command" and isinstance(told, QuotaReached)
            if full or (gone and action not in ("Create", "Send", "Receive")):
                raise _NotBegun(told, gone=gone) from error
            raise told from error
        except WinRMOperationTimeoutError as error:
            if action in ("Receive", "Signal"):
                raise
            raise words.silent(action, "it timed out on the host") from error
        except WinRMTransportError as error:
            raise words.status(action, error.code, error.response_text) from error
        except requests.exceptions.RequestException as error:
            raise words.of_request(action, error) from error
        except self._not_let_in as error:
            if action in ("Send", "Receive"):  # what was begun goes on
                raise words.other(action, f"{type(error).__name__}: {error}") from error
            self._denied = True  # each further try counts towards the account's lockout
            raise words.denied(error) from error
        except (WinRMError, *MALFORMED) as error:
            raise words.other(action, f"{type(error).__name__}: {error}") from error


def _left(until: float) -> float:
    return max(1.0, min(ANSWER, until - time.monotonic()))
