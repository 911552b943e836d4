"""A session with a Hyper-V host over WinRM: one shell, one script a phase, JSON out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nestvirt.backends.hyperv import answers, scripts
from nestvirt.backends.hyperv.address import Address
from nestvirt.errors import ConnectionFailed, Error, MissingExtra

if TYPE_CHECKING:
    from nestvirt.backends.hyperv.shell import Shell


class HyperVSession:
    """One shell on one host, opened when it is first needed; see ``run``.

    Args:
        settings: what was resolved: where, credentials, and how TLS is verified.

    Raises:
        SettingsError: something is missing in them, or does not go together.
        MissingExtra: a Python package that this takes is not installed.
    """

    def __init__(self, settings: Mapping[str, str]) -> None:
        self.address = Address.parse(
            settings["endpoint"], settings.get("port"), plain="plain_http" in settings
        )
        self.host = self.address.host
        self._shell: Shell | None = _shell(self.address, settings)

    def open(self) -> None:
        """Log in, and open the shell, or close the session. ``run`` does so by itself; this is to know early.

        Raises:
            AccessDenied: the credentials, or the user, were refused.
            ConnectionFailed: nobody answers, or is not trusted.
        """
        try:
            self._open_shell("open").open()
        except Error:
            self.close()
            raise

    def run(
        self,
        phase: str,
        data: Mapping[str, Any],
        *,
        secret: Mapping[str, str] | None = None,
        timeout: float = 60.0,
    ) -> dict[str, Any]:
        """Run the script ``scripts/<phase>.ps1`` on the host.

        Args:
            phase: the script's name, without its ending.
            data: what the script finds in its parameter ``$data``; anything that JSON can hold.
            secret: what it finds in ``$data.secret``; kept out of every command line.
            timeout: seconds for all of it.

        Returns:
            What the script's ``Invoke-Phase`` has returned.

        Raises:
            ScriptFailed: it ended with an error of PowerShell's.
            NoAnswer: it was sent, and it is not known what has become of it.
            AccessDenied: the credentials, or the user, were refused.
            ConnectionFailed: nobody answers, or is not trusted; nothing was run.
            Error: it has answered nothing, or nonsense.
        """
        stdout, stderr, code = self._open_shell(phase).run(scripts.invocation(phase, data, secret), timeout)
        return answers.parse(phase, stdout, stderr, code)

    def _open_shell(self, what: str) -> Shell:
        if self._shell is None:
            raise ConnectionFailed(
                f"the session with {self.address} is closed", evidence=what, cure="run this again"
            )
        return self._shell

    def close(self) -> None:
        """End what still runs, and close the shell; may be called again."""
        shell, self._shell = self._shell, None
        if shell is not None:
            shell.close()


def _shell(address: Address, settings: Mapping[str, str]) -> Shell:
    try:
        from nestvirt.backends.hyperv.auth import Login, Trust
        from nestvirt.backends.hyperv.shell import Shell
    except ImportError as error:
        raise MissingExtra(
            "the Python package for WinRM is not installed",
            evidence=str(error),
            cure="pip install 'pywinrm[credssp]'",
        ) from error
    login = Login.of(settings, address)
    return Shell(address, login, Trust.of(settings, address, login))
