"""Libvirt with QEMU TCG as a peer: VMs that really boot, and virsh as the oracle."""

from __future__ import annotations

import itertools
import os
import socket
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tests.contract.rig import Seen
from tests.lab import wait_for
from tests.lab.libvirtd import NOBODY, LibvirtLab, cpu

UP = "lab guest up"
_numbers = itertools.count(1)

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
        if quirk == "fragile":
            xml = self._with_fragile_qemu(xml)
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

    def _with_fragile_qemu(self, xml: str) -> str:
        start, end = xml.index("<emulator>") + len("<emulator>"), xml.index("</emulator>")
        script = self.lab.folder / "fragile-qemu"
        script.write_text(FRAGILE.format(qemu=xml[start:end]), encoding="utf-8")
        script.chmod(stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
        return xml[:start] + str(script) + xml[end:]
