"""The service as tests use it: both listeners of a Windows host, its shells, and what goes wrong."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.lab import Closing
from tests.peers.winrm import soap
from tests.peers.winrm.accounts import Account, Accounts
from tests.peers.winrm.command import Invocation, Program
from tests.peers.winrm.ills import Ill, Ills
from tests.peers.winrm.listener import Answered, Listener
from tests.peers.winrm.pki import Certificates
from tests.peers.winrm.shells import Shell, Shells
from tests.peers.winrm.soap import Malformed, Refused, Request

OPS = Account("LAB\\ops", "winrm-secret-5", "ops@LAB.TEST")
FAULTS = {
    Ill.TIMED_OUT: soap.TIMED_OUT,
    Ill.BUSY_SHELL: soap.TOO_MANY_OPERATIONS,
    Ill.GONE: soap.NO_SHELL,
    Ill.DENIED: soap.DENIED,
}
"""What keeps an operation from being done, with an answer."""
NOT_DONE = (Ill.CUT, Ill.STALL, Ill.BUSY, Ill.ELSEWHERE)
"""What keeps it from being done without one."""
SPOILT = (Ill.LOST, Ill.HALF, Ill.GARBAGE, Ill.BOMB, Ill.HUGE, Ill.PLAIN, Ill.FOREIGN)
"""What befalls the answer to what is done."""
BOMB = (
    b'<!DOCTYPE s [<!ENTITY a "'
    + b"a" * 1000
    + b'"><!ENTITY b "'
    + b"&a;" * 1000
    + b'"><!ENTITY c "'
    + b"&b;" * 1000
    + b'">]><s>&c;</s>'
)


@dataclass(frozen=True)
class Trip:
    """One operation that a client has asked for.

    Attributes:
        operation: Create, Command, Send, Receive, Signal, Delete, or another action in full.
        account: the name of who has logged in.
        way: basic, ntlm, negotiate, kerberos, credssp or certificate.
        encrypted: whether the message itself was.
        tls: whether it came over HTTPS.
        text: the whole envelope, decrypted.
    """

    operation: str
    account: str
    way: str
    encrypted: bool
    tls: bool
    text: bytes


class Endpoint(Closing):
    """A Windows host that listens on 127.0.0.1; a context manager.

    Args:
        program: what runs there, see command.py.
        certificates: what it shows over HTTPS.
        accounts: who may log in; the first can with the client's certificate, too.
        offers: how one may log in. A test that wants Kerberos needs a KDC: see tests/lab/kdc.py.

    Attributes:
        http_url: without TLS: messages must be encrypted.
        https_url: with TLS.
        user: the first account's name.
        password: its password.
        trips: what clients have asked for; ``round_trips`` are their operations only.
        requests: how many requests of HTTP have come, those to log in among them.
        denials: why logins were not taken.
        german: whether its faults are in German.
        shells: what is open and was run, and the limits: see Shells.
        elsewhere: where ``Ill.ELSEWHERE`` sends clients.
    """

    def __init__(
        self,
        program: Program,
        certificates: Certificates,
        accounts: Sequence[Account] = (OPS,),
        offers: tuple[str, ...] = ("Negotiate", "Kerberos", "Basic", "CredSSP"),
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="nv-winrm-"))
        first = accounts[0]
        mapped = replace(first, certificate=certificates.client_digest)
        self.accounts = Accounts([mapped, *accounts[1:]], self._folder)
        self.certificates = certificates
        self.user, self.password = first.name, first.password
        self.offers = offers
        self.ills = Ills()
        self.shells = Shells(program, self.ills)
        self.trips: list[Trip] = []
        self.denials: list[str] = []
        self.requests = 0
        self.german = False
        self.ended = threading.Event()
        self._lock = threading.Lock()
        self._plain, self._secured = Listener(self, None), Listener(self, certificates)
        self.http_url = f"http://127.0.0.1:{self._plain.port}/wsman"
        self.https_url = f"https://127.0.0.1:{self._secured.port}/wsman"
        self.elsewhere = self.https_url

    @property
    def round_trips(self) -> list[str]:
        """The operations that clients have asked for, in order."""
        return [trip.operation for trip in self.trips]

    @property
    def open(self) -> dict[str, Shell]:
        """The shells that nobody has closed."""
        return self.shells.open

    @property
    def invocations(self) -> list[Invocation]:
        """Every command that was started."""
        return self.shells.invocations

    @property
    def failures(self) -> list[BaseException]:
        """What the program has raised; a test's mistake, or the script's."""
        return self.shells.failures

    def ail(self, ill: Ill, operation: str = "", *, times: int = 1, after: int = 0) -> None:
        """Let something go wrong.

        Args:
            ill: what.
            operation: with which; empty: with the next one. Those of commands are for Command.
            times: how often.
            after: how many such operations are let through before.
        """
        self.ills.add(ill, operation, times, after)

    def heal(self) -> None:
        """Let nothing go wrong any more."""
        self.ills.clear()

    def forget(self) -> None:
        """Forget what has been asked for and run so far."""
        self.trips.clear()
        self.shells.invocations.clear()
        self.shells.signals.clear()
        self.requests = 0

    def cut(self) -> None:
        """End all connections."""
        self._plain.cut()
        self._secured.cut()

    def count(self) -> None:
        """See Host."""
        with self._lock:
            self.requests += 1

    def take(self, account: Account, way: str, body: bytes, *, encrypted: bool, tls: bool) -> Answered:
        """See Host."""
        try:
            request = Request(body)
        except Malformed:
            return Answered(400, b"")
        operation = request.operation or request.action
        self.trips.append(Trip(operation, account.name, way, encrypted, tls, body))
        not_done = self.ills.take(operation, (*FAULTS, *NOT_DONE))
        if not_done in NOT_DONE:
            return Answered(0, b"", not_done)
        try:
            if not account.remote:
                raise Refused(soap.DENIED)
            if not_done is Ill.GONE:
                self.shells.open.pop(request.shell, None)
            if not_done is not None:
                raise Refused(FAULTS[not_done])
            said = self.shells.answer(request, account.name)
        except Refused as error:
            return Answered(500, soap.refusal(error.fault, request.message, german=self.german))
        return self._spoilt(request, said, self.ills.take(operation, SPOILT))

    def _spoilt(self, request: Request, said: str, ill: Ill | None) -> Answered:
        texts = {Ill.GARBAGE: b"\x00\xff<html>Bad gateway", Ill.BOMB: BOMB}
        if ill in texts:
            return Answered(200, texts[ill], ill)
        relates_to = "uuid:00000000-0000-0000-0000-000000000000" if ill is Ill.FOREIGN else ""
        return Answered(200, soap.answer(request, said, relates_to=relates_to), ill)

    def close(self) -> None:
        """End it."""
        self.ended.set()
        self._plain.stop()
        self._secured.stop()
        self.shells.close()
        shutil.rmtree(self._folder, ignore_errors=True)
