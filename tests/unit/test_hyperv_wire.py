"""What a server can do to the HTTP below WinRM without being a Hyper-V host at all."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from nestvirt.backends.hyperv import shell, wire
from nestvirt.backends.hyperv.session import HyperVSession
from nestvirt.errors import AccessDenied, ConnectionFailed, Error

Answer = Callable[[BaseHTTPRequestHandler], None]
SECRET = "t0p-secret"  # noqa: S105


@contextmanager
def serving(answer: Answer) -> Iterator[tuple[str, list[bytes]]]:
    """A server of plain HTTP that answers so; and what it was sent."""
    seen: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            seen.append(str(self.headers).encode() + body)
            answer(self)

        def do_GET(self) -> None:  # as which a redirected message would be sent
            self.do_POST()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as its class has it
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()


def refused(url: str, transport: str = "ntlm") -> Error:
    login = {"username": "ops", "password": SECRET, "transport": transport}
    with pytest.raises(Error) as caught:
        HyperVSession({"endpoint": url, **login}).open()
    assert f"{caught.value.message}{caught.value.evidence}".isprintable()
    assert caught.value.cure
    return caught.value


def reply(status: int, body: bytes = b"", **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@pytest.mark.parametrize("transport", ["ntlm", "credssp"])
@pytest.mark.parametrize(
    "answer",
    [
        reply(200),
        reply(200, b"<html>hello</html>"),
        reply(401),
        reply(401, WWW_Authenticate="Basic realm=x"),
        reply(401, WWW_Authenticate="Negotiate"),
        reply(401, WWW_Authenticate="Negotiate TlRMTVNTUAACAAAA"),
        reply(401, WWW_Authenticate="Negotiate !!!"),
        reply(401, WWW_Authenticate="CredSSP AAAA"),
        reply(500, b"\x00\xff\x1b[2J"),
        reply(302, Location="https://elsewhere.invalid/"),
    ],
)
def test_who_logs_nobody_in_is_sent_nothing_in_the_clear(answer: Answer, transport: str) -> None:
    with serving(answer) as (url, seen):
        assert isinstance(refused(url, transport), ConnectionFailed | AccessDenied)
        sent = b"".join(seen)
        assert b"Envelope" not in sent
        assert SECRET.encode() not in sent


def test_login_that_failed_is_not_gone_on_with_in_the_clear() -> None:
    with serving(reply(401)) as (url, seen):
        session = HyperVSession({"endpoint": url, "username": "ops", "password": SECRET})
        for _ in range(2):
            with pytest.raises(AccessDenied):
                session.run("read", {})
        session.close()
        assert len(seen) == 2
        assert b"Envelope" not in b"".join(seen)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirection_is_not_followed(status: int) -> None:
    with (
        serving(reply(200)) as (elsewhere, there),
        serving(reply(status, Location=elsewhere)) as (url, seen),
    ):
        assert "redirects" in refused(url).evidence
        assert (len(seen), there) == (1, [])


def test_compressed_answer_is_refused_unread() -> None:
    bomb = gzip.compress(b"\x00" * 10**8)
    with serving(reply(200, bomb, Content_Encoding="gzip")) as (url, _):
        assert "compressed" in refused(url).evidence


def test_answer_without_an_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LARGEST", 10_000)
    with serving(reply(200, b"x" * 100_000)) as (url, _):
        assert "longer than 10000 bytes" in refused(url).evidence


def test_answer_that_comes_byte_by_byte_has_a_deadline_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "GRACE", -29.5)  # so half a second is left of its answer's thirty
    done = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while not done.wait(0.05):
            try:
                handler.wfile.write(b"x")
            except OSError:
                return

    with serving(drip) as (url, _):
        try:
            assert "timed out" in refused(url).evidence
        finally:
            done.set()
