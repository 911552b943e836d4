"""Where a vCenter or an ESXi host is, and by what its certificate is known."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from nestvirt import tls
from nestvirt.errors import SettingsError

PORT = 443
CERTIFICATE = "the vSphere Client: Administration > Certificates, or on an ESXi host: Manage > Security"


@dataclass(frozen=True)
class Address:
    """One server.

    Attributes:
        path: of the SOAP endpoint.
    """

    host: str
    port: int
    path: str = "/sdk"

    @classmethod
    def parse(cls, text: str, port: str | None = None) -> Address:
        """Read ``HOST``, ``HOST:PORT``, ``https://HOST[:PORT][/sdk]``.

        Args:
            text: the address; a user in it was taken out before.
            port: which counts where the address names none.

        Raises:
            SettingsError: it is none.
        """
        try:
            parts = urlsplit(text if "://" in text else f"https://{text}")
            number = int(port or PORT) if parts.port is None else parts.port
            if not 0 < number < 2**16:
                raise ValueError
        except ValueError:  # the number may be part of a password
            raise _bad("its port is not a number from 1 to 65535") from None
        if parts.scheme != "https" or not parts.hostname or parts.username is not None:
            raise _bad("it is not of the form https://HOST[:PORT]")
        try:
            parts.hostname.encode("idna")
        except UnicodeError:
            raise _bad("its host is not the name of one: a part of it is empty or too long") from None
        path = parts.path.rstrip("/")
        web_page = path == "/ui" or path.startswith("/ui/")  # as it is copied from a browser
        return cls(parts.hostname, number, "/sdk" if web_page or not path else path)

    @property
    def peer(self) -> tuple[str, int]:
        """Host and port."""
        return self.host, self.port

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        path = "" if self.path == "/sdk" else self.path
        return f"https://{host}{'' if self.port == PORT else f':{self.port}'}{path}"


def _bad(evidence: str) -> SettingsError:
    return SettingsError(
        "vSphere's address cannot be used", evidence=evidence, cure="for example: https://vcenter.example.com"
    )


@dataclass(frozen=True)
class Pins:
    """The certificates that the user has named, by server.

    Attributes:
        own: digits of the endpoint's; None where it is verified, or not at all.
        known: host and port to digits, for other servers such as the hosts that serve guests' files.
    """

    own: str | None
    known: Mapping[tuple[str, int], str]

    @classmethod
    def of(cls, settings: Mapping[str, str], address: Address) -> Pins:
        """From the settings ``fingerprint`` and ``known_hosts``.

        Raises:
            SettingsError: one of them cannot be used.
        """
        path, given = settings.get("known_hosts"), settings.get("fingerprint")
        known = _known_hosts(Path(path)) if path else {}
        own = tls.digits_of(given, where=CERTIFICATE, sha1=True) if given else None
        # govc asks its file only where no CA vouches; a CA file that was named goes first here, too.
        beside = None if settings.get("ca_file") or settings.get("insecure") else known.get(address.peer)
        return cls(own or beside, known)


def _known_hosts(path: Path) -> dict[tuple[str, int], str]:
    """Lines ``HOST:PORT THUMBPRINT``, as ``govc about.cert -thumbprint`` writes them."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        cure = "correct or unset GOVC_TLS_KNOWN_HOSTS"
        raise SettingsError(
            "the file of known thumbprints cannot be read", evidence=str(error), cure=cure
        ) from error
    found: dict[tuple[str, int], str] = {}
    for line in lines:
        match = re.fullmatch(r"\s*\[?([^\s\]]+?)\]?(?::(\d+))?\s+([0-9A-Fa-f:]+)\s*", line)
        if match:
            peer = (match[1].lower(), int(match[2] or PORT))
            found[peer] = tls.digits_of(match[3], where=CERTIFICATE, sha1=True)
    return found
