"""Proxmox's API by ``pvesh``: on the node itself, or on a node over SSH with checked host keys.

proxmoxer builds the commands and reads their output. It calls a command failed that wrote to stderr, and
one that failed a success where it printed a task's UPID; here the exit code decides the first, and the
task's status, or reading again, the second.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping

from proxmoxer.backends.command_base import CommandBaseSession, JsonSimpleSerializer
from proxmoxer.core import ProxmoxResource, ResourceException

from nestvirt.backends.proxmox.api import NoAnswer, refused
from nestvirt.backends.proxmox.node import READ_NESTED
from nestvirt.errors import AccessDenied, ConnectionFailed, Error, GuestUnreachable
from nestvirt.guest.channel import NOT_FOUND, Completed
from nestvirt.guest.local import LocalChannel
from nestvirt.guest.sharedssh import SharedSsh
from nestvirt.guest.ssh import SshChannel, destination_of
from nestvirt.printable import printable

SECONDS = 60.0
"""For a command; one that powers a VM on or off runs as long as its task, and gets that besides."""

_UPID = re.compile(r"UPID:[\w.-]+:[0-9A-Fa-f]+:[0-9A-Fa-f]+:[0-9A-Fa-f]+:\w+:")
_ROOT = "root@pam"

Run = Callable[[list[str], float], Completed]
"""Runs a program within a number of seconds."""


class CommandWay:
    """See Way.

    Args:
        address: ``local``, or ``ssh://USER@HOST[:PORT]``.
        host: the machine's name.
        run: how a command is run there.
        sudo: whether it takes sudo to be root there.
        end: what ends the connection, where one is kept open.
    """

    who = _ROOT

    def __init__(
        self, address: str, host: str, run: Run, *, sudo: bool, end: Callable[[], None] = lambda: None
    ) -> None:
        self.address, self.host = address, host
        self._run = run
        self._end = end
        self._session = _Session(run, ["sudo", "-n"] if sudo else [])
        self._resource = ProxmoxResource(
            base_url="", session=self._session, serializer=JsonSimpleSerializer()
        )

    def request(self, method: str, path: str, values: Mapping[str, object]) -> object:
        """See Way."""
        words = f"{method} /{path}"
        send = {"GET": "get", "PUT": "put", "POST": "post"}[method]
        asked = values.get("timeout")
        self._session.seconds = SECONDS + (float(str(asked)) if asked else 0)
        if method == "POST" and path.endswith("/start"):
            self._session.seconds += 600  # as long as the VM takes: PVE itself gives big ones more
        try:
            answer = getattr(self._resource, send)(path, **values)
        except ResourceException as error:
            raise self._failure(words, error) from error
        if method == "GET" and isinstance(answer, dict) and set(answer) == {"errors"}:
            raise refused(words, 500, f"no JSON: {printable(str(answer['errors']), 200)}")
        return answer

    def node_words(self) -> str | None:
        """See Way."""
        return self._run(["sh", "-c", READ_NESTED], SECONDS).stdout.decode(errors="replace")

    def close(self) -> None:
        """See Way."""
        self._end()

    def _failure(self, words: str, error: ResourceException) -> Error:
        text = printable(re.sub(r"^\d{3} ", "", str(error.content).strip()), 600)
        if "a password is required" in text or "not allowed to execute" in text:
            return AccessDenied(
                f"this user may not run pvesh as root on {self.host}",
                evidence=text,
                cure="log in as root; or let the user be root by sudo without a password",
            )
        return refused(words, int(error.status_code), text)


class _Session(CommandBaseSession):  # type: ignore[misc]
    """proxmoxer's session, with its own idea of how a command is run and when it has failed."""

    def __init__(self, run: Run, prefix: list[str]) -> None:
        super().__init__()
        self._run, self._prefix = run, prefix
        self._own = threading.local()

    @property
    def seconds(self) -> float:
        """For a command of this thread: each may have its own request under way."""
        return float(getattr(self._own, "seconds", SECONDS))

    @seconds.setter
    def seconds(self, value: float) -> None:
        self._own.seconds = value

    def _exec(self, command: list[str]) -> tuple[str, str, int]:
        # Another language's messages could not be read, and a missing one's warnings go to stderr.
        done = self._run([*self._prefix, "env", "LC_ALL=C", *command], self.seconds)
        stdout, stderr = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
        if done.code == NOT_FOUND:
            raise ConnectionFailed(
                "there is no pvesh: this is not a Proxmox node",
                evidence=printable(stderr, 200) or "pvesh was not found",
                cure="name a node: --connect https://NODE:8006, or ssh://root@NODE",
            )
        if done.code == 0:
            return stdout, "", 0
        if _UPID.search(stdout):  # a task that failed; its status says why
            return stdout, "task failed", done.code
        return "", stderr.strip() or stdout.strip() or f"exit code {done.code}", done.code


def local_way() -> CommandWay:
    """The machine that nestvirt runs on."""

    channel = LocalChannel()

    def run(command: list[str], seconds: float) -> Completed:
        try:
            return channel.run(command, timeout=seconds)
        except GuestUnreachable as error:
            raise _too_late(command, seconds) from error

    return CommandWay("local", socket.gethostname(), run, sudo=os.geteuid() != 0)


def ssh_way(address: str, config: str | None) -> CommandWay:
    """A node over SSH, by OpenSSH's own client and the user's own configuration and known hosts.

    Args:
        address: ``ssh://[USER@]HOST[:PORT]``.
        config: a file for ``ssh -F``.
    """
    destination, options = destination_of(address)
    options += ["-F", config] if config else []
    shared = SharedSsh(destination, options)
    channel = SshChannel(destination, options, shared.sharing)

    def run(command: list[str], seconds: float) -> Completed:
        # 255 is what ssh itself ends with; pvesh does too, which would be taken for a lost connection.
        wrapped = ["sh", "-c", '"$@"; code=$?; [ "$code" = 255 ] && code=1; exit "$code"', "sh", *command]
        try:
            return channel.run(wrapped, timeout=seconds)
        except GuestUnreachable as error:
            if "Permission denied" in error.evidence:
                raise AccessDenied(
                    f"{destination} refused the login", evidence=error.evidence, cure=error.cure
                ) from error
            if isinstance(error.__cause__, subprocess.TimeoutExpired):
                raise _too_late(command, seconds) from error
            raise ConnectionFailed(
                f"no answer from {address}", evidence=error.evidence, cure=error.cure
            ) from error

    user, _, host = destination.rpartition("@")
    return CommandWay(address, host, run, sudo=user not in ("", "root"), end=shared.close)


def _too_late(command: list[str], seconds: float) -> NoAnswer:
    return NoAnswer(
        f"pvesh did not end within {seconds:.0f} s",
        evidence=printable(shlex.join(command), 120),
        cure="look at the node's load and at its tasks; then run this again",
    )
