"""TLS to one server: verified by CAs, or pinned to the one certificate that the user has named."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nestvirt.errors import SettingsError

CONNECTING = 10.0
"""Seconds to connect, and to agree on TLS."""

LONGEST = 64 * 2**20
"""Bytes of one answer, which come over the wire as they are: compressed ones are not taken."""

_DIGESTS: dict[int, Callable[[bytes], str]] = {
    64: lambda certificate: hashlib.sha256(certificate).hexdigest(),
    # As vSphere shows it. Its known weakness lets its maker make two that are alike, not find a second one.
    40: lambda certificate: hashlib.sha1(certificate, usedforsecurity=False).hexdigest(),
}


def digits_of(fingerprint: str, *, where: str, sha1: bool = False) -> str:
    """The hexadecimal digits of a fingerprint, with or without colons.

    Args:
        fingerprint: of SHA-256.
        where: where the product shows one, for the cure.
        sha1: whether one of SHA-1 will do.

    Raises:
        SettingsError: it is none.
    """
    digits = fingerprint.replace(":", "").strip().lower()
    if re.fullmatch("[0-9a-f]{64}" + ("|[0-9a-f]{40}" if sha1 else ""), digits):
        return digits
    raise SettingsError(
        "the fingerprint is not one of SHA-256" + (" or SHA-1" if sha1 else ""),
        evidence=f"{len(digits)} characters without colons; it has 64 hexadecimal digits"
        + (", or 40" if sha1 else ""),
        cure=f"copy it from {where}",
    )


def shown(certificate: bytes) -> str:
    """The SHA-256 fingerprint of a certificate (DER) as people compare it: ``AB:CD:…``."""
    return ":".join(f"{byte:02X}" for byte in hashlib.sha256(certificate).digest())


def fingerprint_of(peer: tuple[str, int]) -> str:
    """What the server shows, to compare; nothing is sent to it. Empty where it cannot be had."""
    try:
        with (
            socket.create_connection(peer, CONNECTING) as plain,
            context(None, verify=False).wrap_socket(plain, server_hostname=peer[0]) as secured,
        ):
            return shown(secured.getpeercert(binary_form=True) or b"")
    except (OSError, ValueError):  # ValueError: a name that is none
        return ""


def context(ca_files: str | None, *, verify: bool = True) -> ssl.SSLContext:
    """What verifies a server.

    Args:
        ca_files: PEM files or folders of CAs, with ``os.pathsep`` between them; None for the system's.
        verify: False where the certificate itself is compared instead, or nothing is to be.

    Raises:
        SettingsError: a CA file cannot be used.
    """
    if verify and not ca_files:
        made = ssl.create_default_context()
    else:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without the system's CAs: they take time, and count
        made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.sslsocket_class = _Bounded
    if not verify:
        made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
        return made
    for path in ca_files.split(os.pathsep) if ca_files else []:
        folder = Path(path).is_dir()
        try:
            made.load_verify_locations(cafile=None if folder else path, capath=path if folder else None)
        except OSError as error:  # ssl.SSLError is one
            cure = "name a PEM file with the CA's certificate, such as the product offers for download"
            raise SettingsError(
                "the CA file cannot be used", evidence=f"{path}: {error}", cure=cure
            ) from error
    return made


class Bounded(socket.socket):
    """Reads an answer up to a moment and a size: a timeout by itself begins anew with every byte."""

    _until: float | None = None
    _most = _room = 0

    def expect(self, seconds: float, most: int | None = None) -> None:
        """From now on an answer is awaited, of so many bytes at most; LONGEST where none are said."""
        self._most = self._room = LONGEST if most is None else most
        self._until = time.monotonic() + seconds

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        """See socket.socket.

        Raises:
            TimeoutError: the answer is not there in time.
            OSError: it is too long.
        """
        count = nbytes or memoryview(buffer).nbytes
        if self._until is None:
            return super().recv_into(buffer, count, flags)
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self.settimeout(left)
        count = super().recv_into(buffer, count, flags)
        self._room -= count
        if self._room < 0:
            raise OSError(f"the answer is longer than {self._most} bytes")
        return count


class _Bounded(Bounded, ssl.SSLSocket):
    """The same over TLS."""


class WrongCertificate(ssl.SSLError):
    """The server has another certificate than the pinned one; nothing was sent to it.

    Args:
        seen: the SHA-256 fingerprint of what it has.
    """

    def __init__(self, seen: str) -> None:
        super().__init__("the certificate is not the pinned one")
        self.seen = seen


class PinnedConnection(http.client.HTTPSConnection):
    """An HTTPS connection that compares the certificate, where there is a pin, before anything is sent.

    Args:
        pin: hexadecimal digits as of ``digits_of``; None where the context verifies.
        answer: tells how many seconds to wait for the whole of the next answer.
    """

    def __init__(
        self, host: str, port: int, *, verify: ssl.SSLContext, pin: str | None, answer: Callable[[], float]
    ) -> None:
        super().__init__(host, port, timeout=CONNECTING, context=verify)
        self._pin = pin
        self._answer = answer
        self.certificate = b""

    def connect(self) -> None:
        """Connect, and compare.

        Raises:
            WrongCertificate: it is another one.
            OSError: it cannot be connected, or is not trusted.
        """
        super().connect()
        self.certificate = self.sock.getpeercert(binary_form=True) or b""
        if self._pin is not None and _DIGESTS[len(self._pin)](self.certificate) != self._pin:
            self.close()
            raise WrongCertificate(shown(self.certificate))
        self.sock.settimeout(self._answer())

    def send(self, data: Any) -> None:
        """See http.client.HTTPConnection; reading the answer before may have left no time."""
        if self.sock is not None:
            self.sock.settimeout(self._answer())
        super().send(data)

    def getresponse(self) -> http.client.HTTPResponse:
        """See http.client.HTTPConnection; the clock runs until the whole of it is read.

        Raises:
            HTTPException: it is compressed: a few bytes could become more than any memory holds.
        """
        if isinstance(self.sock, Bounded):
            self.sock.expect(self._answer())
        answer = super().getresponse()
        coding = answer.getheader("Content-Encoding", "identity").strip().lower()
        if coding != "identity":
            self.close()
            raise http.client.HTTPException(f"the answer is compressed ({coding!r}), and none such is taken")
        return answer
