"""The HTTP below pywinrm: our own trust, deadlines and sizes, and never an unencrypted message over HTTP.

pywinrm by itself takes CAs and proxies from the environment, takes a plain answer for an encrypted one, and
goes on over a new connection with the keys of the old one.
"""

from __future__ import annotations

import logging
import re
import socket
from http.cookiejar import DefaultCookiePolicy
from typing import Any, cast

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from winrm.exceptions import WinRMError, WinRMTransportError
from winrm.transport import Transport

from nestvirt.backends.hyperv.address import Address
from nestvirt.backends.hyperv.auth import Login, Trust
from nestvirt.tls import CONNECTING, Bounded

LARGEST = 8 * 2**20
"""Bytes of one answer: a host's MaxEnvelopeSizekb is 500 unless set."""


# requests-kerberos logs what it raises as well; with no handler of anybody's, that would go to stderr.
logging.getLogger("winrm").addHandler(logging.NullHandler())

_MESSAGE = re.compile(rb"uuid:[0-9A-Fa-f-]{36}")


class Lost(Exception):
    """The connection that the messages' keys belong to is gone; nothing was sent."""


class Refused(Exception):
    """HTTP status 401.

    Args:
        offers: the schemes that the host offers, in small letters.
    """

    def __init__(self, offers: list[str]) -> None:
        super().__init__(", ".join(offers))
        self.offers = offers


class Unclear(WinRMError):
    """An answer that is not encrypted, where all have to be; or that is not one to what was asked."""


class Wire(Transport):
    """What pywinrm's Protocol sends through.

    Args:
        address: where.
        login: who one is.
        trust: by what the host is known.
    """

    def __init__(self, address: Address, login: Login, trust: Trust) -> None:
        certificate, key = login.certificate or (None, None)
        super().__init__(
            endpoint=address.url,
            username=login.username or None,
            password=login.password or None,
            service="HTTP",
            cert_pem=certificate,
            cert_key_pem=key,
            ca_trust_path="",  # ours is in the context
            server_cert_validation="validate",
            auth_method=cast("Any", login.transport),
            message_encryption="never" if address.secure else "always",
            proxy=None,
        )
        self._login, self._trust = login, trust
        self.patience = CONNECTING
        """Seconds to wait for the whole of an answer."""

    def build_session(self) -> requests.Session:
        """See Transport; what failed half-way is not used again."""
        if self.session is not None:
            return self.session
        try:
            session = super().build_session()
            if not self.encryption:
                self._settle(session)
        except BaseException:
            self.close_session()
            raise
        return session

    def setup_encryption(self, session: requests.Session) -> None:
        """See Transport; it logs in."""
        self._settle(session)
        super().setup_encryption(session)

    def _settle(self, session: requests.Session) -> None:
        session.trust_env = False  # no proxies, CAs or passwords from the environment
        session.max_redirects = 0  # WinRM sends none; one would carry the credentials elsewhere
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        session.headers["Accept-Encoding"] = "identity"
        session.cert = None  # the context has it
        if self._login.transport == "basic":  # requests takes Latin-1 alone
            session.auth = (self._login.username.encode(), self._login.password.encode())  # type: ignore[assignment]
        adapter = _Adapter(self, self._trust)
        session.mount("https://", adapter)
        session.mount("http://", adapter)

    def close_session(self) -> None:
        """See Transport; the keys go with the connection."""
        super().close_session()
        self.encryption = None

    def send_message(self, message: str | bytes) -> bytes:
        """See Transport; an answer is one to this message."""
        asked = _MESSAGE.search(message.encode() if isinstance(message, str) else message)
        text = super().send_message(message)
        if asked and asked[0].lower() not in text.lower():
            raise Unclear("it is the answer to another message")
        return text

    def _send_message_request(
        self, session: requests.Session, prepared_request: requests.PreparedRequest
    ) -> requests.Response:
        response = session.send(prepared_request)
        if response.status_code == 401:
            offers = response.headers.get("WWW-Authenticate", "").lower()
            raise Refused([o.split()[0] for o in offers.split(",") if o.strip()])
        if response.status_code != 200:
            text = self._get_message_response_text(response) if response.content else b""
            raise WinRMTransportError("http", response.status_code, text.decode("utf-8", "replace"))
        return response

    def _get_message_response_text(self, response: requests.Response) -> bytes:
        kind = response.headers.get("Content-Type", "")
        if self.encryption and "-session-encrypted" not in kind:
            raise Unclear(f"HTTP {response.status_code}: {kind or 'no content type'}")
        return super()._get_message_response_text(response)


class _Adapter(HTTPAdapter):
    """Connections to the one host: verified by our context alone, each answer within its time and size."""

    def __init__(self, wire: Wire, trust: Trust) -> None:
        self._wire, self._trust = wire, trust
        super().__init__(pool_connections=1, pool_maxsize=1)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **options: Any) -> None:
        """See HTTPAdapter."""
        context = self._trust.context
        how = {"ssl_context": context, "assert_fingerprint": self._trust.pin} if context else {}
        super().init_poolmanager(connections, maxsize, block, **options, **how)
        pool = type("_Pool", (HTTPConnectionPool,), {"ConnectionCls": _plain(self._wire)})
        secure = type("_SecurePool", (HTTPSConnectionPool,), {"ConnectionCls": _secure(self._wire)})
        self.poolmanager.pool_classes_by_scheme = {"http": pool, "https": secure}

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> tuple[Any, Any]:
        """See HTTPAdapter; its second part would add the CAs of certifi to our context."""
        place, _ = super().build_connection_pool_key_attributes(request, verify, cert)
        return place, {}

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """See HTTPAdapter; the context has it all."""

    def send(self, request: requests.PreparedRequest, *_: Any, **_options: Any) -> requests.Response:
        """See HTTPAdapter; whoever asks, the host, the trust and the deadline are ours."""
        response = super().send(request, timeout=(CONNECTING, self._wire.patience))
        if response.headers.get("Content-Encoding", "identity") != "identity":  # small may become huge
            response.close()
            raise requests.exceptions.ContentDecodingError("the answer is compressed")
        return response


def _plain(wire: Wire) -> type[HTTPConnection]:
    class Plain(HTTPConnection):
        def connect(self) -> None:
            if wire.encryption:
                raise Lost
            super().connect()

        def _new_conn(self) -> socket.socket:
            plain = super()._new_conn()
            return Bounded(plain.family, plain.type, plain.proto, plain.detach())

        def getresponse(self) -> Any:
            cast("Bounded", self.sock).expect(wire.patience, LARGEST)
            return super().getresponse()

    return Plain


def _secure(wire: Wire) -> type[HTTPSConnection]:
    class Secure(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            self.is_verified = True  # as far as was asked for: no warning on stderr

        def getresponse(self) -> Any:
            cast("Bounded", self.sock).expect(wire.patience, LARGEST)
            return super().getresponse()

    return Secure
