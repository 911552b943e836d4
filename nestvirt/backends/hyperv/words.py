"""What goes wrong between us and a host's WinRM, in words: what was seen, and what to do about it.

Codes: WsmError.h; Kerberos' minor codes: krb5.h. Texts are in the host's language, and for people.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping

import requests
from urllib3.exceptions import NameResolutionError, NewConnectionError
from winrm.exceptions import WSManFaultError

from nestvirt import tls
from nestvirt.backends.hyperv.address import CERTIFICATE, Address
from nestvirt.backends.hyperv.auth import TRANSPORTS, Login, Trust
from nestvirt.backends.hyperv.faults import NoAnswer
from nestvirt.backends.hyperv.wire import Refused
from nestvirt.errors import AccessDenied, ConnectionFailed, Error
from nestvirt.printable import printable

BEGUN = ("Command", "Send", "Receive")
"""After these it is not known whether the script has run."""

GONE = 2150858843
"""ERROR_WSMAN_INVALID_SELECTORS: the host does not know the shell, or the command in it, (any more)."""

_QUOTAS = range(0x803381A4, 0x803381A9)
_ACCESS_DENIED = 5
_LISTENS = (
    "see that WinRM listens there: winrm enumerate winrm/config/listener; and that no firewall stands between"
)
_NAMED = "see that the host's name is right, and that this machine's DNS knows it"
_AGAIN = "see how things stand on the host; then run this again"
_KERBEROS: Mapping[int, str] = {
    -1765328347: "the clocks of this machine and of the domain differ too much: set them right (timedatectl)",
    -1765328228: "no KDC of the realm answers: see /etc/krb5.conf, and DNS",
    -1765328230: "the realm's KDC is not known: name it in /etc/krb5.conf, or see DNS",
    -1765328164: "the realm's KDC is not found: see /etc/krb5.conf, and DNS",
    -1765328377: "the domain does not know the host by this name: give the full name that it has there",
    -1765328243: "get a ticket first: kinit user@REALM",
    -1765328189: "get a ticket first: kinit user@REALM",
    -1765328352: "the ticket has run out; get a new one: kinit user@REALM",
}


class QuotaReached(ConnectionFailed):
    """The user has as many shells, or operations, on the host as it lets a user have."""


class Words:
    """The words for one host.

    Args:
        address: where it is.
        login: who one is.
        trust: by what it is known.
    """

    def __init__(self, address: Address, login: Login, trust: Trust) -> None:
        self._address, self._login, self._trust = address, login, trust

    def fault(self, action: str, error: WSManFaultError) -> Error:
        """The host answered with a SOAP fault: what was asked was not begun."""
        name = (error.fault_subcode or "").rpartition(":")[2]
        code = error.wsman_fault_code or error.wmierror_code  # of some quotas
        evidence = printable(f"{action}: {name} {code or ''}: {error.reason}", 600)
        if code == _ACCESS_DENIED or name == "AccessDenied":
            return AccessDenied(
                f"{self._address} does not let {self._login.who} use WinRM",
                evidence=evidence,
                cure="WinRM's shell lets in administrators alone, unless its RootSDDL says more: let this "
                "user read and execute there (winrm configSDDL default), and add it to Hyper-V "
                "Administrators; a local administrator needs LocalAccountTokenFilterPolicy=1",
            )
        if code in _QUOTAS or name == "QuotaLimit":
            return QuotaReached(
                f"{self._address} has reached a quota of WinRM",
                evidence=evidence,
                cure="close what holds shells there (Get-WSManInstance -ResourceURI shell -Enumerate), or "
                "raise the quota: winrm get winrm/config/winrs",
            )
        if code == GONE and action in ("Send", "Receive"):
            return NoAnswer(
                f"{self._address} has closed the shell while a script ran", evidence=evidence, cure=_AGAIN
            )
        kind = NoAnswer if action in ("Send", "Receive") else ConnectionFailed
        return kind(f"WinRM on {self._address} refused: {action}", evidence=evidence, cure=_AGAIN)

    def late(self) -> NoAnswer:
        """The deadline has passed; the script was told to end."""
        return NoAnswer(
            f"the script did not end on {self._address} in time",
            evidence="it was terminated",
            cure=f"see the host's load; {_AGAIN}",
        )

    def endless(self, most: int) -> Error:
        """It writes too much."""
        return Error(
            f"the script on {self._address} has answered too much",
            evidence=f"more than {most} bytes; it was terminated",
            cure="see on the host what powershell.exe -NoProfile writes",
        )

    def silent(self, action: str, evidence: str, cure: str = _LISTENS) -> ConnectionFailed:
        """Nobody answers, or not in time."""
        kind = NoAnswer if action in BEGUN else ConnectionFailed
        evidence = printable(f"{action}: {evidence}", 300)
        return kind(f"no answer from {self._address}", evidence=evidence, cure=cure)

    def other(self, action: str, evidence: str) -> ConnectionFailed:
        """Somebody answers, but not as WinRM."""
        kind = NoAnswer if action in BEGUN else ConnectionFailed
        return kind(
            f"{self._address} answers, but not as WinRM does",
            evidence=printable(f"{action}: {evidence}", 300),
            cure="give the host's address and the port of its WinRM listener: 5986 for HTTPS, 5985 for HTTP",
        )

    def status(self, action: str, code: int, text: str) -> ConnectionFailed:
        """A status of HTTP that is not SOAP's."""
        seen = re.sub("<[^>]*>", " ", text[:2000])
        return self.other(action, f"HTTP {code} {seen}")

    def denied(self, error: Exception) -> AccessDenied:
        """Nobody is let in."""
        return self._unauthorized(error.offers) if isinstance(error, Refused) else self._insecure(error)

    def _unauthorized(self, offers: list[str]) -> AccessDenied:
        transport = self._login.transport
        wanted = TRANSPORTS[transport]
        evidence = f"{transport} was refused; it offers {printable(', '.join(offers), 100) or 'nothing'}"
        if transport == "certificate":
            cure = "on the host, trust the certificate's CA, map the certificate to a user (winrm enumerate "
            cure += "winrm/config/service/certmapping), and enable Certificate (winrm get "
            cure += "winrm/config/service/auth)"
        elif not set(wanted) & set(offers):
            cure = f"enable {transport} on the host (winrm get winrm/config/service/auth), or name another "
            cure += "--transport"
        elif transport == "kerberos":
            cure = "see that host and domain agree on the time, and that the ticket is of this domain: klist"
        else:
            cure = "see that user (DOMAIN\\user, or a local account's name) and password are right, and that "
            cure += "the account is not locked"
        return AccessDenied(
            f"{self._address} refused the credentials of {self._login.who}", evidence=evidence, cure=cure
        )

    def _insecure(self, error: Exception) -> AccessDenied:
        """Logging in, or the encryption of messages, has failed; Kerberos tells why in the text."""
        told = printable(str(error), 400)
        codes = {_signed(int(number)) for number in re.findall(r"-?\d{7,}", told)}
        known = [cure for code, cure in _KERBEROS.items() if code in codes]
        return AccessDenied(
            f"{self._login.transport} does not let {self._login.who} in at {self._address}",
            evidence=f"{type(error).__name__}: {told}",
            cure=known[0]
            if known
            else "see that user, password and the host's name are right, and the clocks",
        )

    def of_request(self, action: str, error: requests.exceptions.RequestException) -> Error:
        """What requests raises."""
        name, reason = type(error).__name__, _innermost(error)
        if name in ("KerberosExchangeError", "MutualAuthenticationError"):
            return self._insecure(error)
        if isinstance(error, requests.exceptions.SSLError):
            return self._of_tls(action, reason)
        if isinstance(error, requests.exceptions.TooManyRedirects):
            return self.other(action, "it redirects elsewhere")
        if isinstance(error, requests.exceptions.ConnectTimeout) or isinstance(reason, NewConnectionError):
            cure = _NAMED if isinstance(reason, NameResolutionError) else _LISTENS
            return self.silent("connecting", f"{type(reason).__name__}: {reason}", cure)
        return self.silent(action, f"{type(reason).__name__}: {reason}")

    def _of_tls(self, action: str, error: BaseException) -> Error:
        if not isinstance(error, ssl.SSLError) or isinstance(error, ssl.SSLCertVerificationError):
            return self._distrusted(error)
        if self._login.certificate and "ALERT" in str(error):
            return self._unauthorized([])
        return self.other(action, f"{type(error).__name__}: {error}")

    def _distrusted(self, error: BaseException) -> ConnectionFailed:
        seen = tls.fingerprint_of(self._address.peer)
        shown = f"; it shows the fingerprint {seen}" if seen else ""
        if self._trust.pin:
            return ConnectionFailed(
                f"the certificate of {self._address} is not the one whose fingerprint was given",
                evidence=f"nothing was sent{shown}",
                cure=f"where the certificate was renewed, compare it with {CERTIFICATE}, and give the new "
                "fingerprint; else somebody stands between",
            )
        return ConnectionFailed(
            f"the certificate of {self._address} is not trusted",
            evidence=printable(str(error), 200) + shown,
            cure="name its CA with --ca-file; or compare the fingerprint with that of "
            f"{CERTIFICATE}, and give it with --fingerprint",
        )


def _signed(code: int) -> int:
    """Of a number of 32 bits, as which libraries write the same code with and without its sign."""
    return code - 2**32 if code >= 2**31 else code


def _innermost(error: BaseException) -> BaseException:
    """The reason at the bottom of what requests and urllib3 wrap around it."""
    while True:
        inner = getattr(error, "reason", None) or (error.args[0] if error.args else None)
        if not isinstance(inner, BaseException) or isinstance(error, NewConnectionError):
            return error
        error = inner
