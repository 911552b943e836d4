"""Encrypted messages in HTTP: multipart/encrypted, as MS-WSMV 2.2.9.1 has it."""

from __future__ import annotations

from tests.peers.winrm.logon import CREDSSP_SESSION, Denied, Security

BOUNDARY = b"--Encrypted Boundary"
PAYLOAD = b"\tContent-Type: application/octet-stream\r\n"
LARGEST = 16384
"""Bytes of one part in CredSSP, whose TLS records are no larger."""


def is_encrypted(content_type: str) -> bool:
    """Whether a body is such a message."""
    return content_type.startswith(("multipart/encrypted", "multipart/x-multi-encrypted"))


def opened(body: bytes, security: Security) -> bytes:
    """Decrypt a body.

    Raises:
        Denied: it is not what this client can have encrypted, or not of the length that it says.
    """
    parts = body.removesuffix(BOUNDARY + b"--\r\n").split(BOUNDARY + b"\r\n")[1:]
    if not parts or len(parts) % 2:
        raise Denied("no parts")
    plain = b""
    for about, payload in zip(parts[::2], parts[1::2], strict=True):
        if f"\tContent-Type: {security.session}".encode() not in about or not payload.startswith(PAYLOAD):
            raise Denied("other parts than were agreed upon")
        content = payload.removeprefix(PAYLOAD)
        length = int.from_bytes(content[:4], "little")
        part = security.unwrap(content[4 : 4 + length], content[4 + length :])
        if int(about.rpartition(b"Length=")[2]) != len(part):
            raise Denied("another length than it says")
        plain += part
    return plain


def sealed(plain: bytes, security: Security) -> tuple[str, bytes]:
    """Encrypt a body; return the content type, too."""
    size = LARGEST if security.session == CREDSSP_SESSION else len(plain)
    pieces = [plain[start : start + size] for start in range(0, len(plain), size)]
    body = b""
    for piece in pieces:
        header, data = security.wrap(piece)
        about = f"\tContent-Type: {security.session}\r\n\tOriginalContent: "
        about += f"type=application/soap+xml;charset=UTF-8;Length={len(piece)}\r\n"
        body += BOUNDARY + b"\r\n" + about.encode() + BOUNDARY + b"\r\n" + PAYLOAD
        body += len(header).to_bytes(4, "little") + header + data
    kind = "multipart/encrypted" if len(pieces) == 1 else "multipart/x-multi-encrypted"
    return (
        f'{kind};protocol="{security.session}";boundary="Encrypted Boundary"',
        body + BOUNDARY + b"--\r\n",
    )
