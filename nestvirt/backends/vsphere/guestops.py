"""Guest operations: run a program in the guest by VMware Tools, as a user of the guest.

Tools run ``/bin/sh -c '"PROGRAM" ARGUMENTS'`` with nothing on its streams, so input and output are files of
one temporary folder in the guest. They are fetched over HTTPS from the host; see FileManager.
API: vim.vm.guest.ProcessManager, vim.vm.guest.FileManager.
"""

from __future__ import annotations

import contextlib
import http.client
import shlex
import ssl
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from pyVmomi import vim

from nestvirt import tls
from nestvirt.backends.base import moments
from nestvirt.backends.vsphere.api import Api
from nestvirt.backends.vsphere.faults import CURES, Refused
from nestvirt.backends.vsphere.tasks import read_one
from nestvirt.errors import AccessDenied, ConnectionFailed, GuestUnreachable
from nestvirt.guest.channel import OUTPUT_LIMIT, Completed, RunRefused, clipped
from nestvirt.printable import printable

SCRIPT = 'd=$1; shift; umask 077; cd /; exec "$@" <"$d/in" >"$d/out" 2>"$d/err"'
"""What the guest's shell runs: the folder and the program's words are its arguments, and never its text."""

_MANAGERS = ("authManager", "fileManager", "processManager")
_PASSING = (
    "GuestOperationsUnavailable",
    "ToolsUnavailable",
    "InvalidPowerState",
    "InvalidState",
    "TaskInProgress",
)
_DISABLED = (
    "OperationDisabledByGuest",
    "OperationNotSupportedByGuest",
    "GuestPermissionDenied",
    "NoPermission",
)
_TOOLS = "see that VMware Tools (open-vm-tools) run in the guest; or use --ssh USER@HOST"


class GuestChannel:
    """A guest that VMware Tools lead into; see Channel.

    Args:
        vm: the VM.
        user: a user of the guest.
        password: that user's.
        thumbprint: of the host's certificate, as vCenter tells it.
    """

    name = "vmware-tools"

    def __init__(self, api: Api, vm: Any, user: str, password: str, thumbprint: str | None) -> None:
        self._api = api
        self._vm = vm
        self._user = user
        self._auth = vim.vm.guest.NamePasswordAuthentication(
            username=user, password=password, interactiveSession=False
        )
        self._thumbprint = thumbprint
        self._managers: dict[str, Any] = {}

    def ping(self, *, timeout: float) -> None:
        """Ask again and again until Tools answer, and take the credentials; see Channel."""
        error: GuestUnreachable | None = None
        for _ in moments(time.monotonic() + timeout):
            try:
                self._ask("authManager", "ValidateCredentialsInGuest")
                return
            except _NotYet as passing:
                error = passing
        evidence = error.evidence if error is not None else "it was not asked"
        raise GuestUnreachable(
            f"VMware Tools did not answer within {timeout:.0f} s", evidence=evidence, cure=_TOOLS
        )

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float) -> Completed:
        """Run a program by StartProgramInGuest; see Channel."""
        deadline = time.monotonic() + timeout
        with self._folder() as folder:
            self._put(f"{folder}/in", stdin)
            words = shlex.join(["-c", SCRIPT, "sh", folder, *argv])
            program = vim.vm.guest.ProcessManager.ProgramSpec(programPath="/bin/sh", arguments=words)
            pid = int(self._ask("processManager", "StartProgramInGuest", program))
            try:
                code = self._exit_code(pid, argv[0], deadline, timeout)
            except BaseException:  # Ctrl-C, too: nothing is left running
                with contextlib.suppress(GuestUnreachable):
                    self._ask("processManager", "TerminateProcessInGuest", pid)
                raise
            out, err = self._get(f"{folder}/out"), self._get(f"{folder}/err")
        return clipped(code, out, err)

    def _exit_code(self, pid: int, program: str, deadline: float, timeout: float) -> int:
        for _ in moments(deadline):
            try:
                listed = self._ask("processManager", "ListProcessesInGuest", [pid], again=True)
            except _NotYet:  # Tools may answer in a moment, and the program goes on
                continue
            process = next((p for p in listed or [] if p.pid == pid), None)
            if process is None:
                raise GuestUnreachable(
                    f"VMware Tools do not know what became of {program}",
                    evidence=f"ListProcessesInGuest has no process {pid}",
                    cure="run this again; or use --ssh USER@HOST",
                )
            if process.endTime is not None:
                return int(process.exitCode if process.exitCode is not None else 128)
        raise GuestUnreachable(
            f"{program} did not end in the guest within {timeout:.0f} s",
            evidence=f"ListProcessesInGuest still says that process {pid} runs",
            cure="look into the guest: something hangs there",
        )

    @contextlib.contextmanager
    def _folder(self) -> Iterator[str]:
        """A folder of the guest that goes away with all that is in it."""
        path = str(self._ask("fileManager", "CreateTemporaryDirectoryInGuest", "nestvirt-", ""))
        try:
            yield path
        finally:
            with contextlib.suppress(GuestUnreachable):
                self._ask("fileManager", "DeleteDirectoryInGuest", path, True)

    def _put(self, path: str, content: bytes) -> None:
        attributes = vim.vm.guest.FileManager.PosixFileAttributes(permissions=0o600)
        url = self._ask("fileManager", "InitiateFileTransferToGuest", path, attributes, len(content), True)
        self._transfer("PUT", str(url), content)

    def _get(self, path: str) -> bytes:
        """A file's content, and never more than a byte beyond the limit."""
        told = self._ask("fileManager", "InitiateFileTransferFromGuest", path)
        return self._transfer("GET", str(told.url), None)

    def _transfer(self, method: str, url: str, content: bytes | None) -> bytes:
        """Fetch or send a file where vSphere says; the URL holds a ticket, and is never shown."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "*", parts.port or 443
            if parts.scheme != "https":
                raise ValueError
        except ValueError:
            raise _no_file("vSphere's address for it is none of HTTPS") from None
        host = self._api.address.host if host == "*" else host  # the server that was asked itself
        try:
            with contextlib.closing(self._api.connection_to(host, port, self._thumbprint)) as connection:
                connection.request(method, f"{parts.path}?{parts.query}", body=content)
                answer = connection.getresponse()
                if not 200 <= answer.status < 300:
                    raise _no_file(f"{host} answered {answer.status} {printable(answer.reason, 100)}")
                return answer.read(OUTPUT_LIMIT + 1)
        except (ssl.SSLCertVerificationError, tls.WrongCertificate) as error:
            raise GuestUnreachable(
                f"the certificate of {host}, which serves the guest's files, is not trusted",
                evidence=printable(
                    f"{error}; it shows the fingerprint {tls.fingerprint_of((host, port))}", 300
                ),
                cure="name the CA of vCenter with --ca-file, which signs its hosts' as well; or add the host "
                "to the file of NESTVIRT_VSPHERE_KNOWN_HOSTS; or use --ssh USER@HOST",
            ) from error
        except (http.client.InvalidURL, UnicodeError):  # the text of it has the ticket
            raise _no_file("vSphere's address for it cannot be used") from None
        except (http.client.HTTPException, OSError) as error:
            raise _no_file(f"{host}: {type(error).__name__}: {printable(str(error), 200)}") from error

    def _ask(self, manager: str, request: str, *arguments: object, again: bool = False) -> Any:
        """One guest operation.

        Raises:
            _NotYet: Tools do not answer at this moment.
            GuestUnreachable: the guest does not let us.
        """
        try:
            if not self._managers:
                self._managers = read_one(self._api, self._api.content.guestOperationsManager, *_MANAGERS)
            method = getattr(self._managers[manager], request)
            return self._api.call(request, partial(method, self._vm, self._auth, *arguments), again=again)
        except Refused as error:
            raise self._unreachable(error) from error
        except (AccessDenied, ConnectionFailed) as error:
            raise GuestUnreachable(error.message, evidence=error.evidence, cure=error.cure) from error

    def _unreachable(self, error: Refused) -> GuestUnreachable:
        if error.name in _PASSING:
            return _NotYet("VMware Tools do not answer", evidence=error.evidence, cure=_TOOLS)
        if error.name == "InvalidGuestLogin":
            return GuestUnreachable(
                f"the guest refused the password of its user {self._user}",
                evidence=error.evidence,
                cure="see that NESTVIRT_VSPHERE_GUEST_USERNAME and its password are those of a user inside "
                "the guest; or use --ssh USER@HOST",
            )
        if error.name in _DISABLED:
            cure = error.cure if error.privilege else "allow guest operations in the guest (tools.conf)"
            return RunRefused(
                "guest operations are not allowed", evidence=error.evidence, cure=f"{cure}; or use --ssh"
            )
        cure = CURES.get(error.name, _TOOLS)
        return GuestUnreachable("the guest operation failed", evidence=error.evidence, cure=cure)


class _NotYet(GuestUnreachable):
    """It may answer in a moment."""


def _no_file(evidence: str) -> GuestUnreachable:
    return GuestUnreachable(
        "a file could not be brought into the guest, or out of it", evidence=evidence, cure=_TOOLS
    )
