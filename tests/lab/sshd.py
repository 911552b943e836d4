"""A real sshd on 127.0.0.1, unpacked and not installed; the current user can log in with a key of its own."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from tests.lab import Closing, LabError, wait_for
from tests.lab.debian import unpacked

# Its other libraries come with openssh-client, which is installed.
PACKAGES = ("openssh-server", "libwrap0", "libnsl2", "libtirpc3", "libnss-wrapper")
PRIVSEP = Path("/run/sshd")
START_SECONDS = 30

SSHD_CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
"""

SSH_CONFIG = """\
Host {host}
  HostName 127.0.0.1
  HostKeyAlias {host}
  Port {port}
  User {user}
  IdentityFile {folder}/user
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile none
  StrictHostKeyChecking yes
"""


class Sshd(Closing):
    """The server; a context manager.

    Args:
        path: the PATH of who logs in; empty: what the server gives by itself.

    Attributes:
        host: what ``ssh -F config`` knows it by.
        port: where it listens, on 127.0.0.1.
        user: who can log in: the current user.
        identity: the private key that opens it.
        known_hosts: its host key, under its name and under its address.
        config: an ssh_config that says all of this.
    """

    host = "lab"

    def __init__(self, path: str = "") -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="nv-sshd-"))
        self._log = self._folder / "log"
        self.user = pwd.getpwuid(os.geteuid()).pw_name
        self.identity = self._folder / "user"
        self.known_hosts = self._folder / "known_hosts"
        self.config = self._folder / "ssh_config"
        self.port = _free_port()
        self._path = path
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """End the server and remove its keys."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(START_SECONDS)
        shutil.rmtree(self._folder, ignore_errors=True)

    def log(self) -> str:
        """What the server says about itself and its clients."""
        return self._log.read_text(errors="replace")

    def _start(self) -> None:
        for key in ("host", "user"):
            command = [
                "ssh-keygen",
                "-q",
                "-t",
                "ed25519",
                "-N",
                "",
                "-C",
                f"lab-{key}",
                "-f",
                f"{self._folder}/{key}",
            ]
            subprocess.run(command, check=True, capture_output=True)
        public = (self._folder / "host.pub").read_text()
        self.known_hosts.write_text(f"{self.host},[127.0.0.1]:{self.port} {public}")
        values = {"folder": self._folder, "port": self.port, "user": self.user, "host": self.host}
        self.config.write_text(SSH_CONFIG.format(**values))
        path = f"SetEnv PATH={self._path}\n" if self._path else ""
        (self._folder / "sshd_config").write_text(SSHD_CONFIG.format(**values) + path)
        tree = unpacked("sshd", PACKAGES)
        libraries = tree / "usr/lib/x86_64-linux-gnu"
        environment = {
            "PATH": os.environ["PATH"],
            "LD_LIBRARY_PATH": f"{libraries}:{tree}/lib/x86_64-linux-gnu",
        }
        if os.geteuid() == 0:
            environment |= self._for_root(libraries)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(tree / "usr/sbin/sshd"), "-D", "-e", "-f", str(self._folder / "sshd_config")],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_for(self._listens, START_SECONDS, "sshd to listen")

    def _for_root(self, libraries: Path) -> dict[str, str]:
        """What an installed sshd would find: an unprivileged user sshd, and an empty folder.

        Only this process sees that user. For it, the login user's entry in the shadow file is not locked.
        """
        PRIVSEP.mkdir(mode=0o755, exist_ok=True)  # it stays: another test's sshd may need it
        passwd, shadow = self._folder / "passwd", self._folder / "shadow"
        passwd.write_text(
            Path("/etc/passwd").read_text() + f"sshd:x:65533:65534::{PRIVSEP}:/usr/sbin/nologin\n"
        )
        shadow.write_text(f"{self.user}:*:19000:0:99999:7:::\n")
        shadow.chmod(0o600)
        return {
            "LD_PRELOAD": str(libraries / "libnss_wrapper.so"),
            "NSS_WRAPPER_PASSWD": str(passwd),
            "NSS_WRAPPER_GROUP": "/etc/group",
            "NSS_WRAPPER_SHADOW": str(shadow),
        }

    def _listens(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise LabError(f"sshd ended: {self.log()[-500:]}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
