"""Proxmox's API over HTTPS, by proxmoxer's session: TLS verified or pinned, tokens and tickets."""

from __future__ import annotations

import contextlib
import json
import re
import ssl
import time
from collections.abc import Mapping
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from proxmoxer.backends.https import (
    JsonSerializer,
    ProxmoxHTTPApiTokenAuth,
    ProxmoxHTTPAuthBase,
    ProxmoxHttpSession,
)
from proxmoxer.core import ProxmoxResource, ResourceException
from requests.adapters import HTTPAdapter

from nestvirt import tls
from nestvirt.backends.proxmox.api import UNREACHED, NoAnswer, refused
from nestvirt.errors import AccessDenied, ConnectionFailed, Error, SettingsError
from nestvirt.printable import printable

PORT = 8006
TIMEOUT = (10.0, 40.0)
"""Seconds to connect, and to wait for an answer: PVE itself waits 10 s for a lock, and more for an agent."""

TICKET_AGE = 3600.0
"""Seconds after which a ticket is renewed; it lives for two hours."""

ANSWER_LIMIT = 64 << 20
"""Bytes of an answer; the list of all resources, some 300 bytes for each VM, is the longest by far."""

_CERTIFICATE = "the GUI: node > System > Certificates > View Certificate"
_MAKE_TOKEN = "make an API token (Datacenter > Permissions > API Tokens)"  # noqa: S105


class HttpsWay:
    """See Way.

    Args:
        address: ``https://HOST[:PORT]``.
        settings: what was resolved: credentials, and how TLS is verified.
    """

    def __init__(self, address: str, settings: Mapping[str, str]) -> None:
        host, port = self._peer = _host_and_port(address, settings.get("port"))
        self.address = f"https://{f'[{host}]' if ':' in host else host}:{port}"
        self._session = ProxmoxHttpSession()
        self._session.max_redirects = 0  # PVE sends none; one would carry the credentials elsewhere
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # only our ticket is one
        self._session.headers["Accept-Encoding"] = "identity"
        pin = settings.get("fingerprint")
        self._pinned = bool(pin)
        adapter = _Pinned(tls.digits_of(pin, where=_CERTIFICATE)) if pin else _Bounded()
        self._session.mount("https://", adapter)
        self._auth, self.who = self._credentials(settings, _verify(settings))
        self._session.auth = self._auth
        self._resource = ProxmoxResource(
            base_url=f"{self.address}/api2/json", session=self._session, serializer=_Serializer()
        )

    def request(self, method: str, path: str, values: Mapping[str, object]) -> object:
        """See Way."""
        words = f"{method} /{path}"
        ticket = self._auth if isinstance(self._auth, _Ticket) else None
        with self.translated(words):
            if ticket and ticket.old:
                ticket.renew(self._session, self.address)
            try:
                return self._send(method, path, values)
            except ResourceException as error:
                if not (ticket and error.status_code == 401):
                    raise self._failure(words, error) from error
            try:
                ticket.renew(self._session, self.address)  # it has run out; nothing was done for this request
                return self._send(method, path, values)
            except ResourceException as error:
                raise self._failure(words, error) from error

    def _send(self, method: str, path: str, values: Mapping[str, object]) -> object:
        send = {"GET": "get", "PUT": "put", "POST": "post"}[method]
        return getattr(self._resource, send)(path, **values)

    def node_words(self) -> str | None:
        """See Way: the API runs no program on a node."""
        return None

    def close(self) -> None:
        """See Way."""
        self._session.close()

    @contextlib.contextmanager
    def translated(self, words: str) -> Any:
        """What requests raises, as errors of ours."""
        try:
            yield
        except requests.exceptions.SSLError as error:
            raise self._distrusted(error) from error
        except requests.exceptions.TooManyRedirects as error:
            raise _not_proxmox(self.address, "it redirects elsewhere") from error
        except requests.exceptions.ConnectTimeout as error:
            raise self._silent(f"no connection within {TIMEOUT[0]:.0f} s") from error
        except (requests.exceptions.ReadTimeout, requests.exceptions.ChunkedEncodingError) as error:
            raise NoAnswer(
                f"{self.address} did not answer in time",
                evidence=f"{words}: {type(error).__name__}",
                cure="look at the node's load; then run this again",
            ) from error
        except requests.exceptions.ConnectionError as error:
            raise self._silent(_innermost(error)) from error
        except requests.exceptions.RequestException as error:
            raise self._silent(f"{type(error).__name__}: {printable(str(error), 200)}") from error

    def _silent(self, evidence: str) -> ConnectionFailed:
        cure = "see that it is a Proxmox node's address, that pveproxy runs there, and port 8006 is open"
        return NoAnswer(f"no answer from {self.address}", evidence=evidence, cure=cure)

    def _failure(self, words: str, error: ResourceException) -> Error:
        status, text = int(error.status_code), _text(error)
        if status == 401:
            return AccessDenied(
                f"{self.address} refused the credentials of {self.who}",
                evidence=f"{words}: 401 {text}",
                cure="see that the token or password is right, has not expired, and that the realm is named "
                "(USER@REALM)",
            )
        if status in UNREACHED and not path_of_agent(words):
            return NoAnswer(
                "the node did not answer the node that was asked",
                evidence=f"{words}: {status} {text}",
                cure="see that all nodes are online: pvecm status",
            )
        return refused(words, status, text)

    def _distrusted(self, error: Exception) -> ConnectionFailed:
        seen = tls.fingerprint_of(self._peer)
        shown = f"; it shows the fingerprint {seen}" if seen else ""
        if self._pinned:
            return ConnectionFailed(
                f"the certificate of {self.address} is not the one whose fingerprint was given",
                evidence=f"nothing was sent{shown}",
                cure="where the certificate was renewed, compare it with the GUI's (node > System > "
                "Certificates) and give the new fingerprint; else somebody stands between",
            )
        return ConnectionFailed(
            f"the certificate of {self.address} is not trusted",
            evidence=f"{_innermost(error)}{shown}",
            cure="name its CA with --ca-file (a copy of the node's /etc/pve/pve-root-ca.pem); or compare the "
            "fingerprint with the GUI's (node > System > Certificates), and give it with --fingerprint",
        )

    def _credentials(self, settings: Mapping[str, str], verify: bool | str) -> tuple[Any, str]:
        how = {"timeout": TIMEOUT, "verify_ssl": verify}
        token, user = settings.get("api_token"), settings.get("username", "")
        if not token and settings.get("token_secret"):
            name = settings.get("token_id", "")
            token = f"{name if '!' in name else f'{user}!{name}'}={settings['token_secret']}"
        if token:
            whole, _, secret = token.partition("=")
            owner, _, name = whole.partition("!")
            if not (secret and name and "@" in owner and re.fullmatch("[!-~]+", token)):
                raise SettingsError(
                    "the API token is not of the form USER@REALM!ID=UUID",
                    evidence="a part of it is missing, or it holds a space; it is not shown here",
                    cure="as in: root@pam!nestvirt=xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx",
                )
            return ProxmoxHTTPApiTokenAuth(owner, name, secret, **how), whole
        if user and settings.get("password"):
            user = user if "@" in user else f"{user}@pam"
            ticket = _Ticket(user, settings["password"], how)
            with self.translated("POST /access/ticket"):
                ticket.renew(self._session, self.address)
            return ticket, user
        raise SettingsError(
            f"there are no credentials for {self.address}",
            evidence="neither an API token, nor a user name with a password, was found",
            cure="set PROXMOX_VE_API_TOKEN='USER@REALM!ID=UUID'; or keep it: keyring set nestvirt "
            "proxmox:api_token; or name a profile that has api_token; at a terminal, --username asks",
        )


class _Ticket(ProxmoxHTTPAuthBase):  # type: ignore[misc]
    """A login by password. proxmoxer's own goes past the session, and so past the pinned certificate."""

    def __init__(self, user: str, password: str, how: Mapping[str, Any]) -> None:
        super().__init__(**how)
        self._user, self._password = user, password
        self._ticket, self._csrf, self._born = "", "", 0.0

    @property
    def old(self) -> bool:
        return time.monotonic() - self._born > TICKET_AGE

    def renew(self, session: ProxmoxHttpSession, address: str) -> None:
        plain = ProxmoxHTTPAuthBase(timeout=self.timeout, verify_ssl=self.verify_ssl)
        data = {"username": self._user, "password": self._password}
        answer = session.request("POST", f"{address}/api2/json/access/ticket", data=data, auth=plain)
        if answer.status_code != 200:
            raise AccessDenied(
                f"{address} refused the password of {self._user}",
                evidence=f"{answer.status_code} {printable(str(answer.reason), 200)}",
                cure="see that user, realm (USER@REALM) and password are right",
            )
        fields = _Serializer().loads(answer)
        if not isinstance(fields, dict):
            raise _not_proxmox(address, "its login gives no ticket")
        if fields.get("NeedTFA"):
            raise AccessDenied(
                f"{self._user} needs a second factor to log in",
                evidence="Proxmox asks for one",
                cure=f"{_MAKE_TOKEN}: tokens need none",
            )
        try:
            self._ticket, self._csrf = str(fields["ticket"]), str(fields["CSRFPreventionToken"])
        except KeyError as error:
            raise _not_proxmox(address, "its login gives no ticket") from error
        self._born = time.monotonic()

    def get_cookies(self) -> Any:
        return requests.cookies.cookiejar_from_dict({"PVEAuthCookie": self._ticket})  # type: ignore[no-untyped-call]

    def __call__(self, request: Any) -> Any:
        if request.method != "GET":
            request.headers["CSRFPreventionToken"] = self._csrf
        return request


class _Bounded(HTTPAdapter):
    """Takes no answer that is compressed, or too long: memory is ours, and who answers may not be Proxmox."""

    def send(self, request: requests.PreparedRequest, *how: Any, **more: Any) -> requests.Response:
        response = super().send(request, *how, **more)
        place = str(request.url).partition("/api2/")[0]
        coding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if coding != "identity":
            response.close()
            raise _not_proxmox(
                place, f"its answer is compressed ({printable(coding, 20)}), which was not asked for"
            )
        data = bytearray()
        for chunk in response.iter_content(65536):
            data += chunk
            if len(data) > ANSWER_LIMIT:
                response.close()
                raise _not_proxmox(place, f"its answer is longer than {ANSWER_LIMIT} bytes")
        response._content = bytes(data)  # as requests itself keeps what it has read
        return response


class _Pinned(_Bounded):
    """Accepts the one certificate that has this fingerprint, whoever has signed it."""

    def __init__(self, digits: str) -> None:
        self._digits = digits
        super().__init__()

    def init_poolmanager(self, *sizes: Any, **options: Any) -> None:
        super().init_poolmanager(*sizes, **options, assert_fingerprint=self._digits)

    def proxy_manager_for(self, proxy: Any, **options: Any) -> Any:
        return super().proxy_manager_for(proxy, **options, assert_fingerprint=self._digits)


class _Serializer(JsonSerializer):  # type: ignore[misc]
    """Takes nothing for an answer that is none, and finds PVE's words wherever they are."""

    def loads(self, response: Any) -> Any:
        body = _json(response)
        if not isinstance(body, dict) or "data" not in body:
            raise _not_proxmox(str(response.url), printable(response.text, 100))
        return body["data"]

    def loads_errors(self, response: Any) -> Any:
        body = _json(response)
        return body if isinstance(body, dict) else {}


def _json(response: Any) -> object:
    try:
        return json.loads(response.content)
    except ValueError:
        return None


def _text(error: ResourceException) -> str:
    """PVE's words: the reason phrase, or the body's message (pve-http-server 5.2), and single parameters'."""
    body = error.errors if isinstance(error.errors, dict) else {}
    message = str(body.get("message") or "").strip()
    reason = str(error.content or "").removesuffix(f" - {error.errors}").strip()
    words = message if message.startswith(reason) else reason
    single = body.get("errors")
    if isinstance(single, dict):
        words += ": " + "; ".join(f"{name}: {str(why).strip()}" for name, why in single.items())
    return printable(words, 600)


def path_of_agent(words: str) -> bool:
    """Whether a request was for the guest agent, whose failures pveproxy tells as its own (596)."""
    return "/agent/" in words


def _verify(settings: Mapping[str, str]) -> bool | str:
    """What requests is told: False only where the fingerprint is compared instead, or the user says so."""
    if settings.get("fingerprint") or settings.get("insecure"):
        return False
    path = settings.get("ca_file")
    if path:
        cure = "copy /etc/pve/pve-root-ca.pem from a node"
        try:
            folder = Path(path).is_dir()
            ssl.create_default_context(cafile=None if folder else path, capath=path if folder else None)
        except OSError as error:  # ssl.SSLError is one
            raise SettingsError(
                "the CA file cannot be used", evidence=f"{path}: {error}", cure=cure
            ) from error
    return path or True


def _host_and_port(address: str, port: str | None) -> tuple[str, int]:
    try:
        parts = urlsplit(address if "://" in address else f"https://{address}")
        found = parts.port or int(port or PORT)
    except ValueError:
        raise _bad_address("its port is not a number") from None  # the number may be part of a password
    if parts.scheme != "https" or not parts.hostname or parts.username or parts.password:
        raise _bad_address("it is not of the form https://HOST:PORT")
    return parts.hostname, found


def _bad_address(evidence: str) -> SettingsError:
    return SettingsError(
        "Proxmox's address cannot be used",
        evidence=evidence,
        cure="for example: https://pve1.example.com:8006, ssh://root@pve1, or local",
    )


def _not_proxmox(address: str, evidence: str) -> ConnectionFailed:
    return ConnectionFailed(
        f"{address} answers, but not as Proxmox's API does",
        evidence=evidence,
        cure="give the address of a Proxmox VE node, with its port 8006",
    )


def _innermost(error: BaseException) -> str:
    """The reason at the bottom of what requests and urllib3 wrap around it."""
    reason: Any = error
    while True:
        inner = getattr(reason, "reason", None) or (reason.args[0] if getattr(reason, "args", ()) else None)
        if not isinstance(inner, BaseException) or inner is reason:
            return printable(f"{type(reason).__name__}: {reason}", 200)
        reason = inner
