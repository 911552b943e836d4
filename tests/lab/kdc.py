"""A Kerberos realm on 127.0.0.1: MIT's KDC, unpacked and not installed."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from tests.lab import Closing, LabError, wait_for
from tests.lab.debian import unpacked

# Its other libraries come with krb5-user, which is installed.
PACKAGES = (
    "krb5-kdc",
    "krb5-admin-server",
    "libev4",
    "libfaketime",
    "libgssrpc4",
    "libkadm5srv-mit12",
    "libkdb5-10",
    "libss2",
    "libverto-libev1",
    "libverto1",
)
REALM = "LAB.TEST"
SERVICES = ("HTTP/127.0.0.1", "HTTP/localhost")
SECONDS = 30

KRB5_CONF = """\
[libdefaults]
  default_realm = {realm}
  dns_lookup_kdc = false
  dns_lookup_realm = false
  dns_canonicalize_hostname = false
  rdns = false
  udp_preference_limit = 1
  plugin_base_dir = {tree}/usr/lib/x86_64-linux-gnu/krb5/plugins
[realms]
  {realm} = {{
    kdc = 127.0.0.1:{port}
  }}
[domain_realm]
  127.0.0.1 = {realm}
  localhost = {realm}
[dbmodules]
  db_module_dir = {tree}/usr/lib/x86_64-linux-gnu/krb5/plugins/kdb
"""

KDC_CONF = """\
[kdcdefaults]
  kdc_listen = 127.0.0.1:{port}
  kdc_tcp_listen = 127.0.0.1:{port}
[realms]
  {realm} = {{
    database_name = {folder}/principal
    key_stash_file = {folder}/stash
    acl_file = {folder}/acl
    max_life = 10h
  }}
"""


class Kdc(Closing):
    """The realm LAB.TEST, with the service HTTP on 127.0.0.1 and localhost; a context manager.

    Args:
        users: the principals of people, ``ops@LAB.TEST``, and their passwords.

    Attributes:
        config: what a client is configured with: KRB5_CONFIG.
        keytab: the service's keys: KRB5_KTNAME.
    """

    def __init__(self, users: dict[str, str]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="nv-kdc-"))
        self._users = users
        self.config = self._folder / "krb5.conf"
        self.keytab = self._folder / "keytab"
        self._process: subprocess.Popen[bytes] | None = None
        self._tree = unpacked("kdc", PACKAGES)
        self._port = _free_port()

    def __enter__(self) -> Self:
        try:
            self._make()
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def start(self, *, ahead: int = 0) -> None:
        """Let it answer (again).

        Args:
            ahead: seconds by which its clock is ahead of everybody else's.
        """
        environment = self._environment()
        if ahead:
            library = self._tree / "usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
            environment |= {"LD_PRELOAD": str(library), "FAKETIME": f"{ahead:+}s"}
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._tree / "usr/sbin/krb5kdc"), "-n"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_for(self._listens, SECONDS, "the KDC to listen")

    def stop(self) -> None:
        """Let it not answer any more."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(SECONDS)
            self._process = None

    def close(self) -> None:
        """End it, and remove the realm."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def environment(self, cache: Path) -> dict[str, str]:
        """What clients and the service need in their environment; tickets are in that file."""
        return {
            "KRB5_CONFIG": str(self.config),
            "KRB5_KTNAME": f"FILE:{self.keytab}",
            "KRB5CCNAME": f"FILE:{cache}",
        }

    def login(self, principal: str) -> None:
        """Get a ticket, as people do; into the cache that our environment names."""
        self._run(["kinit", principal], dict(os.environ), self._users[principal] + "\n")

    def _make(self) -> None:
        values = {"realm": REALM, "port": self._port, "folder": self._folder, "tree": self._tree}
        self.config.write_text(KRB5_CONF.format(**values))
        (self._folder / "kdc.conf").write_text(KDC_CONF.format(**values))
        (self._folder / "acl").touch()
        environment = self._environment()
        programs = self._tree / "usr/sbin"
        self._run([f"{programs}/kdb5_util", "create", "-s", "-W"], environment, "master\nmaster\n")
        orders = [f"addprinc -randkey {service}" for service in SERVICES]
        orders += [f"ktadd -k {self.keytab} {service}" for service in SERVICES]
        for principal, password in self._users.items():
            orders.append(f'addprinc -pw "{password}" {principal}')
        self._run([f"{programs}/kadmin.local"], environment, "\n".join(orders) + "\n")
        if not self.keytab.exists():
            raise LabError("kadmin.local has written no keytab")

    def _environment(self) -> dict[str, str]:
        libraries = self._tree / "usr/lib/x86_64-linux-gnu"
        return {
            "PATH": os.environ["PATH"],
            "LD_LIBRARY_PATH": str(libraries),
            "KRB5_CONFIG": str(self.config),
            "KRB5_KDC_PROFILE": str(self._folder / "kdc.conf"),
        }

    def _run(self, command: list[str], environment: dict[str, str], text: str) -> None:
        done = subprocess.run(
            command, env=environment, input=text, capture_output=True, text=True, timeout=SECONDS
        )
        if done.returncode != 0:
            raise LabError(f"{command[0]}: {done.stderr[-1000:]}")

    def _listens(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise LabError(f"the KDC ended: {(self._folder / 'log').read_text(errors='replace')[-500:]}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=1):
            return True
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
