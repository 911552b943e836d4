"""A session with vSphere, by pyvmomi: over a connection of our own, with a deadline for every request.

pyvmomi's own connections verify nothing on loopback, and take a wrong certificate for a pinned one; so it
gets ours (tls.PinnedConnection). API: https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/.
"""

from __future__ import annotations

import contextlib
import http.client
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import import_module
from typing import Any, TypeVar
from xml.parsers.expat import ExpatError

from pyVmomi import vim, vmodl

from nestvirt import tls
from nestvirt.backends.vsphere.address import CERTIFICATE, Address, Pins
from nestvirt.backends.vsphere.faults import EXPIRED, NoAnswer, Refused, refused
from nestvirt.errors import AccessDenied, ConnectionFailed, SettingsError
from nestvirt.printable import printable

T = TypeVar("T")

ANSWER = 60.0
"""Seconds to wait for an answer: vCenter itself gives up after 30 or 60."""

IDLE = 15
"""Seconds after which a connection is not used again: a server closes those that idle."""

_PYVMOMI: Any = import_module("pyVmomi")  # what its stubs do not have
_SUPPORT: Any = import_module("pyVmomi.VmomiSupport")
_MALFORMED = (ExpatError, AssertionError, AttributeError, LookupError, TypeError, ValueError)
"""What pyvmomi raises at an answer that was cut off, or is none of vSphere's."""

OLDEST = "vim.version.version9"
"""The API of vSphere 5.5: every server since understands it."""


class Api:
    """One session; see ``call``.

    Args:
        address: where.
        settings: what was resolved: credentials, and how TLS is verified.

    Raises:
        SettingsError: something is missing in them.
        ConnectionFailed: no answer, none of vSphere, or its certificate is not trusted.
        AccessDenied: the credentials were refused.
    """

    def __init__(self, address: Address, settings: Mapping[str, str]) -> None:
        self.address = address
        self.who = settings.get("username", "")
        self._password = settings.get("password", "")
        if not (self.who and self._password):
            raise SettingsError(
                f"there are no credentials for {address}",
                evidence=f"no {'password' if self.who else 'user name'} was found",
                cure="set VSPHERE_USER and VSPHERE_PASSWORD, or GOVC_USERNAME and GOVC_PASSWORD; or keep the "
                "password: keyring set nestvirt vsphere:password (with a profile vsphere@PROFILE:password); "
                "at a terminal, --username asks for it",
            )
        self._pins = Pins.of(settings, address)
        verify = not (self._pins.own or settings.get("insecure"))
        self._context = tls.context(settings.get("ca_file"), verify=verify)
        self._closed = self._in = False
        self._deadline = threading.local()  # of one request, in the thread that makes it
        self._stub = self._new_stub()
        self.content: Any = self._first()
        self._login()

    def _new_stub(self) -> Any:
        stub = _PYVMOMI.SoapStubAdapter(
            self.address.host,
            self.address.port,
            path=self.address.path,
            version=OLDEST,
            acceptCompressedResponses=False,
        )
        stub.connectionPoolTimeout = IDLE
        stub.schemeArgs = {"verify": self._context, "pin": self._pins.own, "answer": self._patience}
        stub.scheme = tls.PinnedConnection
        return stub

    def _first(self) -> Any:
        """Ask who is there, and speak the newest version that both know."""
        instance: Any = vim.ServiceInstance
        try:
            content: Any = self._sent(
                "RetrieveServiceContent", instance("ServiceInstance", self._stub).RetrieveContent
            )
            self._stub.ComputeVersionInfo(_newest(str(content.about.apiVersion)))
        except (Refused, *_MALFORMED) as error:
            raise self._other(
                error.evidence if isinstance(error, Refused) else f"{type(error).__name__}: {error}"
            ) from error
        return content

    def _patience(self) -> float:
        within: float | None = getattr(self._deadline, "seconds", None)
        return ANSWER if within is None else min(ANSWER, within)

    def _login(self) -> None:
        self._in = False
        try:
            self._sent("Login", partial(self.content.sessionManager.Login, self.who, self._password))
        except Refused as error:
            if error.name != "InvalidLogin":
                raise
            raise AccessDenied(
                f"{self.address} refused the password of {self.who}",
                evidence=error.evidence,
                cure="see that user, domain (user@vsphere.local) and password are right, and that the "
                "account is not locked",
            ) from error
        self._in = True

    def call(
        self, request: str, do: Callable[[], T], *, again: bool = False, within: float | None = None
    ) -> T:
        """Send a request; where the session has run out, log in anew and send it once more.

        Args:
            request: the method's name in the API, for people.
            do: sends it.
            again: whether it may be sent twice: where an idle connection was closed, a reading is.
            within: seconds for its answer, where they are fewer than usual.

        Raises:
            Refused: it was answered with a fault.
            NoAnswer: it is not known what has become of it.
            AccessDenied: the session has run out, and the password is refused now.
        """
        if self._closed:
            raise NoAnswer(
                f"the connection to {self.address} is closed", evidence=request, cure="run this again"
            )
        self._deadline.seconds = within
        try:
            return self._sent(request, do)
        except NoAnswer:
            if not again:
                raise
        except Refused as error:
            if error.name != EXPIRED:
                raise
            self._login()
        finally:
            self._deadline.seconds = None
        return self._sent(request, do)

    def _sent(self, request: str, do: Callable[[], T]) -> T:
        try:
            return do()
        except (vmodl.MethodFault, _PYVMOMI.vmodl.RuntimeFault) as fault:
            raise refused(request, fault) from None  # its text is in the error; pyvmomi's has the request's
        except (ssl.SSLCertVerificationError, tls.WrongCertificate) as error:
            raise self._distrusted(error) from error
        except _MALFORMED as error:
            raise self._other(f"{request}: {type(error).__name__}: {error}") from error
        except TimeoutError as error:
            raise self._silent(request, f"{request}: {error or 'timed out'}") from error
        except (http.client.HTTPException, OSError) as error:
            if type(error) is http.client.HTTPException:  # pyvmomi's own: of a status that is not SOAP's
                raise self._other(f"{request}: {error}") from error
            raise self._silent(request, f"{request}: {type(error).__name__}: {error}") from error

    def retrieve(self, specs: list[Any], page: int | None = None) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Read properties of many objects by PropertyCollector.

        Args:
            specs: filter specs; see ``selection``.
            page: the most objects of one answer; None leaves that to the server.

        Yields:
            An object, and those of its properties that are set and may be read, by path.
        """
        collector: Any = self.content.propertyCollector
        options = vmodl.query.PropertyCollector.RetrieveOptions(maxObjects=page)
        ask = partial(collector.RetrievePropertiesEx, specs, options)
        while True:
            result = self.call("RetrievePropertiesEx", ask, again=True)
            for found in result.objects if result else []:
                yield found.obj, {prop.name: prop.val for prop in found.propSet}
            if not result or not result.token:
                return
            ask = partial(collector.ContinueRetrievePropertiesEx, result.token)

    def connection_to(self, host: str, port: int, vouched: str | None) -> tls.PinnedConnection:
        """A connection to a server whose address vSphere has told, trusted by the same rules.

        Args:
            host: its name.
            port: its port.
            vouched: the fingerprint that vCenter tells of it, which is as good as vCenter's own is.
        """
        own = (host.lower(), port) == (self.address.host, self.address.port)
        beside = self._pins.known.get((host.lower(), port))
        if vouched and self._pins.own and not beside:
            with contextlib.suppress(SettingsError):  # one of another form vouches for nothing
                beside = tls.digits_of(vouched, where=CERTIFICATE, sha1=True)
        pin = self._pins.own if own else beside
        if self._pins.own and not pin:  # else its certificate would be compared with nothing
            context = tls.context(None)
        elif pin:
            context = tls.context(None, verify=False)
        else:
            context = self._context
        return tls.PinnedConnection(host, port, verify=context, pin=pin, answer=lambda: ANSWER)

    def close(self) -> None:
        """Log out, and close the connection. An answer is not waited for beyond its deadline."""
        if not self._closed and self._in:
            with contextlib.suppress(
                Refused, ConnectionFailed
            ):  # it has run out, or nobody is there any more
                self._sent("Logout", self.content.sessionManager.Logout)
        self._closed = True
        self._stub.DropConnections()

    def _silent(self, request: str, evidence: str) -> NoAnswer:
        return NoAnswer(
            f"no answer from {self.address}",
            evidence=printable(evidence, 300),
            cure="see that it is the address of a vCenter or an ESXi host, and that its port is open",
        )

    def _other(self, evidence: str) -> NoAnswer:
        return NoAnswer(
            f"{self.address} answers, but not as vSphere does",
            evidence=printable(evidence, 300),
            cure="give the address of a vCenter or an ESXi host, for example: https://vcenter.example.com",
        )

    def _distrusted(self, error: ssl.SSLError) -> ConnectionFailed:
        if isinstance(error, tls.WrongCertificate):
            return ConnectionFailed(
                f"the certificate of {self.address} is not the one whose fingerprint was given",
                evidence=f"nothing was sent; it shows the fingerprint {error.seen}",
                cure=f"where the certificate was renewed, compare it with {CERTIFICATE}, and give the new "
                "fingerprint; else somebody stands between",
            )
        seen = tls.fingerprint_of(self.address.peer)
        return ConnectionFailed(
            f"the certificate of {self.address} is not trusted",
            evidence=printable(str(error), 200) + (f"; it shows the fingerprint {seen}" if seen else ""),
            cure="name its CA with --ca-file (vCenter offers it at its address: Download trusted root CA "
            f"certificates); or compare the fingerprint with {CERTIFICATE}, and give it with --fingerprint",
        )


def _newest(version: str) -> str:
    """The newest of pyvmomi's versions that a server of that one understands.

    Raises:
        ValueError: there is none.
    """
    known: dict[str, tuple[int, ...]] = {
        name: _tuple(number) for name, number in _SUPPORT.versionIdMap.items()
    }
    both = [name for name, number in known.items() if number and number <= _tuple(version)]
    return max((name for name in both if name.startswith("vim.version.")), key=lambda name: known[name])


def _tuple(version: str) -> tuple[int, ...]:
    """``8.0.3.0`` as numbers; empty for what is none, such as pyvmomi's internal versions."""
    parts = version.split(".")
    return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else ()
