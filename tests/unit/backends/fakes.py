# ruff: noqa: N802 - the names are libvirt's own
"""libvirt as a script: what the real one does seldom, or only to somebody else's host."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import count


class FakeLibvirtError(Exception):
    """An error with libvirt's numbers."""

    def __init__(self, words: str, code: int = 1, domain: int = 10) -> None:
        super().__init__(words)
        self._words, self._code, self._domain = words, code, domain

    def get_error_message(self) -> str:
        return self._words

    def get_error_code(self) -> int:
        return self._code

    def get_error_domain(self) -> int:
        return self._domain


class FakeLibvirt:
    """The module: its numbers are libvirt's own, its connections are those that it is given.

    Args:
        connections: what one open() after the other gives, or raises.
    """

    libvirtError = FakeLibvirtError  # noqa: N815 - libvirt's own name
    VIR_FROM_RPC = 7
    VIR_ERR_NO_CONNECT, VIR_ERR_INVALID_CONN, VIR_ERR_OPERATION_DENIED = 5, 6, 29
    VIR_ERR_RPC, VIR_ERR_NO_DOMAIN, VIR_ERR_AUTH_FAILED = 39, 42, 45
    VIR_ERR_AUTH_CANCELLED, VIR_ERR_AUTH_UNAVAILABLE, VIR_ERR_ACCESS_DENIED = 79, 80, 88
    VIR_DOMAIN_XML_SECURE, VIR_DOMAIN_XML_INACTIVE, VIR_DOMAIN_DEFINE_VALIDATE = 1, 2, 1
    VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES = 1

    def __init__(self, *connections: FakeConnection | FakeLibvirtError) -> None:
        self.connections = list(connections)
        self.handler: tuple[Callable[[object, object], object], object] | None = None

    def registerErrorHandler(self, handler: Callable[[object, object], object], context: object) -> None:
        self.handler = handler, context

    def virEventRegisterDefaultImpl(self) -> None:
        """There are no events."""

    def virEventRunDefaultImpl(self) -> None:
        threading.Event().wait()

    def open(self, _uri: str) -> FakeConnection:
        connection = self.connections.pop(0)
        if isinstance(connection, FakeLibvirtError):
            raise connection
        return connection


class FakeConnection:
    """A connection with one domain, whose definition is what was defined last.

    Args:
        stored: its definition.
        failures: number of a call to what it raises; the calls are those that ask for, or give, XML.
        keeping: what libvirt makes of a definition that it is given.
    """

    def __init__(
        self,
        stored: str,
        failures: dict[int, FakeLibvirtError] | None = None,
        keeping: Callable[[str], str] = str,
    ) -> None:
        self.stored = stored
        self._failures = failures or {}
        self._keeping = keeping
        self._calls = count(1)

    def setKeepAlive(self, _interval: int, _count: int) -> None:
        """It lives."""

    def lookupByUUIDString(self, _uuid: str) -> FakeConnection:
        return self

    def XMLDesc(self, _flags: int) -> str:
        self._may_fail()
        return self.stored

    def defineXMLFlags(self, xml: str, _flags: int) -> None:
        self._may_fail()
        self.stored = self._keeping(xml)

    def defineXML(self, xml: str) -> None:
        self._may_fail()
        self.stored = xml

    def _may_fail(self) -> None:
        failure = self._failures.get(next(self._calls))
        if failure is not None:
            raise failure
