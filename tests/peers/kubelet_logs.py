"""Serves the logs of played pods as a kubelet does: by HTTPS, to an API server that shows its certificate."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.lab import Closing
from tests.lab.k8spki import Authority

FOLLOW_SECONDS = 0.1


@dataclass(frozen=True)
class Log:
    """A container's log.

    Attributes:
        ended: whether nothing more will be written.
    """

    path: Path
    ended: Callable[[], bool]


class LogServer(Closing):
    """The server.

    Args:
        authority: who signs its certificate, and the API server's.
        find: a pod's log by namespace, pod and container; None where there is none.
    """

    def __init__(self, authority: Authority, find: Callable[[str, str, str], Log | None]) -> None:
        authority.issue("kubelet-server", "lab-kubelet", hosts=("127.0.0.1",))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate, key = (authority.folder / f"kubelet-server.{end}" for end in ("crt", "key"))
        context.load_cert_chain(certificate, key)
        context.load_verify_locations(authority.certificate)
        context.verify_mode = ssl.CERT_REQUIRED
        handler = type("Handler", (_Handler,), {"find": staticmethod(find)})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._server.context = context
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256
    context: ssl.SSLContext

    def process_request_thread(self, request, client_address):  # type: ignore[no-untyped-def]
        # The handshake is made in the request's own thread.
        request.settimeout(60)
        try:
            wrapped = self.context.wrap_socket(request, server_side=True)
        except OSError:
            self.shutdown_request(request)
            return
        super().process_request_thread(wrapped, client_address)

    def handle_error(self, request, client_address):  # type: ignore[no-untyped-def]
        """An API server that was ended in the middle of an answer is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    find: Callable[[str, str, str], Log | None]

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        words = parts.path.strip("/").split("/")
        log = type(self).find(*words[1:]) if words[0] == "containerLogs" and len(words) == 4 else None
        if log is None:
            self.send_error(404, "no such container")
            return
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self._send(log, query)
        self.wfile.write(b"0\r\n\r\n")

    def _send(self, log: Log, query: dict[str, str]) -> None:
        ended = log.ended()
        text = log.path.read_bytes() if log.path.exists() else b""
        read = len(text)
        if "tailLines" in query:
            lines = text.splitlines(keepends=True)
            text = b"".join(lines[len(lines) - min(len(lines), int(query["tailLines"])) :])
        limit = int(query.get("limitBytes", 1 << 40))
        self._chunk(text[:limit])
        while query.get("follow") == "true" and not ended:
            time.sleep(FOLLOW_SECONDS)
            ended = log.ended()
            with log.path.open("rb") as more:
                more.seek(read)
                text = more.read()
            read += len(text)
            self._chunk(text)

    def _chunk(self, text: bytes) -> None:
        if text:
            self.wfile.write(f"{len(text):x}\r\n".encode() + text + b"\r\n")
            self.wfile.flush()

    def log_message(self, *words: object) -> None:
        """Nothing."""
