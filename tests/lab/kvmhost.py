"""A real KVM host of the lab's own: Debian's kernel under QEMU TCG with AMD's virtualization, reached over SSH.

What a physical host has is real in there: kvm_amd with its parameter, /etc/modprobe.d, kmod, initramfs-tools,
QEMU on KVM, libvirtd. It reaches nothing outside of itself.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import shutil
import socket
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from tests.lab import LabError, wait_for
from tests.lab.hostimage import host_image

BOOT_SECONDS = 180
COMMAND_SECONDS = 180
MEMORY_MIB = 1536

SSH_CONFIG = """\
Host {name}
  HostName 127.0.0.1
  HostKeyAlias {name}
  Port {port}
  User root
  IdentityFile {folder}/user
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile none
  StrictHostKeyChecking yes
"""


class Done(NamedTuple):
    """What a command on the host gave back."""

    code: int
    stdout: str
    stderr: str


class KvmHost:
    """The host; a context manager, which ends what it started.

    Attributes:
        name: what ``ssh -F ssh_config`` knows it by.
        ssh_config: how to reach it as root, its host key included.
        folder: its disk, its keys, and its console.
    """

    name = "kvm-host"

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="nv-kvm-host-"))
        self.ssh_config = self.folder / "ssh_config"
        self._qemu: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._prepare()
            self._power_on()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Pull the plug, and remove its folder."""
        if self._qemu is not None:
            self._qemu.kill()
            self._qemu.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, command: Sequence[str], stdin: bytes = b"") -> Done:
        """Run a command as root."""
        done = subprocess.run(
            ["ssh", "-F", str(self.ssh_config), self.name, shlex.join(command)],
            input=stdin,
            capture_output=True,
            timeout=COMMAND_SECONDS,
        )
        return Done(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def sh(self, script: str, stdin: bytes = b"") -> str:
        """What a shell script prints.

        Raises:
            LabError: it failed.
        """
        done = self.run(["sh", "-euc", script], stdin)
        if done.code != 0:
            raise LabError(f"on {self.name}: {script}: exit {done.code}: {done.stderr.strip()}")
        return done.stdout

    def console(self) -> str:
        """What the host has written to its serial console since it was last powered on."""
        try:
            return (self.folder / "console").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def _prepare(self) -> None:
        image = host_image()
        self._kernel = image.kernel
        subprocess.run(["cp", "--sparse=always", str(image.disk), str(self.folder / "disk")], check=True)
        for key in ("host", "user"):
            options = ["-q", "-t", "ed25519", "-N", "", "-C", f"lab-{key}", "-f", str(self.folder / key)]
            subprocess.run(["ssh-keygen", *options], check=True, capture_output=True)
        (self.folder / "known_hosts").write_text(f"{self.name} {(self.folder / 'host.pub').read_text()}")
        self._port = _free_port()
        values = {"name": self.name, "port": self._port, "folder": self.folder}
        self.ssh_config.write_text(SSH_CONFIG.format(**values))
        seed = {
            "etc/ssh/host": (self.folder / "host").read_bytes(),
            "etc/ssh/authorized_keys": (self.folder / "user.pub").read_bytes(),
        }
        (self.folder / "seed").write_bytes(_archive(seed))

    def _power_on(self) -> None:
        # Never this machine's KVM: the host has to have the virtualization that the lab gives it.
        qemu = ["qemu-system-x86_64", "-accel", "tcg,tb-size=256", "-M", "q35", "-cpu", "EPYC,svm=on"]
        rest = ["-m", str(MEMORY_MIB), "-nodefaults", "-display", "none", "-monitor", "none"]
        append = "console=ttyS0 quiet panic=-1 root=/dev/nvme0n1 rw init=/sbin/kvmhost"
        kernel = ["-kernel", str(self._kernel), "-append", append, "-serial", f"file:{self.folder}/console"]
        # Two namespaces of one controller: the kernel would number two controllers in any order.
        disks = ["-device", "nvme,id=nvme,serial=lab"]
        for number, name in enumerate(("disk", "seed"), start=1):
            file = f"file={self.folder}/{name},format=raw,cache=unsafe"
            disks += ["-drive", f"if=none,id={name},{file}"]
            disks += ["-device", f"nvme-ns,bus=nvme,drive={name},nsid={number}"]
        forward = f"hostfwd=tcp:127.0.0.1:{self._port}-:22"
        net = ["-netdev", f"user,id=net,restrict=on,{forward}", "-device", "virtio-net-pci,netdev=net,romfile="]
        with (self.folder / "qemu.log").open("wb") as log:
            self._qemu = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *qemu, *rest, *kernel, *disks, *net],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_for(self._answers, BOOT_SECONDS, f"{self.name} to answer over SSH")

    def _answers(self) -> bool:
        """Whether sshd says who it is; QEMU itself accepts connections as soon as it runs."""
        assert self._qemu is not None
        if self._qemu.poll() is not None:
            raise LabError(f"QEMU ended: {(self.folder / 'qemu.log').read_text()[-500:]}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 5) as client:
            return client.recv(4) == b"SSH-"
        return False


def _archive(files: Mapping[str, bytes]) -> bytes:
    """Files of root's, for nobody else to read, as a tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o600
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
