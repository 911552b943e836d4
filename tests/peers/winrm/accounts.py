"""Who may log in, and how NTLM's acceptor gets to know."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_ENVIRONMENT = threading.Lock()
"""pyspnego reads the accounts from a file that the environment names, of which a process has one."""


@dataclass(frozen=True)
class Account:
    """One of the host's users.

    Attributes:
        name: as Windows shows it, DOMAIN\\user.
        password: without colons.
        principal: its name for Kerberos, and the other way of writing it: user@DOMAIN.
        remote: whether it may use WinRM's own shell. Administrators may; Remote Management Users may use
            PowerShell's, and this one only once the service's RootSDDL says so (winrm configSDDL default).
        certificate: SHA-256 in hexadecimal digits of the client's certificate that is mapped to it.
    """

    name: str
    password: str
    principal: str = ""
    remote: bool = True
    certificate: str = ""

    @property
    def ways(self) -> list[str]:
        """How it may be written, in lower case."""
        short = self.name.rpartition("\\")[2]
        return [way.lower() for way in (self.name, short, self.principal) if way]


class Accounts:
    """All of them.

    Args:
        accounts: the first is whom a client's certificate is mapped to, where nobody says otherwise.
        folder: for the file that pyspnego reads.
    """

    def __init__(self, accounts: Sequence[Account], folder: Path) -> None:
        self.accounts = list(accounts)
        self._file = folder / "accounts"

    def named(self, name: str) -> Account | None:
        """The account that is written so."""
        return next((one for one in self.accounts if name.lower() in one.ways), None)

    def certified(self, digest: str) -> Account | None:
        """The account to which a client's certificate is mapped."""
        return next((one for one in self.accounts if digest and one.certificate == digest), None)

    @contextmanager
    def for_ntlm(self) -> Iterator[None]:
        """pyspnego knows these accounts, and no others, as long as the context lasts."""
        lines = []
        for one in self.accounts:
            domain, _, user = one.name.rpartition("\\")
            lines += [f"{where}:{who}:{one.password}" for where, who in ((domain, user), ("", user))]
            if one.principal:
                lines.append(f":{one.principal}:{one.password}")
        with _ENVIRONMENT:
            self._file.touch(mode=0o600)
            self._file.write_text("\n".join(lines))
            former = os.environ.get("NTLM_USER_FILE")
            os.environ["NTLM_USER_FILE"] = str(self._file)
            try:
                yield
            finally:
                del os.environ["NTLM_USER_FILE"]
                if former is not None:
                    os.environ["NTLM_USER_FILE"] = former
