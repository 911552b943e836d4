"""An isolated libvirtd of the lab's own: its folders, sockets and configuration, and guests that really boot.

It is a session daemon with private XDG folders, so it needs no privilege and sees nothing of the machine's
own libvirt. A session daemon cannot be root; started by root it runs as nobody, and root still reaches its
sockets and files. Its URI serves libvirt-python, virsh, and any number of processes at the same time.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from pathlib import Path
from xml.sax.saxutils import escape

from tests.lab import Closing, LabError, wait_for
from tests.lab.artifacts import Artifacts, artifacts
from tests.lab.cache import home

NOBODY = 65534
COMMAND_SECONDS = 120
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# No security driver and no log daemon: neither is there for a session, and looking for them takes seconds.
QEMU_CONF = 'security_driver = "none"\nstdio_handler = "file"\n'

DOMAIN = """\
<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>{memory_mib}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initramfs}</initrd>
    <cmdline>{cmdline}</cmdline>
  </os>
  <features>
    <acpi/>
    <apic/>
    <tcg><tb-cache unit='MiB'>64</tb-cache></tcg>
  </features>
  {cpu}
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>{emulator}</emulator>
    <serial type='file'><source path='{console}'/></serial>
    {channel}
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
</domain>
"""

CHANNEL = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"


def cpu(model: str, *, svm: bool) -> str:
    """The <cpu> element of a TCG guest. Without check='none' libvirt asks the *host's* CPU for svm."""
    policy = "require" if svm else "disable"
    return (
        f"<cpu mode='custom' match='exact' check='none'><model fallback='allow'>{model}</model>"
        f"<feature policy='{policy}' name='svm'/></cpu>"
    )


class LibvirtLab(Closing):
    """The daemon and its guests; a context manager, which ends what it started.

    Attributes:
        uri: what to connect to.
        folder: all that the daemon and its guests write.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Args: folder: that of a daemon which runs already; None to start one."""
        self.folder = folder or Path(tempfile.mkdtemp(prefix="nv-lab-"))
        self.uri = f"qemu+unix:///session?socket={self.folder}/run/libvirt/libvirt-sock"
        self._daemon: subprocess.Popen[bytes] | None = None
        if folder is None:
            try:
                self._launch()
            except BaseException:
                self.close()
                raise

    @property
    def pid(self) -> int | None:
        """The daemon's process, None where it does not run."""
        return self._ours(self.folder / "run/libvirt/libvirtd.pid")

    def virsh(self, *args: str, check: bool = True) -> str:
        """What virsh prints for a command (with check=False: also what it complains about).

        Raises:
            LabError: it failed, and check is true.
        """
        done = subprocess.run(
            ["virsh", "--quiet", "--connect", self.uri, *args],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMMAND_SECONDS,
        )
        if not check:
            return done.stdout + done.stderr
        if done.returncode != 0:
            raise LabError(f"virsh {' '.join(args)}: {done.stderr.strip()}")
        return done.stdout

    def define(
        self,
        name: str,
        *,
        svm: bool,
        model: str = "EPYC",
        agent: str = "real",
        cpu_xml: str | None = None,
        memory_mib: int = 192,
        extra_cmdline: str = "",
        channel: bool = True,
    ) -> str:
        """Define a guest, or define it anew, and give back its XML.

        Args:
            name: the domain's name; its UUID follows from it, so that it can be defined again.
            svm: whether its CPU offers AMD's virtualization.
            model: its CPU model.
            agent: what answers in the guest: real, none, noexec, liar, flood or mute.
            cpu_xml: the whole <cpu> element, in place of model and svm; empty for none.
            memory_mib: its memory; 160 is enough, 128 is not.
            extra_cmdline: further words for the guest, such as nv.python=no (docs/reference/lab.md).
            channel: whether there is a channel for the agent at all.
        """
        boot = Artifacts(self.folder / "vmlinuz", self.folder / "initramfs.cpio")
        xml = DOMAIN.format(
            name=escape(name),
            uuid=uuid.uuid5(uuid.NAMESPACE_DNS, name),
            memory_mib=memory_mib,
            kernel=boot.kernel,
            initramfs=boot.initramfs,
            cmdline=escape(f"console=ttyS0 quiet panic=-1 nv.agent={agent} {extra_cmdline}".strip()),
            cpu=cpu(model, svm=svm) if cpu_xml is None else cpu_xml,
            emulator=shutil.which("qemu-system-x86_64", path=PATH),
            console=escape(str(self._console(name))),
            channel=CHANNEL if channel else "",
        )
        with tempfile.NamedTemporaryFile("w", suffix=".xml") as file:
            file.write(xml)
            file.flush()
            self.virsh("define", file.name)
        return self.virsh("dumpxml", "--inactive", name)

    def start(self, name: str) -> None:
        """Power a guest on. It boots for some seconds more; see wait_agent."""
        self.virsh("start", name)

    def wait_agent(self, name: str, timeout: float = 60) -> None:
        """Wait until the agent in a guest answers.

        Raises:
            LabError: it did not in time. The message has the end of the guest's console.
        """
        ping = json.dumps({"execute": "guest-ping"})

        def answers() -> bool:
            return '"return"' in self.virsh("qemu-agent-command", "--timeout", "5", name, ping, check=False)

        try:
            wait_for(answers, timeout, f"the agent in {name}")
        except LabError as error:
            raise LabError(f"{error}; console: {self.console(name)[-500:]}") from None

    def wait_off(self, name: str, timeout: float = 60) -> None:
        """Wait until a guest is switched off."""
        wait_for(lambda: self.virsh("domstate", name).strip() == "shut off", timeout, f"{name} to be off")

    def console(self, name: str) -> str:
        """What a guest has written to its serial console since it was last powered on."""
        try:
            return self._console(name).read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def remove(self, name: str) -> None:
        """Remove a guest in whatever state, with managed save and snapshots; no error where there is none."""
        self.virsh("destroy", name, check=False)
        self.virsh("undefine", "--managed-save", "--snapshots-metadata", name, check=False)
        self._console(name).unlink(missing_ok=True)

    def close(self) -> None:
        """End the daemon and its guests, and remove their folder."""
        if (pid := self.pid) is not None:
            os.kill(pid, signal.SIGTERM)
        if self._daemon is not None:
            self._daemon.terminate()
            self._daemon.wait(COMMAND_SECONDS)
        wait_for(lambda: self.pid is None, COMMAND_SECONDS, "libvirtd to end")
        # Guests outlive the daemon, also one that crashed.
        for file in self.folder.glob("run/libvirt/qemu/run/*.pid"):
            if (pid := self._ours(file)) is not None:
                os.kill(pid, signal.SIGKILL)
        self._keep_capabilities()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _ours(self, pid_file: Path) -> int | None:
        """The process in a pid file, if it runs and is of this lab: its command line names our folder."""
        try:
            pid = int(pid_file.read_text())
            return pid if str(self.folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes() else None
        except (OSError, ValueError):
            return None

    def _console(self, name: str) -> Path:
        return self.folder / "consoles" / f"{name}.log"

    def _launch(self) -> None:
        boot = artifacts()
        # Copies: a session daemon as nobody cannot look into root's home.
        shutil.copyfile(boot.kernel, self.folder / "vmlinuz")
        shutil.copyfile(boot.initramfs, self.folder / "initramfs.cpio")
        for name in ("config/libvirt", "data", "run", "consoles"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "config/libvirt/qemu.conf").write_text(QEMU_CONF)
        (self.folder / "libvirtd.conf").touch()
        self._recall_capabilities()
        as_whom: list[str] = []
        if os.geteuid() == 0:
            as_whom = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
            for path in (self.folder, *self.folder.rglob("*")):
                os.chown(path, NOBODY, NOBODY)
        env = {f"XDG_{kind.upper()}_HOME": str(self.folder / kind) for kind in ("cache", "config", "data")}
        env |= {"PATH": PATH, "HOME": str(self.folder), "XDG_RUNTIME_DIR": str(self.folder / "run")}
        with (self.folder / "libvirtd.log").open("wb") as log:
            self._daemon = subprocess.Popen(
                [*as_whom, "libvirtd", "--config", str(self.folder / "libvirtd.conf")],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # the terminal's Ctrl-C is for us; we end the daemon after its guests
            )
        wait_for(self._listens, COMMAND_SECONDS, "libvirtd to listen")

    def _listens(self) -> bool:
        assert self._daemon is not None
        if self._daemon.poll() is not None:
            log = (self.folder / "libvirtd.log").read_text(errors="replace")
            raise LabError(f"libvirtd ended: {log[-500:]}")
        with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
            client.connect(self.uri.partition("socket=")[2])
            return True
        return False

    # To learn what QEMU can do, libvirt starts it several times (4 s). It keeps what it learnt in its cache
    # folder and checks that against the programs' times: what one daemon learnt is of use to the next.

    def _recall_capabilities(self) -> None:
        kept = home() / "capabilities"
        into = self.folder / "cache/libvirt/qemu/cache/capabilities"
        into.mkdir(parents=True)
        for file in kept.glob("*.xml"):
            shutil.copyfile(file, into / file.name)

    def _keep_capabilities(self) -> None:
        kept = home() / "capabilities"
        kept.mkdir(parents=True, exist_ok=True)
        for file in (self.folder / "cache/libvirt/qemu/cache/capabilities").glob("*.xml"):
            scratch = kept / f"{file.name}.{os.getpid()}"
            shutil.copyfile(file, scratch)
            scratch.replace(kept / file.name)
