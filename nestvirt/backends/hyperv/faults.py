"""What WinRM and our scripts say when they fail, by stable names: an error's id and category, never its text.

Windows words its messages in its own language; see about_Error_Categories and ``ErrorRecord`` of PowerShell
(https://learn.microsoft.com/en-us/dotnet/api/system.management.automation.errorrecord).
"""

from __future__ import annotations

from nestvirt.errors import ConnectionFailed, Error


class NoAnswer(ConnectionFailed):
    """A command was sent, and it is not known what has become of it."""


class ScriptFailed(Error):
    """A script ended with a terminating error of PowerShell.

    Args:
        id: the FullyQualifiedErrorId: a name and the cmdlet's class, such as
            ``InvalidState,Microsoft.HyperV.PowerShell.Commands.SetVMProcessor``.
        category: of the ErrorCategory, such as ``ObjectNotFound`` or ``PermissionDenied``.
        type: the exception's full .NET name.
        text: the product's words, for people alone.
        hresult: the exception's HRESULT, as a signed number.
    """

    def __init__(
        self,
        message: str,
        *,
        evidence: str = "",
        cure: str = "",
        id: str = "",  # noqa: A002 - as PowerShell says it
        category: str = "",
        type: str = "",  # noqa: A002
        text: str = "",
        hresult: int = 0,
    ) -> None:
        super().__init__(message, evidence=evidence, cure=cure)
        self.id = id
        self.category = category
        self.type = type
        self.text = text
        self.hresult = hresult
