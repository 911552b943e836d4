"""HTTP on one port, with or without TLS: what a client's requests are, before they are operations."""

from __future__ import annotations

import contextlib
import hashlib
import select
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

from tests.peers.winrm.accounts import Account, Accounts
from tests.peers.winrm.envelope import is_encrypted, opened, sealed
from tests.peers.winrm.ills import Ill
from tests.peers.winrm.logon import Denied, Door, Entry
from tests.peers.winrm.pki import Certificates

SOAP = "application/soap+xml;charset=UTF-8"
HANDSHAKE_SECONDS = 10
SHOWING_SECONDS = 2
"""How long a client may take to show its certificate, or to have none."""
ENDLESS = 256 * 2**20
"""Bytes after which even an endless answer ends, lest a client takes all of the memory."""


@dataclass(frozen=True)
class Answered:
    """What is said to an operation.

    Attributes:
        status: of HTTP.
        body: the envelope.
        ill: what goes wrong with it on its way.
    """

    status: int
    body: bytes
    ill: Ill | None = None


class Host(Protocol):
    """What a listener needs of the service behind it."""

    accounts: Accounts
    offers: tuple[str, ...]
    denials: list[str]
    elsewhere: str
    ended: threading.Event

    def take(self, account: Account, way: str, body: bytes, *, encrypted: bool, tls: bool) -> Answered:
        """Do what a body says."""

    def count(self) -> None:
        """One more request of HTTP has come."""


class Listener(ThreadingHTTPServer):
    """One port on 127.0.0.1."""

    daemon_threads = True
    request_queue_size = 32

    def __init__(self, host: Host, certificates: Certificates | None) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.host = host
        self.certificates = certificates
        self._context = certificates.context() if certificates else None
        self._sockets: set[socket.socket] = set()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        if self._context:  # the handshake is the connection's own thread's
            connection = self._context.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        self._sockets.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self._sockets.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away, or does not like us, is nobody's failure."""

    def cut(self) -> None:
        """End all connections."""
        for connection in list(self._sockets):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        """Take no connection any more, and end those that there are."""
        self.shutdown()
        self.server_close()
        self.cut()
        self._thread.join()


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Listener

    def setup(self) -> None:
        if isinstance(self.request, ssl.SSLSocket):
            self.request.settimeout(HANDSHAKE_SECONDS)
            self.request.do_handshake()
            self.request.settimeout(None)
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().setup()
        binding = self.server.certificates.binding if self.server.certificates else b""
        host = self.server.host
        self._door = Door(host.accounts, host.offers, binding, self._certificate)

    def _certificate(self) -> str:
        """Ask for the client's; it answers while it waits for what it has asked for."""
        if not isinstance(self.request, ssl.SSLSocket):
            return ""
        if not self.request.getpeercert():
            self.request.verify_client_post_handshake()
            self.request.do_handshake()
            self.request.settimeout(0)
            until = time.monotonic() + SHOWING_SECONDS
            while not self.request.getpeercert() and time.monotonic() < until:
                select.select([self.request], [], [], 0.1)
                with contextlib.suppress(ssl.SSLWantReadError):
                    self.request.recv(0x10000)
            self.request.settimeout(None)
        shown = self.request.getpeercert(binary_form=True)
        return hashlib.sha256(shown).hexdigest() if shown else ""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def do_POST(self) -> None:
        host = self.server.host
        host.count()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path != "/wsman":
            return self._reply(404)
        before = len(self._door.denials)
        entry = self._door.enter(self.headers.get("Authorization", ""))
        host.denials += self._door.denials[before:]
        if entry.account is None:
            return self._reply(401, headers=[("WWW-Authenticate", value) for value in entry.headers])
        if not body:  # a client that wants to encrypt logs in first
            return self._reply(200, headers=[("WWW-Authenticate", value) for value in entry.headers])
        return self._operation(entry, entry.account, body)

    def _operation(self, entry: Entry, account: Account, body: bytes) -> None:
        encrypted = is_encrypted(self.headers.get("Content-Type", ""))
        tls = self.server.certificates is not None
        headers = [("WWW-Authenticate", value) for value in entry.headers]
        if encrypted:
            if entry.security is None:
                return self._reply(400)
            try:
                body = opened(body, entry.security)
            except (Denied, ValueError) as error:
                self.server.host.denials.append(f"{error}")
                return self._reply(400)
        elif not tls:  # AllowUnencrypted is false, as it is by itself
            if entry.way == "basic":
                return self._reply(401, headers=[("WWW-Authenticate", "Negotiate")])
            return self._reply(500, headers=headers)
        answered = self.server.host.take(account, entry.way, body, encrypted=encrypted, tls=tls)
        kind, text = SOAP, answered.body
        if encrypted and entry.security and answered.ill is not Ill.PLAIN:
            kind, text = sealed(answered.body, entry.security)
        return self._ail(answered, kind, text, headers)

    def _ail(self, answered: Answered, kind: str, text: bytes, headers: list[tuple[str, str]]) -> None:
        match answered.ill:
            case Ill.CUT | Ill.LOST:
                return self._end()
            case Ill.STALL:
                self.server.host.ended.wait()
                return self._end()
            case Ill.HALF:
                self._reply(answered.status, text[: len(text) // 2], kind, headers, length=len(text))
                return self._end()
            case Ill.HUGE:
                return self._endless(kind)
            case Ill.ELSEWHERE:
                return self._reply(302, headers=[("Location", self.server.host.elsewhere)])
            case Ill.BUSY:
                return self._reply(503)
            case _:
                return self._reply(answered.status, text, kind, headers)

    def _reply(
        self,
        status: int,
        body: bytes = b"",
        kind: str = SOAP,
        headers: list[tuple[str, str]] | None = None,
        length: int | None = None,
    ) -> None:
        self.send_response(status)
        self.send_header("Server", "Microsoft-HTTPAPI/2.0")
        for name, value in headers or ():
            self.send_header(name, value)
        if body:
            self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def _endless(self, kind: str) -> None:
        self._reply(200, b" ", kind, length=2**40)
        block = b" " * 2**16
        with contextlib.suppress(OSError):
            for _ in range(ENDLESS // len(block)):
                self.wfile.write(block)
        self._end()

    def _end(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
