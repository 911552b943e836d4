"""Who one is to a Hyper-V host, and by what the host's certificate is known."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from nestvirt import tls
from nestvirt.backends.hyperv.address import CERTIFICATE, Address
from nestvirt.errors import MissingExtra, SettingsError

TRANSPORTS: Mapping[str, tuple[str, ...]] = {
    "ntlm": ("ntlm", "negotiate"),
    "kerberos": ("kerberos", "negotiate"),
    "credssp": ("credssp",),
    "certificate": (),
    "basic": ("basic",),
}
"""The ways to log in, and the schemes of HTTP that a host has to offer for each."""

WITH_PASSWORD = ("ntlm", "credssp", "basic")
OVER_TLS = ("certificate", "basic")
"""Those that encrypt no messages by themselves."""

_GIVE = (
    "set HYPERV_USER and HYPERV_PASSWORD; or keep the password: keyring set nestvirt hyperv:password; at a "
    "terminal, --username asks for it; or log in without one: --transport kerberos or certificate"
)


@dataclass(frozen=True)
class Login:
    """One way to log in.

    Attributes:
        transport: one of TRANSPORTS.
        username: ``DOMAIN\\user``, ``user@domain``, or of a local account; of Kerberos the principal, empty
            for the one that holds a ticket.
        password: empty where the way takes none.
        certificate: files of a client's certificate and its key.
    """

    transport: str
    username: str = ""
    password: str = field(default="", repr=False)
    certificate: tuple[str, str] | None = None

    @classmethod
    def of(cls, settings: Mapping[str, str], address: Address) -> Login:
        """From the settings.

        Raises:
            SettingsError: something is missing, or this way does not go to this address.
            MissingExtra: the way needs a Python package that is not installed.
        """
        transport = _transport(settings)
        username, password = settings.get("username", ""), settings.get("password", "")
        if transport in OVER_TLS and not address.secure:
            raise SettingsError(
                f"{transport} logs in over HTTPS only",
                evidence=f"{address} is not, and {transport} encrypts no messages",
                cure="give an https:// address; or --transport ntlm, kerberos or credssp, which encrypt them",
            )
        if transport in WITH_PASSWORD:
            if not (username and password):
                raise SettingsError(
                    f"there are no credentials for {address}",
                    evidence=f"no {'password' if username else 'user name'} was found",
                    cure=_GIVE,
                )
            _need(transport)
            return cls(transport, username, password)
        if transport == "kerberos":
            _need(transport)
            return cls(transport, username)
        files = settings.get("cert_file"), settings.get("key_file")
        if not (files[0] and files[1]):
            raise SettingsError(
                "the client's certificate is not known, or its key is not",
                evidence=f"no {'key_file' if files[0] else 'cert_file'} was found",
                cure="set NESTVIRT_HYPERV_CERT_FILE and NESTVIRT_HYPERV_KEY_FILE, or HYPERV_CERT_PATH and "
                "HYPERV_KEY_PATH, to PEM files",
            )
        return cls(transport, certificate=(files[0], files[1]))

    @property
    def who(self) -> str:
        """For people."""
        if self.certificate:
            return f"the certificate {self.certificate[0]}"
        return self.username or "the Kerberos ticket's principal"


def _transport(settings: Mapping[str, str]) -> str:
    """The one that was asked for, or that what is known will do for."""
    asked = settings.get("transport", "").lower()
    if asked:
        if asked in TRANSPORTS:
            return asked
        raise SettingsError(
            "there is no such transport",
            evidence=f"{len(asked)} characters; there are: {', '.join(TRANSPORTS)}",
            cure="name one of them in --transport or NESTVIRT_HYPERV_TRANSPORT",
        )
    if settings.get("cert_file") and settings.get("key_file") and not settings.get("password"):
        return "certificate"
    return "basic" if settings.get("basic") else "ntlm"


def _need(transport: str) -> None:
    """Raises MissingExtra where pywinrm lacks what it needs for that."""
    from winrm import transport as pywinrm

    there = {"kerberos": pywinrm.HAVE_KERBEROS, "credssp": pywinrm.HAVE_CREDSSP}
    if not there.get(transport, True):
        raise MissingExtra(
            f"the Python package for {transport} is not installed",
            evidence=f"pywinrm goes without it; --transport {transport} does not",
            cure=f"pip install 'pywinrm[{transport}]'",
        )


@dataclass(frozen=True)
class Trust:
    """By what the host's certificate is known.

    Attributes:
        context: None without TLS.
        pin: digits of the one certificate that will do, whoever has signed it.
    """

    context: ssl.SSLContext | None
    pin: str | None = None

    @classmethod
    def of(cls, settings: Mapping[str, str], address: Address, login: Login) -> Trust:
        """From the settings alone: no other variable, such as REQUESTS_CA_BUNDLE, changes it.

        Raises:
            SettingsError: a file or the fingerprint cannot be used.
        """
        if not address.secure:
            return cls(None)
        given = settings.get("fingerprint")
        # Windows itself shows a thumbprint, which is of SHA-1.
        pin = tls.digits_of(given, where=CERTIFICATE, sha1=True) if given else None
        verify = not (pin or settings.get("insecure"))
        context = tls.context(settings.get("ca_file"), verify=verify)
        if login.certificate:
            _load(context, *login.certificate)
        return cls(context, pin)


def _load(context: ssl.SSLContext, certificate: str, key: str) -> None:
    def refuse() -> NoReturn:
        raise ValueError("the key is encrypted")  # else OpenSSL would ask at the terminal

    try:
        context.load_cert_chain(certificate, key, password=refuse)
    except (OSError, ValueError) as error:  # ssl.SSLError is one
        raise SettingsError(
            "the client's certificate cannot be used",
            evidence=f"{certificate}, {key}: {error}",
            cure="name a PEM file with the certificate, and one with its key, not encrypted",
        ) from error
    context.post_handshake_auth = True  # HTTP.sys asks for it after the handshake
