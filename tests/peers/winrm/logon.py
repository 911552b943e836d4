"""Who is at the other end: by Basic, Negotiate (NTLM, Kerberos), CredSSP, or a client's certificate.

Negotiate and CredSSP are for a whole connection, and encrypt what is said on it; Basic is for one request.
"""

from __future__ import annotations

import base64
import binascii
import ssl
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import spnego
import spnego.channel_bindings
import spnego.exceptions
import spnego.tls

from tests.peers.winrm import gss
from tests.peers.winrm.accounts import Account, Accounts

MUTUAL = "http://schemas.dmtf.org/wbem/wsman/1/wsman/secprofile/https/mutual"
NTLM, KERBEROS = b"NTLMSSP\0", bytes.fromhex("06092a864886f712010202")
SPNEGO_SESSION = "application/HTTP-SPNEGO-session-encrypted"
CREDSSP_SESSION = "application/HTTP-CredSSP-session-encrypted"


class Denied(Exception):
    """That is not somebody who may come in."""


class Security(Protocol):
    """One way of proving who one is, which takes several tokens and can encrypt afterwards."""

    scheme: str
    session: str
    way: str

    def step(self, token: bytes) -> bytes:
        """Take a token; return the answer. Raises Denied."""

    @property
    def complete(self) -> bool:
        """Whether it has been proved."""

    @property
    def principal(self) -> str:
        """Who it is, once complete."""

    def wrap(self, message: bytes) -> tuple[bytes, bytes]:
        """Encrypt; return the header and the rest."""

    def unwrap(self, header: bytes, data: bytes) -> bytes:
        """Decrypt. Raises Denied."""


class Spnego:
    """NTLM, alone, or within SPNEGO or CredSSP, by pyspnego's acceptor."""

    def __init__(self, accounts: Accounts, kind: str, binding: bytes) -> None:
        self.way = kind
        self.scheme = "CredSSP" if kind == "credssp" else "Negotiate"
        self.session = CREDSSP_SESSION if kind == "credssp" else SPNEGO_SESSION
        self._accounts = accounts
        bindings = spnego.channel_bindings.GssChannelBindings(application_data=binding) if binding else None
        own = spnego.NegotiateOptions.use_ntlm if kind == "ntlm" else spnego.NegotiateOptions.use_negotiate
        with accounts.for_ntlm():
            if kind == "credssp":
                within = _Within(spnego.server(protocol="negotiate", options=own))
                self._context = spnego.server(
                    protocol=kind,
                    credssp_tls_context=_credssp_context(),
                    credssp_negotiate_context=within,
                )
            else:
                self._context = spnego.server(protocol=kind, options=own, channel_bindings=bindings)

    @property
    def complete(self) -> bool:
        return self._context.complete

    @property
    def principal(self) -> str:
        return self._context.client_principal or ""

    def step(self, token: bytes) -> bytes:
        try:
            with self._accounts.for_ntlm():
                return self._context.step(token) or b""
        except (spnego.exceptions.SpnegoError, ValueError) as error:
            raise Denied(f"{error}") from error

    def wrap(self, message: bytes) -> tuple[bytes, bytes]:
        wrapped = self._context.wrap_winrm(message)
        return wrapped.header, wrapped.data

    def unwrap(self, header: bytes, data: bytes) -> bytes:
        try:
            return self._context.unwrap_winrm(header, data)
        except spnego.exceptions.SpnegoError as error:
            raise Denied(f"{error}") from error


class _Within:
    """A login within CredSSP: Windows does not tell an unknown user from a wrong password; pyspnego does."""

    def __init__(self, context: spnego.ContextProxy) -> None:
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def step(self, token: bytes) -> bytes | None:
        try:
            return self._context.step(token)
        except spnego.exceptions.SpnegoError as error:
            raise spnego.exceptions.InvalidTokenError(context_msg=str(error)) from error


class Kerberos:
    """A ticket for this service."""

    scheme, session, way = "Negotiate", SPNEGO_SESSION, "kerberos"

    def __init__(self, binding: bytes) -> None:
        self._acceptor = gss.Acceptor(binding)

    @property
    def complete(self) -> bool:
        return self._acceptor.complete

    @property
    def principal(self) -> str:
        return self._acceptor.principal

    def step(self, token: bytes) -> bytes:
        try:
            return self._acceptor.step(token)
        except gss.Denied as error:
            raise Denied(f"{error}") from error

    def wrap(self, message: bytes) -> tuple[bytes, bytes]:
        return self._acceptor.wrap(message)

    def unwrap(self, header: bytes, data: bytes) -> bytes:
        try:
            return self._acceptor.unwrap(header, data)
        except gss.Denied as error:
            raise Denied(f"{error}") from error


@dataclass(frozen=True)
class Entry:
    """What a request's headers have led to.

    Attributes:
        account: who it is; None: nobody yet.
        way: basic, ntlm, negotiate, kerberos, credssp or certificate.
        headers: WWW-Authenticate, each.
        security: what encrypts from now on; None: nothing.
    """

    account: Account | None
    way: str = ""
    headers: tuple[str, ...] = ()
    security: Security | None = None


class Door:
    """One connection's way in.

    Args:
        accounts: who may.
        offers: the schemes that the service has: Negotiate, Kerberos, Basic, CredSSP.
        binding: of the TLS connection around it; empty where there is none.
        certificate: asks for the client's, as SHA-256 in hexadecimal digits; empty where it shows none.
    """

    def __init__(
        self, accounts: Accounts, offers: Sequence[str], binding: bytes, certificate: Callable[[], str]
    ) -> None:
        self._accounts = accounts
        self._offers = offers
        self._binding = binding
        self._certificate = certificate
        self._security: Security | None = None
        self._within: Entry | None = None
        self.denials: list[str] = []

    def enter(self, authorization: str) -> Entry:
        """Take a request's Authorization; empty: it has none."""
        scheme, _, value = authorization.partition(" ")
        try:
            if scheme == MUTUAL:
                return self._entry(self._accounts.certified(self._certificate()), "certificate")
            if scheme == "Basic" and "Basic" in self._offers:
                return self._basic(value)
            if scheme in ("Negotiate", "Kerberos", "CredSSP") and scheme in self._offers and value:
                return self._negotiated(scheme, base64.b64decode(value, validate=True))
        except (Denied, binascii.Error) as error:
            self.denials.append(f"{error}")
            self._security = self._within = None
            return self._challenge()
        return self._within or self._challenge()

    def _basic(self, value: str) -> Entry:
        name, _, password = base64.b64decode(value, validate=True).decode(errors="replace").partition(":")
        account = self._accounts.named(name)
        return self._entry(account if account and account.password == password else None, "basic")

    def _entry(self, account: Account | None, way: str) -> Entry:
        if account is None:
            raise Denied(f"nobody by {way}")
        return Entry(account, way)

    def _negotiated(self, scheme: str, token: bytes) -> Entry:
        if self._security is None or self._security.complete:
            self._within = None
            self._security = self._new(scheme, token)
        security = self._security
        answer = base64.b64encode(security.step(token)).decode()
        if not security.complete:
            if not answer:
                raise Denied("no answer to that")
            return Entry(None, headers=(f"{scheme} {answer}",))
        account = self._accounts.named(security.principal)
        if account is None:
            raise Denied(f"{security.principal} is nobody here")
        self._within = Entry(account, security.way, (), security)
        return Entry(account, security.way, (f"{scheme} {answer}",) if answer else (), security)

    def _new(self, scheme: str, token: bytes) -> Security:
        if scheme == "CredSSP":
            return Spnego(self._accounts, "credssp", b"")
        if token.startswith(NTLM):
            return Spnego(self._accounts, "ntlm", self._binding)
        if KERBEROS in token[:32]:
            return Kerberos(self._binding)
        return Spnego(self._accounts, "negotiate", self._binding)

    def _challenge(self) -> Entry:
        realm = {"Basic": 'Basic realm="WSMAN"'}
        return Entry(None, headers=tuple(realm.get(offer, offer) for offer in self._offers))


@cache
def _credssp_context() -> spnego.tls.CredSSPTLSContext:
    """What the service shows within CredSSP: a certificate that it has signed itself, as Windows does."""
    made = spnego.tls.default_tls_context(usage="accept")
    certificate, key, made.public_key = spnego.tls.generate_tls_certificate()
    made.context.maximum_version = ssl.TLSVersion.TLSv1_2  # as Schannel does up to Server 2019
    with tempfile.TemporaryDirectory(prefix="nv-credssp-") as folder:
        file = Path(folder) / "both.pem"
        file.write_bytes(certificate + key)
        made.context.load_cert_chain(file)
    return made
