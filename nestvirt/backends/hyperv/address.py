"""Where a Hyper-V host's WinRM listens."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from nestvirt.errors import SettingsError

PORTS = {"https": 5986, "http": 5985}
"""Of WinRM 2.0 and later (https://learn.microsoft.com/en-us/windows/win32/winrm/installation-and-configuration-for-windows-remote-management)."""

CERTIFICATE = (
    "the host's own: Get-ChildItem Cert:\\LocalMachine\\My, and the one that winrm enumerate "
    "winrm/config/listener names"
)


@dataclass(frozen=True)
class Address:
    """One host.

    Attributes:
        secure: whether it is spoken to over TLS.
    """

    host: str
    port: int
    secure: bool = True

    @classmethod
    def parse(cls, text: str, port: str | None = None, *, plain: bool = False) -> Address:
        """Read ``HOST``, ``HOST:PORT``, ``https://HOST[:PORT][/wsman]`` or ``http://HOST[:PORT][/wsman]``.

        Args:
            text: the address.
            port: which counts where the address names none.
            plain: whether an address without a scheme is one of HTTP.

        Raises:
            SettingsError: it is none.
        """
        scheme = "http" if plain else "https"
        if re.fullmatch("[0-9A-Fa-f]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*", text):  # IPv6 without brackets
            text = f"[{text}]"
        try:
            parts = urlsplit(text if "://" in text else f"{scheme}://{text}")
            number = int(port or PORTS.get(parts.scheme, 0)) if parts.port is None else parts.port
            if parts.scheme in PORTS and not 0 < number < 2**16:
                raise ValueError
        except ValueError:  # the number may be part of a password
            raise _bad("its host or port is malformed; a port is a number from 1 to 65535") from None
        whole = parts.scheme in PORTS and parts.hostname and parts.username is None
        if not whole or parts.path.rstrip("/").lower() not in ("", "/wsman") or parts.query or parts.fragment:
            raise _bad("it is not of the form https://HOST[:PORT]")
        host = str(parts.hostname)
        try:
            host.encode("idna")
        except UnicodeError:
            raise _bad("its host is not the name of one: a part of it is empty or too long") from None
        if not host.replace(":", "").isprintable() or any(c.isspace() for c in host):
            raise _bad("its host is not the name of one")
        return cls(host, number, parts.scheme == "https")

    @property
    def peer(self) -> tuple[str, int]:
        """Host and port."""
        return self.host, self.port

    @property
    def url(self) -> str:
        """Of WS-Management, with its port."""
        return f"{self._scheme}://{self._literal}:{self.port}/wsman"

    def __str__(self) -> str:
        """As it can be given again."""
        usual = self.port == PORTS[self._scheme]
        return f"{self._scheme}://{self._literal}{'' if usual else f':{self.port}'}"

    @property
    def _scheme(self) -> str:
        return "https" if self.secure else "http"

    @property
    def _literal(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


def _bad(evidence: str) -> SettingsError:
    return SettingsError(
        "the Hyper-V host's address cannot be used",
        evidence=evidence,
        cure="for example: https://hyperv1.example.com; or http://hyperv1.example.com, where messages are "
        "encrypted by NTLM, Kerberos or CredSSP",
    )
