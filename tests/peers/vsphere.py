"""A vCenter, or a plain ESXi host, to test against, with all its switches.

It is govmomi's simulator, made to behave as the products do; see tests/peers/vcsim.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.lab.vcsim import Simulator
from tests.peers.vsphere_guest import furnish

_numbers = itertools.count(1)


class VSphere(Simulator):
    """The product, in a process of its own; a context manager.

    Args:
        esx: be an ESXi host.
        vms: how many VMs there are beside the few that the simulator begins with.

    Attributes:
        address: 127.0.0.2:PORT, with TLS.
        loopback: the same where clients tend to be lax: 127.0.0.1:PORT.
        ca_file: whom to trust.
        other_ca_file: somebody else.
        hosts_ca_file: who has signed what ESXi hosts show.
        thumbprint: SHA-256 of its certificate.
        thumbprint_sha1: SHA-1, as VMware shows it.
    """

    user, password = "ops@vsphere.local", "vcenter-secret-9"
    guest_user, guest_password = "root", "guest-secret-7"

    def __init__(self, *, esx: bool = False, vms: int = 0) -> None:
        secrets = {"VCSIM_PASSWORD": self.password, "VCSIM_GUEST_PASSWORD": self.guest_password}
        arguments = ["-user", self.user, "-guest-user", self.guest_user, "-vms", str(vms)]
        super().__init__([*arguments, *(["-esx"] if esx else [])], secrets)
        furnish(self.folder / "guest")
        self.address = self.told["Address"]
        self.loopback = self.told["Loopback"]
        self.ca_file = self.told["CaFile"]
        self.other_ca_file = self.told["OtherCaFile"]
        self.hosts_ca_file = self.told["HostsCaFile"]
        self.thumbprint = self.told["Thumbprint"]
        self.thumbprint_sha1 = self.told["ThumbprintSha1"]

    # VMs

    def make(
        self,
        name: str = "",
        *,
        nested: bool | None = False,
        running: bool = True,
        key: str | None = None,
        hardware: str = "vmx-19",
        folder: str = "",
        secret: str = "",
        like: str = "",
        **switches: Any,
    ) -> str:
        """Make a VM.

        Args:
            name: made up where it is empty.
            nested: nestedHVEnabled; None: unset.
            key: extraConfig vhv.enable; None: not there.
            hardware: its virtual hardware's version.
            folder: below the datacenter's VM folder, with slashes.
            secret: what its notes and its guestinfo hold.
            like: the VM beside which it is; by itself DC0_C0_RP0_VM0, on the cluster's host DC0_C0_H0.
            switches: how it behaves; see machine.go.
        """
        name = name or f"guest-{next(_numbers)}"  # vm-1 would be a managed object's id
        want = {
            "name": name,
            "nested": nested,
            "running": running,
            "key": key,
            "hardware": hardware,
            "folder": folder,
            "secret": secret,
            "like": like,
        }
        self.ask("make", value={**want, **_camel(switches)})
        return name

    def switch(self, name: str, **switches: Any) -> None:
        """Change how a VM behaves."""
        self.ask("switch", name=name, value=_camel(switches))

    def see(self, name: str) -> dict[str, Any]:
        """The oracle: the VM's properties as govmomi reads them; and whether it was started with nesting."""
        seen: dict[str, Any] = self.ask("see", name=name)
        return seen

    def set(self, name: str, values: Mapping[str, Any]) -> None:
        """Change properties of a VM, by their paths; None unsets. No rule of vSphere's is asked."""
        self.ask("set", name=name, values=values)

    def set_host(self, name: str, values: Mapping[str, Any]) -> None:
        """The same of a host."""
        self.ask("set-host", name=name, values=values)

    def set_key(self, name: str, key: str, value: str | None) -> None:
        """Change an extraConfig; None removes it."""
        self.ask("key", name=name, kind=key, value=value)

    def snapshot(self, name: str, title: str, *, memory: bool) -> None:
        """Take one."""
        self.ask("snapshot", name=name, snapshot={"title": title, "memory": memory})

    def power(self, name: str, state: str) -> None:
        """Bring it into a state, whatever there is against it: on, off, suspended."""
        self.ask("power", name=name, kind=state)

    def suspend(self, name: str) -> None:
        """Suspend it."""
        self.power(name, "suspended")

    def reboot_inside(self, name: str) -> None:
        """Reboot its guest: what it was started with stays."""
        self.power(name, "reboot")

    def move(self, name: str, host: str) -> None:
        """Put it on another host."""
        self.ask("move", name=name, kind=host)

    def lose(self, host: str) -> None:
        """Let a host be silent: vCenter knows nothing of its VMs any more."""
        self.ask("lose", name=host)

    def remove(self, name: str) -> None:
        """Delete it."""
        self.ask("remove", name=name)

    def leftovers(self, name: str) -> list[str]:
        """Files in the temporary folder of its guest."""
        left: list[str] = self.ask("leftovers", name=name)
        return left

    # the whole

    def reset(self) -> None:
        """Leave the VMs that it began with, and nothing of what was set, counted or planned."""
        self.ask("reset")

    def counts(self) -> dict[str, int]:
        """Requests by SOAP method, or by HTTP method and path, since clear()."""
        counts: dict[str, int] = self.ask("counts")
        return counts

    def clear(self) -> None:
        """Begin counting anew."""
        self.ask("clear")

    def fail(
        self, method: str, fault: str, *, message: str = "", times: int = 1, skip: int = 0, **fields: Any
    ) -> None:
        """Let the next requests of a method end with one of vSphere's faults (of a task, the task)."""
        planned = {"method": method, "what": "fault", "times": times, "skip": skip}
        self.ask("rule", rule=planned, fault=fault, words=message, fields=fields or None)

    def break_at(self, method: str, when: str, times: int = 1) -> None:
        """Cut the connection: before the request is done, or after, so that its answer is lost.

        Or the answer comes, and only half of it, or garbled, or packed with gzip.
        """
        self.ask("rule", rule={"method": method, "what": when, "times": times})

    def delay(self, method: str, seconds: float, times: int = 1) -> None:
        """Let the next requests of a method wait."""
        self.ask("rule", rule={"method": method, "what": "delay", "times": times, "seconds": seconds})

    def task_seconds(self, seconds: float, *, cancelable: bool = False) -> None:
        """Let tasks take time."""
        self.ask("manner", kind="tasks", seconds=seconds, name="cancelable" if cancelable else "")

    @contextmanager
    def upon(self, method: str, do: Callable[[], object]) -> Iterator[None]:
        """Do something in a thread of its own, as soon as the next request of that method has been made."""
        before = self.counts().get(method, 0)
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.01):
                if self.counts().get(method, 0) > before:
                    do()
                    return

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    def drs_manual(self) -> None:
        """Let DRS only recommend where a VM is started."""
        self.ask("manner", kind="drs-manual")

    def transfer(self, where: str) -> None:
        """Whose address guests' files have: ``host``, ``*``, or ``other`` with its own certificate."""
        self.ask("manner", kind="transfer", name=where)

    def privileges(self, *names: str) -> None:
        """What its user may do from now on."""
        self.ask("privileges", names=list(names))

    def expire(self) -> None:
        """End all sessions."""
        self.ask("expire")

    def answer_with(self, status: int, body: str, kind: str = "text/html") -> None:
        """Be some other server."""
        self.ask("instead", instead={"status": status, "body": body, "type": kind})


def _camel(switches: Mapping[str, Any]) -> dict[str, Any]:
    """As Go's JSON takes them, whose names have no underscores and no case."""
    return {name.replace("_", ""): value for name, value in switches.items()}
