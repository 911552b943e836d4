"""Libvirt with QEMU TCG as a peer: VMs that really boot, and virsh as the oracle."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.contract.rig import Seen
from tests.lab import wait_for
from tests.lab.libvirtd import NOBODY, LibvirtLab, cpu

UP = "lab guest up"
_numbers = itertools.count(1)

# A QEMU that hangs when it starts with svm, as one whose storage does not answer.
HANGING = """#!/bin/sh
case "$*" in *svm=on*) exec sleep 1000 ;; esac
exec {qemu} "$@"
"""

# A QEMU that refuses to start a guest with svm, as a host with too old a firmware or microcode would.
FRAGILE = """#!/bin/sh
case "$*" in *svm=on*) echo "this host cannot do svm" >&2; exit 1 ;; esac
exec {qemu} "$@"
"""


class LibvirtRig:
    """One isolated libvirtd; every VM has a name of its own."""

    backend = "libvirt"
    secret = "hunter2x"  # noqa: S105 - VNC takes eight characters

    def __init__(self, lab: LibvirtLab) -> None:
        self.lab = lab
        self._made: list[str] = []

    @property
    def endpoint(self) -> Mapping[str, str]:
        return {"uri": self.lab.uri}

    @property
    def dead_endpoint(self) -> Mapping[str, str]:
        return {"uri": f"{self.lab.uri}-nobody-listens-here"}

    def restart_daemon(self) -> None:
        """End libvirtd and start it anew; its guests outlive it."""
        daemon, pid = self.lab._daemon, self.lab.pid
        assert daemon is not None
        assert pid is not None
        command = Path(f"/proc/{pid}/cmdline").read_text().strip("\0").split("\0")
        environ = Path(f"/proc/{pid}/environ").read_text().strip("\0").split("\0")
        as_whom = NOBODY if os.geteuid() == 0 else None
        os.kill(pid, signal.SIGKILL)
        daemon.wait(30)
        self.lab._daemon = subprocess.Popen(
            command,
            env=dict(word.split("=", 1) for word in environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=as_whom,
            group=as_whom,
            extra_groups=[] if as_whom else None,
            start_new_session=True,
        )
        wait_for(self.lab._listens, 60, "libvirtd to listen again")

    @contextmanager
    def forbidden(self) -> Iterator[Mapping[str, str]]:
        """A socket that may not be opened; root may open every one, so root is nobody meanwhile."""
        path = self.lab.folder / "forbidden"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            path.chmod(0)
            euid = os.geteuid()
            try:
                if euid == 0:
                    os.chown(path, 0, 0)
                    os.seteuid(NOBODY)
                yield {"uri": f"qemu+unix:///session?socket={path}"}
            finally:
                os.seteuid(euid)
                path.unlink()

    def make(
        self,
        *,
        nested: bool = False,
        running: bool = True,
        quirk: str = "",
        agent: str = "real",
        words: str = "",
    ) -> str:
        """See Rig; also with another agent, and further words for the guest (docs/reference/lab.md)."""
        name = f"vm-{os.getpid()}-{next(_numbers)}"
        self._made.append(name)
        deaf = "nv.shutdown=ignore" if quirk == "deaf" else ""
        xml = self.lab.define(name, svm=nested, agent=agent, extra_cmdline=f"{words} {deaf}".strip())
        listen = f"<listen type='socket' socket='{self.lab.folder}/{name}.vnc'/>"
        graphics = f"<graphics type='vnc' passwd='{self.secret}'>{listen}</graphics>"
        xml = xml.replace("</devices>", f"{graphics}</devices>")
        if quirk in ("fragile", "hanging"):
            xml = self._with_other_qemu(xml, quirk)
        self._define(xml)
        # Once more from libvirt's own output: it sorts devices when it reads them, not when it adds them.
        self._define(self._stored(name))
        if running:
            self.lab.start(name)
            if agent in ("real", "noexec"):
                self.lab.wait_agent(name)
            else:
                wait_for(lambda: UP in self.lab.console(name), 60, f"{name} to boot")
        return name

    def make_ambiguous(self) -> str:
        """A VM whose name is a number, which is the id of another one."""
        number = self.lab.virsh("domid", self.make()).strip()
        self._made.append(number)
        self.lab.define(number, svm=False)
        return number

    def see(self, name: str) -> Seen:
        """See Rig: virsh dumpxml, domstate, domid."""
        stored = self._stored(name)
        start, end = stored.index("<cpu "), stored.index("</cpu>") + len("</cpu>")
        element = stored[start:end]
        return Seen(
            stored,
            stored[:start] + stored[end:],
            "policy='require' name='svm'" in element,
            self.lab.virsh("domstate", name).strip() == "running",
            self.lab.virsh("domid", name).strip(),
        )

    def suspend(self, name: str) -> None:
        """See Rig."""
        self.lab.virsh("suspend", name)

    def edit(self, name: str, *, nested: bool | None) -> None:
        """See Rig: as an operator does it, by dumping, editing and defining."""
        stored = self._stored(name)
        start, end = stored.index("<cpu "), stored.index("</cpu>") + len("</cpu>")
        element = cpu("qemu64", svm=False) if nested is None else cpu("EPYC", svm=nested)
        self._define(stored[:start] + element + stored[end:])

    def reboot_inside(self, name: str) -> None:
        """See Rig: the guest's agent is told to reboot, and the guest boots once more in the same QEMU."""
        boots = self.lab.console(name).count(UP)
        self.lab.virsh("reboot", name, "--mode", "agent")
        wait_for(lambda: self.lab.console(name).count(UP) > boots, 60, f"{name} to boot again")
        self.lab.wait_agent(name)

    @contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """A VM whose QEMU does not answer libvirt any more, as one whose storage hangs."""
        pid = self.pid(name)
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            if pid == self.pid(name):
                os.kill(pid, signal.SIGCONT)

    def run_in_a_shell(self, command: str) -> None:
        """Run a cure as a person does who pastes it."""
        subprocess.run(["sh", "-ec", command], check=True, capture_output=True, timeout=60)

    def pid(self, name: str) -> int | None:
        """The process of a running VM."""
        try:
            return int((self.lab.folder / f"run/libvirt/qemu/run/{name}.pid").read_text())
        except FileNotFoundError:
            return None

    def remove_all(self) -> None:
        """Remove every VM that was made."""
        while self._made:
            self.lab.remove(self._made.pop())

    def _stored(self, name: str) -> str:
        return self.lab.virsh("dumpxml", "--inactive", "--security-info", name)

    def _define(self, xml: str) -> None:
        path = self.lab.folder / "edited.xml"
        path.write_text(xml, encoding="utf-8")
        self.lab.virsh("define", str(path))

    def _with_other_qemu(self, xml: str, quirk: str) -> str:
        start, end = xml.index("<emulator>") + len("<emulator>"), xml.index("</emulator>")
        script = self.lab.folder / f"{quirk}-qemu"
        text = FRAGILE if quirk == "fragile" else HANGING
        script.write_text(text.format(qemu=xml[start:end]), encoding="utf-8")
        script.chmod(stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
        return xml[:start] + str(script) + xml[end:]
