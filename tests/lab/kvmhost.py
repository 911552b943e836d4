"""A real KVM host of the lab's own: Debian under QEMU TCG with AMD's virtualization, reached over SSH.

What a physical host has is real in there: kvm_amd with its parameter, /etc/modprobe.d, kmod, initramfs-tools,
QEMU on KVM, libvirtd. It reaches nothing outside of itself.
"""

from __future__ import annotations

import contextlib
import io
import shlex
import shutil
import socket
import subprocess
import tarfile
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from tests.lab import Closing, LabError, wait_for
from tests.lab.artifacts import OURS, kernel_tree
from tests.lab.boot import PROBE
from tests.lab.cpio import Entry, pack
from tests.lab.hostimage import host_image
from tests.lab.hostlibvirt import HostLibvirt
from tests.lab.hostvms import HostVms, VmSeen

BOOT_SECONDS = 300
COMMAND_SECONDS = 300  # more than what waits on the host itself
MEMORY_MIB = 1536
CONFIGS = "/etc/modprobe.d /run/modprobe.d /usr/local/lib/modprobe.d"
SIGNATURE_MARK = b"~Module signature appended~\n"

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


class KvmHost(Closing):
    """The host, booted; a context manager, which ends what it started.

    Attributes:
        name: what ``ssh -F ssh_config`` knows it by.
        ssh_config: how to reach it as root, its host key included.
        folder: its disk, its keys, and its console.
    """

    name = "kvm-host"

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="nv-kvm-host-"))
        self.ssh_config = self.folder / "ssh_config"
        self._vms = HostVms(self.sh)
        self._qemu: subprocess.Popen[bytes] | None = None
        self._ssh: subprocess.Popen[bytes] | None = None
        try:
            self._prepare()
            self._power_on()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Pull the plug, and remove its folder."""
        self._power_off()
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- what is done on it

    def run(self, command: Sequence[str], stdin: bytes = b"") -> Done:
        """Run a command as root, over a connection that is open already.

        Raises:
            subprocess.TimeoutExpired: it did not end.
        """
        done = subprocess.run(
            ["ssh", "-F", str(self.ssh_config), "-S", str(self._mux), self.name, shlex.join(command)],
            input=stdin,
            capture_output=True,
            timeout=COMMAND_SECONDS,
        )
        stdout, stderr = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
        return Done(done.returncode, stdout, stderr)

    def sh(self, script: str, stdin: bytes = b"") -> str:
        """What a shell script prints.

        Raises:
            LabError: it failed.
        """
        done = self.run(["sh", "-euc", script], stdin)
        if done.code != 0:
            raise LabError(f"on {self.name}: {script}: exit {done.code}: {done.stderr.strip()}")
        return done.stdout

    def read(self, path: str) -> str:
        """The text of a file."""
        return self.sh(f"cat {shlex.quote(path)}")

    def write(self, path: str, text: str) -> None:
        """Write a file, in a folder that is made if it is missing."""
        name = shlex.quote(path)
        self.sh(f"mkdir -p $(dirname {name}); cat >{name}", text.encode())

    def console(self) -> str:
        """What the host has written to its serial console since it was last powered on."""
        try:
            return (self.folder / "console").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    # --- its state

    @property
    def nested(self) -> str | None:
        """The parameter of kvm_amd that is in effect, 0 or 1; None where the module is not loaded."""
        return self.sh("cat /sys/module/kvm_amd/parameters/nested 2>/dev/null || true").strip() or None

    def reload(self, nested: str | None = None) -> None:
        """Bring the host into a known state: no VMs, no drop-ins, no initramfs, and the module loaded anew.

        Args:
            nested: the parameter that it is loaded with; None for the kernel's default, which is 1.
        """
        self._vms.stop_all()
        if "libvirt" in vars(self):
            self.libvirt.stop_all()
        self.sh(
            "while mountpoint -q /etc; do umount /etc; done\n"
            f"for folder in {CONFIGS}; do rm -rf $folder; mkdir -p $folder; done\n"
            "rm -f /boot/initrd.img-* /etc/initramfs-tools/modules\n"
            "[ ! -e /sys/module/vboxdrv ] || rmmod vboxdrv\n"
            "modprobe -r kvm_amd\n"
            f"modprobe kvm_amd {'' if nested is None else f'nested={nested}'}"
        )

    def restart(self, *, initramfs: bool = False) -> None:
        """Power-cycle the host: what lies on its disk stays, and what was in effect does not.

        Args:
            initramfs: start with the one in its /boot, as a boot loader would; else the kernel alone.
        """
        initrd = None
        if initramfs:
            initrd = self.folder / "initrd"
            with initrd.open("wb") as file:
                command = ["ssh", "-F", str(self.ssh_config), "-S", str(self._mux), self.name]
                subprocess.run([*command, "cat /boot/initrd.img-$(uname -r)"], stdout=file, check=True)
        self.sh("sync; echo u >/proc/sysrq-trigger")
        self._power_off()
        self._power_on(initrd)

    @contextlib.contextmanager
    def read_only_etc(self) -> Iterator[None]:
        """While it lasts nothing in /etc can be written, as on an image-based host."""
        self.sh("mount --bind /etc /etc; mount -o remount,bind,ro /etc")
        try:
            yield
        finally:
            self.sh("umount /etc")

    @contextlib.contextmanager
    def another_module(self, name: str = "vboxdrv") -> Iterator[None]:
        """While it lasts a module of that name is loaded: the kernel's crc7, renamed, which does nothing."""
        module = next(kernel_tree().glob("lib/modules/*/kernel/lib/crc7.ko")).read_bytes()
        own = b"crc7".ljust(56, b"\0")  # in struct module
        if module.count(own) != 1:
            raise LabError("the kernel's crc7 is not what this was written for")
        # Without the mark the kernel takes it for unsigned, which it allows; a wrong signature it does not.
        renamed = module.replace(own, name.encode().ljust(56, b"\0")).removesuffix(SIGNATURE_MARK)
        self.sh(f"cat >/run/{name}.ko; insmod /run/{name}.ko", renamed)
        try:
            yield
        finally:
            self.sh(f"rmmod {name}")

    # --- its VMs

    def start_vm(self, name: str = "web-01", *, nested_probe: bool = False) -> None:
        """Start a VM: QEMU on the host's KVM with -cpu host. It uses the module until it is stopped.

        Args:
            name: what QEMU is told that it is called.
            nested_probe: whether the VM runs nestvirt's probe; see vm_seen.
        """
        self._vms.start(name, nested_probe=nested_probe)

    def vms(self) -> list[str]:
        """The names of the VMs that run."""
        return self._vms.running()

    def stop_vm(self, name: str = "web-01") -> None:
        """End a VM."""
        self._vms.stop(name)

    def vm_seen(self, name: str = "web-01") -> VmSeen:
        """Wait for what a VM says about itself."""
        return self._vms.seen(name)

    @cached_property
    def libvirt(self) -> HostLibvirt:
        """The host's libvirtd, started when it is first asked for."""
        return HostLibvirt(self.sh, self.folder, self.name)

    @property
    def libvirt_uri(self) -> str:
        """What reaches the host's libvirtd from here, over the same SSH; started where it does not run."""
        self.libvirt.ensure()
        return self.libvirt.uri

    # --- how it is brought up

    def _prepare(self) -> None:
        image = host_image()
        self._kernel = image.kernel
        subprocess.run(["cp", "--sparse=always", str(image.disk), str(self.folder / "disk")], check=True)
        for key in ("host", "user"):
            options = ["-q", "-t", "ed25519", "-N", "", "-C", f"lab-{key}", "-f", str(self.folder / key)]
            subprocess.run(["ssh-keygen", *options], check=True, capture_output=True)
        (self.folder / "known_hosts").write_text(f"{self.name} {(self.folder / 'host.pub').read_text()}")
        self._mux = self.folder / "mux"
        self._port = _free_port()
        values = {"name": self.name, "port": self._port, "folder": self.folder}
        self.ssh_config.write_text(SSH_CONFIG.format(**values))
        seed = {
            "etc/machine-id": f"{uuid.uuid4().hex}\n".encode(),
            "etc/ssh/authorized_keys": (self.folder / "user.pub").read_bytes(),
            "etc/ssh/host": (self.folder / "host").read_bytes(),
            "var/lib/lab/vm.cpio": pack(
                [Entry("nv/probe.py", PROBE.read_bytes()), Entry("nv/run", (OURS / "vm").read_bytes())]
            ),
        }
        (self.folder / "seed").write_bytes(_archive(seed))

    def _power_on(self, initrd: Path | None = None) -> None:
        # Never this machine's KVM: the host has to have the virtualization that the lab gives it.
        qemu = ["qemu-system-x86_64", "-accel", "tcg,tb-size=256", "-M", "q35", "-cpu", "EPYC,svm=on"]
        rest = ["-m", str(MEMORY_MIB), "-nodefaults", "-no-reboot", "-display", "none", "-monitor", "none"]
        append = "console=ttyS0 quiet panic=-1 root=/dev/nvme0n1 rw init=/sbin/kvmhost"
        kernel = ["-kernel", str(self._kernel), "-append", append, "-serial", f"file:{self.folder}/console"]
        with (self.folder / "qemu.log").open("wb") as log:
            self._qemu = subprocess.Popen(
                # Ends with this process, however that ends.
                ["setpriv", "--pdeathsig", "KILL", *qemu, *rest, *kernel]
                + ([] if initrd is None else ["-initrd", str(initrd)])
                + self._devices(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_for(self._greets, BOOT_SECONDS, f"{self.name} to answer over SSH")
        with (self.folder / "ssh.log").open("wb") as log:
            self._ssh = subprocess.Popen(
                ["ssh", "-F", str(self.ssh_config), "-M", "-S", str(self._mux), "-N", self.name],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_for(self._logged_in, BOOT_SECONDS, f"a login on {self.name}")

    def _devices(self) -> list[str]:
        # Two namespaces of one controller: the kernel would number two controllers in any order.
        words = ["-device", "nvme,id=nvme,serial=lab"]
        for number, name in enumerate(("disk", "seed"), start=1):
            words += ["-drive", f"if=none,id={name},file={self.folder}/{name},format=raw,cache=unsafe"]
            words += ["-device", f"nvme-ns,bus=nvme,drive={name},nsid={number}"]
        forward = f"hostfwd=tcp:127.0.0.1:{self._port}-:22"
        network = ["-netdev", f"user,id=net,restrict=on,{forward}"]
        return [*words, *network, "-device", "virtio-net-pci,netdev=net,romfile="]

    def _power_off(self) -> None:
        for process in (self._ssh, self._qemu):
            if process is not None:
                process.kill()
                process.wait()
        (self.folder / "mux").unlink(missing_ok=True)
        (self.folder / "console").unlink(missing_ok=True)

    def _greets(self) -> bool:
        """Whether sshd says who it is; QEMU itself accepts connections as soon as it runs."""
        assert self._qemu is not None
        if self._qemu.poll() is not None:
            said = (self.folder / "qemu.log").read_text() + self.console()
            raise LabError(f"{self.name} went off: {said[-500:]}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 5) as client:
            return client.recv(4) == b"SSH-"
        return False

    def _logged_in(self) -> bool:
        assert self._ssh is not None
        if self._ssh.poll() is not None:
            raise LabError(f"ssh ended: {(self.folder / 'ssh.log').read_text()[-500:]}")
        return self._mux.exists()


def _archive(files: Mapping[str, bytes]) -> bytes:
    """Files of root's as a tar archive; a private key is for nobody else to read."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o600 if b"PRIVATE KEY" in data else 0o644
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
