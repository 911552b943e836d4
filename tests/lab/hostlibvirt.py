"""The libvirtd of the lab's KVM host, and its domains: type kvm with the host's CPU passed through."""

from __future__ import annotations

import shlex
import uuid
from collections.abc import Callable
from pathlib import Path
from xml.sax.saxutils import escape

from tests.lab import LabError

AGENT_SECONDS = 240

DOMAIN = """\
<domain type='kvm'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>{memory_mib}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>/var/lib/lab/vmlinuz</kernel>
    <initrd>/var/lib/lab/initramfs.cpio</initrd>
    <cmdline>console=ttyS0 quiet panic=-1 nv.agent=real</cmdline>
  </os>
  <features><acpi/><apic/></features>
  {cpu}
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <serial type='file'><source path='/var/log/libvirt/qemu/{name}-console.log'/></serial>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
</domain>
"""

# Waits there: to ask again and again from here would cost the host more than the domain.
WAIT_AGENT = """
wait='until virsh -q qemu-agent-command --timeout 5 "$0" "$1" 2>/dev/null; do sleep 0.5; done'
timeout {seconds} sh -c "$wait" {name} '{{"execute":"guest-ping"}}' || true
"""

PASSED_THROUGH = "<cpu mode='host-passthrough' check='none'/>"


class HostLibvirt:
    """The daemon; run() is what runs a shell script on the host.

    Attributes:
        uri: what reaches it from here, through the ssh of the given name and configuration.
    """

    def __init__(self, run: Callable[..., str], folder: Path, host: str) -> None:
        self._run = run
        ssh = folder / "ssh"
        ssh.write_text(f'#!/bin/sh\nexec ssh -F {folder}/ssh_config "$@"\n')
        ssh.chmod(0o755)
        self.uri = f"qemu+ssh://{host}/system?command={ssh}"
        self.ensure()

    def ensure(self) -> None:
        """Start the daemon where it does not run: at first, and after the host was restarted."""
        self._run("pidof libvirtd >/dev/null || { virtlogd -d; libvirtd -d; }; virsh -q version >/dev/null")

    def virsh(self, *args: str) -> str:
        """What the host's own virsh prints for a command.

        Raises:
            LabError: it failed.
        """
        return self._run(f"virsh -q {shlex.join(args)}")

    def define(self, name: str, *, cpu_xml: str = PASSED_THROUGH, memory_mib: int = 256) -> str:
        """Define a domain, or define it anew, and give back its XML."""
        xml = DOMAIN.format(
            name=escape(name),
            uuid=uuid.uuid5(uuid.NAMESPACE_DNS, name),
            cpu=cpu_xml,
            memory_mib=memory_mib,
        )
        self._run("cat >/run/domain.xml; virsh -q define /run/domain.xml", xml.encode())
        return self.virsh("dumpxml", "--inactive", name)

    def start(self, name: str) -> None:
        """Power a domain on; it boots for some seconds more."""
        self.virsh("start", name)

    def wait_agent(self, name: str) -> None:
        """Wait until the agent in a domain answers.

        Raises:
            LabError: it did not in time.
        """
        script = WAIT_AGENT.format(seconds=AGENT_SECONDS, name=shlex.quote(name))
        if '"return"' not in self._run(script):
            raise LabError(f"no agent answers in {name}; its console ends: {self.console(name)[-1000:]}")

    def console(self, name: str) -> str:
        """What a domain has written to its serial console."""
        return self._run(f"cat /var/log/libvirt/qemu/{shlex.quote(name)}-console.log")

    def stop_all(self) -> None:
        """Power off and forget every domain."""
        self._run(
            "for vm in $(virsh -q list --name); do virsh -q destroy $vm; done\n"
            "for vm in $(virsh -q list --all --name); do virsh -q undefine --managed-save $vm; done"
        )
