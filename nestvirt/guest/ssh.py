"""A way into a guest over SSH, with OpenSSH's own client."""

from __future__ import annotations

import contextlib
import os
import selectors
import shlex
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from nestvirt.errors import GuestUnreachable, SettingsError
from nestvirt.guest.channel import OUTPUT_LIMIT, Completed, clipped


class SshChannel:
    """OpenSSH, with the user's own configuration; host keys are checked as that says.

    Args:
        destination: ``user@host`` or a host of the user's ssh_config.
        options: further ssh options, such as ``("-F", "ssh_config")``.
        sharing: options that make it use a connection which is there already.
    """

    name = "ssh"

    def __init__(self, destination: str, options: Sequence[str] = (), sharing: Sequence[str] = ()) -> None:
        self._command = ["ssh", "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", *options, *sharing]
        self._destination = destination
        self._by_hand = shlex.join(["ssh", "-o", "BatchMode=yes", *options, "--", destination, "true"])

    def ping(self, *, timeout: float) -> None:
        """Log in, again and again until the deadline; see Channel."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                self.run(["true"], timeout=max(1.0, deadline - time.monotonic()))
            except GuestUnreachable as error:
                # A wrong key and a missing ssh stay so; a guest that is still booting refuses or times out.
                hopeless = "verification failed" in error.evidence
                hopeless |= isinstance(error.__cause__, FileNotFoundError)
                if hopeless or time.monotonic() + 1 >= deadline:
                    raise
                time.sleep(1)
            else:
                return

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float) -> Completed:
        """Run a program over SSH; see Channel."""
        # ssh hands one string to the remote shell, so quoting is what keeps data data.
        command = [*self._command, "--", self._destination, shlex.join(argv)]
        try:
            done = run_bounded(command, stdin, timeout)
        except (FileNotFoundError, PermissionError) as error:
            raise GuestUnreachable(
                "there is no ssh program that this user may run",
                evidence=str(error),
                cure="install OpenSSH's client",
            ) from error
        except subprocess.TimeoutExpired as error:
            raise GuestUnreachable(
                f"the guest did not answer over SSH within {timeout:.0f} s",
                evidence=f"ssh {self._destination}",
                cure=f"try: {self._by_hand}",
            ) from error
        if done.code == 255:
            raise GuestUnreachable(
                f"SSH to {self._destination} failed",
                evidence=done.stderr.decode(errors="replace").strip()[-300:],
                cure=f"make this work first: {self._by_hand}",
            )
        return done


def destination_of(address: str) -> tuple[str, list[str]]:
    """Read ``ssh://[USER@]HOST[:PORT]`` as ssh's destination and options.

    Raises:
        SettingsError: it is not of that form.
    """
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        raise SettingsError(
            "the SSH address cannot be used",
            evidence="its port is not a number",
            cure="for example: ssh://root@pve1:22",
        ) from None  # what is no number may be part of a password
    if not parts.hostname or parts.password is not None or parts.path.strip("/"):
        raise SettingsError(
            "the SSH address cannot be used",
            evidence="it is ssh://USER@HOST[:PORT], and holds no password and no path",
            cure="for example: ssh://root@pve1",
        )
    user = f"{parts.username}@" if parts.username else ""
    host = parts.netloc.rpartition("@")[2]  # as it is written: an alias of ssh_config may have capitals
    host = host.rpartition(":")[0] if port else host
    return f"{user}{host.strip('[]')}", ["-p", str(port)] if port else []


def run_bounded(
    command: Sequence[str],
    stdin: bytes,
    timeout: float,
    *,
    limit: int = OUTPUT_LIMIT,
    env: Mapping[str, str] | None = None,
) -> Completed:
    """Run a program here, holding no more of its output in memory than the limit.

    Args:
        limit: bytes of each output that are kept.
        env: its whole environment; None for ours.

    Raises:
        subprocess.TimeoutExpired: the deadline passed; the program was killed.
    """
    deadline = time.monotonic() + timeout
    with tempfile.TemporaryFile() as source:
        source.write(stdin)
        source.seek(0)
        # A session of its own: a Ctrl-C is ours to handle, and not the program's to die of.
        process = subprocess.Popen(
            command,
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=env,
        )
    with process:
        try:
            stdout, stderr, flooded = _drain(process, deadline, limit)
            if flooded:
                process.kill()
            code = process.wait(max(0.1, deadline - time.monotonic()))
        finally:
            with contextlib.suppress(PermissionError):  # sudo's is root's
                process.kill()  # does nothing to one that has ended
    return clipped(code, stdout, stderr, truncated=flooded, limit=limit)


def _drain(process: subprocess.Popen[bytes], deadline: float, limit: int) -> tuple[bytes, bytes, bool]:
    """Read both outputs until they end, or one of them exceeds the limit; the last says whether one did."""
    streams = {stream: bytearray() for stream in (process.stdout, process.stderr) if stream is not None}
    with selectors.DefaultSelector() as selector:
        for stream, kept in streams.items():
            selector.register(stream, selectors.EVENT_READ, kept)
        while selector.get_map() and max(map(len, streams.values())) <= limit:
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                raise subprocess.TimeoutExpired(process.args, deadline)
            for key, _ in ready:
                chunk = os.read(key.fd, 65536)
                key.data.extend(chunk)
                if not chunk:
                    selector.unregister(key.fileobj)
        flooded = bool(selector.get_map())
    stdout, stderr = streams.values()
    return bytes(stdout), bytes(stderr), flooded
