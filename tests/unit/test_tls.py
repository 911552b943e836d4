"""TLS to a server of our own: what is verified, and that a pin pins."""

from __future__ import annotations

import hashlib
import http.client
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from fakepve.certs import make_cert

from nestvirt import tls
from nestvirt.errors import SettingsError

HOSTS = ("127.0.0.2",)


class Server:
    """Answers every GET, and counts them.

    Attributes:
        certificate: its PEM file, which is its own CA.
        der: the certificate itself.
    """

    def __init__(self, folder: Path) -> None:
        self.requests: list[str] = []
        self.certificate, key, self.der = make_cert(str(folder), hosts=HOSTS)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        seen = self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                seen.append(self.path)
                self.send_response(200 if self.path == "/slowly" else 204)
                if self.path == "/packed":
                    self.send_header("Content-Encoding", "gzip")
                self.send_header("Content-Length", "100" if self.path == "/slowly" else "0")
                self.end_headers()
                for _ in range(100 if self.path == "/slowly" else 0):
                    time.sleep(0.02)
                    try:
                        self.wfile.write(b"x")
                    except OSError:  # the client has gone
                        return

            def log_message(self, *_words: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.2", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    served = Server(tmp_path_factory.mktemp("tls"))
    yield served
    served.close()


def get(server: Server, context: ssl.SSLContext, pin: str | None = None, path: str = "/") -> int:
    connection = tls.PinnedConnection("127.0.0.2", server.port, verify=context, pin=pin, answer=lambda: 5.0)
    with closing(connection):
        connection.request("GET", path)
        return connection.getresponse().status


def test_a_ca_that_vouches_is_enough(server: Server) -> None:
    assert get(server, tls.context(server.certificate)) == 204


def test_without_its_ca_nothing_is_sent(server: Server) -> None:
    before = len(server.requests)
    with pytest.raises(ssl.SSLCertVerificationError):
        get(server, tls.context(None))
    assert len(server.requests) == before


def slowly(server: Server, seconds: float) -> bytes:
    """An answer of 100 bytes, which takes two seconds."""
    context = tls.context(server.certificate)
    connection = tls.PinnedConnection(
        "127.0.0.2", server.port, verify=context, pin=None, answer=lambda: seconds
    )
    with closing(connection):
        connection.request("GET", "/slowly")
        return connection.getresponse().read()


def test_answer_that_comes_byte_by_byte_has_a_deadline_as_a_whole(server: Server) -> None:
    with pytest.raises(TimeoutError):
        slowly(server, 0.3)


def test_answer_without_an_end_is_cut(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "LONGEST", 120)  # with its head
    with pytest.raises(OSError, match="longer"):
        slowly(server, 10)


def test_compressed_answer_is_not_taken(server: Server) -> None:
    with pytest.raises(http.client.HTTPException, match="gzip"):
        get(server, tls.context(server.certificate), path="/packed")


@pytest.mark.parametrize("digest", ["sha256", "sha1"])
def test_the_right_pin_is_enough(server: Server, digest: str) -> None:
    pin = hashlib.new(digest, server.der, usedforsecurity=False).hexdigest()
    assert get(server, tls.context(None, verify=False), tls.digits_of(pin, where="x", sha1=True)) == 204


@pytest.mark.parametrize("digits", ["ab" * 32, "ab" * 20], ids=["SHA-256", "SHA-1"])
def test_a_wrong_pin_pins(server: Server, digits: str) -> None:
    before = len(server.requests)
    with pytest.raises(tls.WrongCertificate) as caught:
        get(server, tls.context(None, verify=False), digits)
    assert caught.value.seen == tls.shown(server.der)
    assert len(server.requests) == before


def test_a_wrong_pin_is_refused_though_a_ca_vouches(server: Server) -> None:
    with pytest.raises(tls.WrongCertificate):
        get(server, tls.context(server.certificate), "ab" * 32)


def test_the_fingerprint_is_shown_as_openssl_does(server: Server) -> None:
    seen = tls.fingerprint_of(("127.0.0.2", server.port))
    assert seen == tls.shown(server.der)
    assert seen.replace(":", "").lower() == hashlib.sha256(server.der).hexdigest()


def test_of_a_server_that_is_not_there_there_is_none(server: Server) -> None:
    assert tls.fingerprint_of(("127.0.0.3", server.port)) == ""


@pytest.mark.parametrize("text", ["AB:" * 31 + "CD", " " + "ab" * 32, "ab" * 20])
def test_what_a_fingerprint_is(text: str) -> None:
    assert set(tls.digits_of(text, where="the GUI", sha1=True)) <= set("abcd")


@pytest.mark.parametrize("text", ["ab" * 31, "xy" * 32, ""])
def test_what_is_none_is_told(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        tls.digits_of(text, where="the GUI", sha1=True)
    assert "the GUI" in caught.value.cure


def test_one_of_sha1_does_only_where_that_is_said() -> None:
    with pytest.raises(SettingsError):
        tls.digits_of("ab" * 20, where="the GUI")


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_ca_file_that_is_none_is_told(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingsError) as caught:
        tls.context(str(path))
    assert str(path) in caught.value.evidence
