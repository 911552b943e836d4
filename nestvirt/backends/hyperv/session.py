"""A session with a Hyper-V host over WinRM: one shell, one script a phase, JSON out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class HyperVSession:
    """One shell on one host, opened when it is first needed; see ``run``.

    Args:
        settings: what was resolved: where, credentials, and how TLS is verified.

    Raises:
        SettingsError: something is missing in them, or does not go together.
    """

    host: str
    """The host's name or address, as connected to."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self.host = settings["endpoint"]

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
            AccessDenied: the credentials were refused.
            ConnectionFailed: nobody answers, or is not trusted; nothing was run.
        """
        raise NotImplementedError

    def close(self) -> None:
        """End what still runs, and close the shell; may be called again."""
