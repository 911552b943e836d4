"""The certificates of a host, and of who logs in with one."""

from __future__ import annotations

import hashlib
import shutil
import ssl
import tempfile
from pathlib import Path

from tests.lab import Closing
from tests.lab.k8spki import Authority

HOSTS = ("127.0.0.1", "localhost")


class Certificates(Closing):
    """Files in a folder of its own; a context manager.

    Attributes:
        ca_file: whom to trust.
        other_ca_file: somebody else.
        client_cert: what an account can log in with.
        client_key: its key.
        other_client_cert: one that is mapped to nobody.
        other_client_key: its key.
        fingerprint: SHA-256 of the host's, as people compare it.
        binding: what ties a login to a TLS connection with the host (RFC 5929).
        client_digest: SHA-256 of the client's, in hexadecimal digits.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="nv-winrm-"))
        ours, other = self._folder / "ours", self._folder / "other"
        for folder in (ours, other):
            folder.mkdir()
        authority = Authority(ours)
        authority.issue("host", "hyperv1", hosts=HOSTS)
        authority.issue("client", "ops")
        authority.issue("stranger", "stranger")
        self.ca_file = str(authority.certificate)
        self.other_ca_file = str(Authority(other).certificate)
        self.client_cert, self.client_key = str(ours / "client.crt"), str(ours / "client.key")
        self.other_client_cert, self.other_client_key = str(ours / "stranger.crt"), str(ours / "stranger.key")
        self._host = ours / "host"
        digest = hashlib.sha256(_der(self._host.with_suffix(".crt")))
        self.fingerprint = ":".join(f"{byte:02X}" for byte in digest.digest())
        self.binding = b"tls-server-end-point:" + digest.digest()
        self.client_digest = hashlib.sha256(_der(Path(self.client_cert))).hexdigest()

    def context(self) -> ssl.SSLContext:
        """What the host shows. A client's certificate it asks for after the handshake, as HTTP.sys does."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(self._host.with_suffix(".crt"), self._host.with_suffix(".key"))
        made.load_verify_locations(self.ca_file)
        made.verify_mode = ssl.CERT_OPTIONAL
        made.post_handshake_auth = True
        return made

    def close(self) -> None:
        """Remove them."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _der(file: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(file.read_text())
