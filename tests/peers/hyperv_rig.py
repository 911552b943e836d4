"""The Hyper-V peer as the conformance suite asks for it: real WinRM, a PowerShell of ours, a host's state."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tests.contract.rig import Seen
from tests.lab import Closing
from tests.peers.hyperv import Guest, Host, Machine
from tests.peers.pwsh import PowerShell
from tests.peers.winrm.accounts import Account
from tests.peers.winrm.command import Invocation, Result
from tests.peers.winrm.pki import Certificates
from tests.peers.winrm.server import OPS, Endpoint

OUTSIDER = Account("LAB\\guest", "outsider-secret-7", "guest@LAB.TEST")
"""May log in over WinRM, and is no Hyper-V administrator."""


class HyperVLab(Closing):
    """A Hyper-V host that listens on 127.0.0.1; a context manager.

    Attributes:
        host: its state, which is the oracle.
        endpoint: its WinRM service.
        shell: its PowerShell.
        begins: called before a script does anything; the seconds that PowerShell then takes to begin.
    """

    def __init__(self, certificates: Certificates, accounts: Sequence[Account] = (OPS, OUTSIDER)) -> None:
        self.host = Host()
        self.shell = PowerShell(self.host)
        self.begins: Callable[[Invocation], float] = lambda _invocation: 0.0
        self.endpoint = Endpoint(self, certificates, accounts)

    def __call__(self, invocation: Invocation) -> Result:
        """What the service starts; who is no Hyper-V administrator is refused by each cmdlet."""
        was = self.host.denied
        self.host.denied = was or invocation.user == OUTSIDER.name
        self.shell.environment["COMPUTERNAME"] = self.host.name
        line = " ".join((invocation.command, *invocation.arguments))
        self.host.processes.append(line)
        try:
            time.sleep(self.begins(invocation))
            return self.shell(invocation)
        finally:
            self.host.processes.remove(line)
            self.host.denied = was

    def wrongs(self) -> list[str]:
        """What should not have come to pass: each is a mistake of a script's."""
        jobs = ["a job was left behind"] * len(self.host.jobs)
        raised = [repr(failure) for failure in self.endpoint.failures]
        return [*self.shell.unknown, *raised, *self.host.wrongs, *jobs]

    def close(self) -> None:
        """Listen no more."""
        self.endpoint.close()


class HyperVRig:
    """Over HTTPS with NTLM, as a Hyper-V administrator; guests are Windows, seen by PowerShell Direct."""

    backend = "hyperv"
    secret = "hunter2-in-the-notes"  # noqa: S105

    def __init__(self, lab: HyperVLab) -> None:
        self.lab = lab
        self.host = lab.host
        self._made = 0

    @property
    def address(self) -> dict[str, str]:
        """Where it is, and how it is trusted."""
        url = self.lab.endpoint.https_url.removesuffix("/wsman")
        return {"endpoint": url, "ca_file": str(self.lab.endpoint.certificates.ca_file)}

    @property
    def endpoint(self) -> Mapping[str, str]:
        login = {"username": self.lab.endpoint.user, "password": self.lab.endpoint.password}
        guest = Guest()
        return {**self.address, **login, "guest_username": guest.user, "guest_password": guest.password}

    @property
    def dead_endpoint(self) -> Mapping[str, str]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return {**self.endpoint, "endpoint": f"https://127.0.0.1:{probe.getsockname()[1]}"}

    @contextmanager
    def forbidden(self) -> Iterator[Mapping[str, str]]:
        yield {**self.endpoint, "password": "not-this-one"}

    def make(self, *, nested: bool = False, running: bool = True, quirk: str = "", **switches: Any) -> str:
        """See Rig; also with any of Machine's fields, and with Guest's as ``guest_…``."""
        self._made += 1
        guest = {key: switches.pop(key) for key in list(switches) if key.startswith("guest_")}
        name = str(switches.pop("name", f"vm-{self._made:02d}"))
        machine = Machine(name, expose=nested, notes=f"root: {self.secret}", **switches)
        for key, value in guest.items():
            setattr(machine.guest, key.removeprefix("guest_"), value)
        machine.guest.deaf = machine.guest.deaf or quirk == "deaf"
        machine.fragile = machine.fragile or quirk == "fragile"
        self.host.machines.append(machine)
        if running:
            self.host.boot(machine)
            machine.group = "Online" if machine.group else ""
        return name

    def make_ambiguous(self) -> str:
        """Names of VMs are no keys: the same twice, in another case."""
        name = self.make(running=False)
        self.make(running=False, name=name.upper())
        return name

    def machine(self, name: str) -> Machine:
        """The one of that name."""
        [found] = [each for each in self.host.machines if each.name == name]
        return found

    def see(self, name: str) -> Seen:
        self.host.tick()
        machine = self.machine(name)
        stored = machine.stored()
        others = {key: value for key, value in stored.items() if key != "expose"}
        return Seen(
            json.dumps(stored, sort_keys=True, default=str),
            json.dumps(others, sort_keys=True, default=str),
            machine.expose is True,
            machine.state == "Running",
            str(machine.boots),
        )

    def suspend(self, name: str) -> None:
        """As Save-VM does."""
        self.machine(name).state = "Saved"

    def edit(self, name: str, *, nested: bool | None) -> None:
        """While the VM is off, as Hyper-V has it; one that runs is turned off for it, and on again.

        The third value is none at all, as on a host of an early build.
        """
        machine = self.machine(name)
        running = machine.state == "Running"
        if running:
            self.host.turn_off(machine)
        machine.expose = nested
        if running:
            self.host.boot(machine)

    def reboot_inside(self, name: str) -> None:
        """The VM keeps what it was started with."""
