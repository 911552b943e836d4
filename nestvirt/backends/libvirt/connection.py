"""One libvirt connection: opened with a deadline, opened anew where it was lost, its errors in our words."""

from __future__ import annotations

import contextlib
import functools
import operator
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from nestvirt.backends.libvirt.domain import virsh
from nestvirt.errors import AccessDenied, ConnectionFailed, Error, TargetError
from nestvirt.printable import printable

CONNECT_TIMEOUT = 30.0
KEEPALIVE = (5, 4)
"""Seconds between two signs of life, and how many may be missed before a connection counts as lost."""

T = TypeVar("T")


class Connection:
    """A connection to one URI.

    It may be lost at any time: a restart of libvirtd ends it, and so does a terminal's Ctrl-C, which reaches
    the ssh of a qemu+ssh:// as well. What has to be put back then needs another one.

    Args:
        libvirt: the module.
    """

    def __init__(self, libvirt: Any, uri: str) -> None:
        self.libvirt = libvirt
        self.uri = uri
        self._handle: Any = None
        self._opening = threading.Lock()
        self._open()

    def _open(self) -> None:
        # libvirt prints each error on stderr unless a handler is set. It has to be one that runs no bytecode:
        # a Ctrl-C that is pending would be raised in it, inside libvirt's C, and end as a SystemError.
        self.libvirt.registerErrorHandler(operator.is_, None)
        _start_event_loop(self.libvirt)
        message = f"cannot connect to {self.uri}"
        try:
            self._handle = self.within(CONNECT_TIMEOUT, self._opened, abandon=True)
        except TimeoutError as error:
            raise ConnectionFailed(message, evidence=str(error), cure=self._see()) from error
        except self.libvirt.libvirtError as error:
            if "Permission denied" in str(error):
                raise self._denied(error) from error
            raise self._translate(error, ConnectionFailed, message, "") from error

    def _opened(self) -> Any:
        handle = self.libvirt.open(self.uri)
        with contextlib.suppress(self.libvirt.libvirtError):  # a driver without a daemon has nothing to lose
            handle.setKeepAlive(*KEEPALIVE)
        return handle

    @property
    def handle(self) -> Any:
        """libvirt's own connection.

        Raises:
            ConnectionFailed: it was closed.
        """
        if self._handle is None:
            raise ConnectionFailed(f"the connection to {self.uri} was closed", cure="run this again")
        return self._handle

    def ask(self, question: Callable[[Any], T]) -> T:
        """Put a question that changes nothing to libvirt's connection; open a lost one anew for it, once."""
        handle = self.handle
        try:
            return question(handle)
        except self.libvirt.libvirtError as error:
            if not self._lost(error):
                raise
        with self._opening:
            if self._handle is handle:  # else another thread has opened it anew already
                self._open()
        return question(self.handle)

    def within(self, seconds: float, call: Callable[[], T], *, abandon: bool = False) -> T:
        """Make a call for which libvirt has no deadline: it waits for a hung QEMU, or host, for ever.

        Args:
            seconds: how long to wait for its end.
            call: runs on in a thread of its own where it does not end in time, for nothing can stop it.
            abandon: turn away at a Ctrl-C. Else that waits too: nobody can put back what is still being done.

        Raises:
            TimeoutError: it has not ended.
        """
        results: list[T] = []
        errors: list[Exception] = []
        ended = threading.Event()

        def work() -> None:
            try:
                results.append(call())
            except self.libvirt.libvirtError as error:
                errors.append(error)
            finally:
                ended.set()

        deadline = time.monotonic() + seconds
        threading.Thread(target=work, daemon=True).start()
        try:
            in_time = ended.wait(seconds)
        except KeyboardInterrupt:
            if not abandon:
                ended.wait(deadline - time.monotonic())
            raise
        if not in_time:
            raise TimeoutError(f"no answer within {seconds:.0f} s, and the call still hangs")
        if errors:
            raise errors[0]
        return results[0]

    def close(self) -> None:
        """Close it for good; a connection that is already lost is closed too."""
        handle, self._handle = self._handle, None
        if handle is not None:
            with contextlib.suppress(self.libvirt.libvirtError):
                handle.close()

    @contextlib.contextmanager
    def translated(self, kind: type[Error], message: str, cure: str = "") -> Iterator[None]:
        """Turn libvirt's errors into ours, with libvirt's own words as evidence."""
        try:
            yield
        except TimeoutError as error:
            raise kind(message, evidence=str(error), cure=cure) from error
        except self.libvirt.libvirtError as error:
            raise self._translate(error, kind, message, cure) from error

    def _translate(self, error: Any, kind: type[Error], message: str, cure: str) -> Error:
        code, words = error.get_error_code(), _words(error)
        denied = (
            self.libvirt.VIR_ERR_AUTH_FAILED,
            self.libvirt.VIR_ERR_AUTH_CANCELLED,
            self.libvirt.VIR_ERR_AUTH_UNAVAILABLE,
            self.libvirt.VIR_ERR_ACCESS_DENIED,
            self.libvirt.VIR_ERR_OPERATION_DENIED,
        )
        if code in denied:
            return self._denied(error)
        if code == self.libvirt.VIR_ERR_NO_DOMAIN:
            see = f"see what there is: {virsh(self.uri, 'list', '--all')}"
            return TargetError("the VM is gone", evidence=words, cure=see)
        if kind is ConnectionFailed or self._lost(error):
            return ConnectionFailed(message, evidence=words, cure=self._see())
        return kind(message, evidence=words, cure=cure)

    def _lost(self, error: Any) -> bool:
        """Did the connection fail, not what was asked of it? All of libvirt's transport errors are of RPC."""
        gone = (
            self.libvirt.VIR_ERR_NO_CONNECT,
            self.libvirt.VIR_ERR_RPC,
            self.libvirt.VIR_ERR_INVALID_CONN,
        )
        return error.get_error_domain() == self.libvirt.VIR_FROM_RPC or error.get_error_code() in gone

    def _denied(self, error: Any) -> AccessDenied:
        cure = "run as a user who may use this libvirt (on Debian and Fedora: a member of the group libvirt)"
        return AccessDenied(f"{self.uri} refused access", evidence=_words(error), cure=cure)

    def _see(self) -> str:
        return f"see that libvirtd runs and the URI is right: {virsh(self.uri, 'list')}"


def _words(error: Any) -> str:
    return printable(error.get_error_message() or str(error), 500)


@functools.cache
def _start_event_loop(libvirt: Any) -> None:
    """Run libvirt's events in the background, for keepalive: else a hung daemon is waited for, for ever."""
    libvirt.virEventRegisterDefaultImpl()

    def serve() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=serve, daemon=True).start()
