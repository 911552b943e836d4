"""KVM and QEMU through libvirt: reads and writes a domain's ``<cpu>``, and nothing else of it.

API: https://libvirt.org/html/libvirt-libvirt-domain.html
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

from nestvirt.backends.libvirt import cpu_xml, host
from nestvirt.backends.libvirt.agent import AgentChannel
from nestvirt.backends.libvirt.facts import CHECKS, DomainFacts, agent_state
from nestvirt.errors import (
    AccessDenied,
    ChangeRejected,
    ConnectionFailed,
    Error,
    GuestUnreachable,
    MissingExtra,
    PowerError,
    SettingsError,
    TargetError,
)
from nestvirt.guest.channel import Channel
from nestvirt.model import Change, Power, Target, Vm
from nestvirt.printable import printable

__all__ = ["CHECKS", "LibvirtBackend"]

CONNECT_TIMEOUT = 30.0
KEEPALIVE = (5, 4)
"""Seconds between two signs of life, and how many may be missed before a connection counts as lost."""


class LibvirtBackend:
    """One libvirt connection; see Backend."""

    accepts_cpu: ClassVar[bool] = True

    def __init__(self, libvirt: Any, connection: Any, endpoint: Mapping[str, str]) -> None:
        self._libvirt = libvirt
        self._connection = connection
        self.endpoint = endpoint

    @classmethod
    def connect(cls, target: Target, endpoint: Mapping[str, str]) -> Self:
        """Open the URI in ``endpoint["uri"]``; see Backend."""
        try:
            import libvirt
        except ImportError as error:
            raise MissingExtra(
                "the Python package of libvirt is not installed",
                evidence=str(error),
                cure="pip install 'nestvirt[libvirt]'; it compiles, for which Debian needs: "
                "apt install libvirt-dev pkg-config gcc python3-dev",
            ) from error
        uri = endpoint["uri"]
        if urlsplit(uri).password is not None:
            raise SettingsError(
                "a libvirt URI has no place for a password",
                evidence="the URI holds user:password@",
                cure="use SSH keys with qemu+ssh://, or libvirt's auth.conf",
            )
        libvirt.registerErrorHandler(_silence, None)
        return cls(libvirt, _open(libvirt, uri), endpoint)

    def find(self, name: str) -> Vm:
        """By name, UUID, or id of a running domain; see Backend."""
        with self._translated(ConnectionFailed, "libvirt did not list its domains"):
            domains = [(d.name(), d.UUIDString(), d.ID()) for d in self._connection.listAllDomains()]
        for matches in (
            [d for d in domains if d[0] == name],
            [d for d in domains if name.lower() == d[1]],
            [d for d in domains if name.isdigit() and d[2] == int(name)],
        ):
            if matches:
                found, uuid, _ = matches[0]
                self._refuse_ambiguous(name, uuid, domains)
                return Vm(uuid, found)
        known = ", ".join(sorted(d[0] for d in domains)[:20]) or "none that this user may see"
        raise TargetError(
            f"{self.endpoint['uri']} has no VM {name!r}",
            evidence=f"it has: {printable(known)}",
            cure="name one of these; for another libvirt, give --connect URI",
        )

    def _refuse_ambiguous(self, name: str, uuid: str, domains: list[tuple[str, str, int]]) -> None:
        """A number may be one domain's name and another one's id."""
        others = [d for d in domains if d[1] != uuid and name in (d[0], d[1], str(d[2]))]
        if others:
            listed = ", ".join(f"{d[0]} ({d[1]})" for d in domains if name in (d[0], d[1], str(d[2])))
            raise TargetError(f"{name!r} means more than one VM", evidence=listed, cure="give the UUID")

    def read(self, vm: Vm) -> DomainFacts:
        """Definition, live XML, capabilities, saved states; see Backend."""
        with self._translated(ConnectionFailed, f"libvirt did not tell about {vm.name}"):
            domain = self._lookup(vm)
            power = self._power(domain)
            inactive = (
                domain.XMLDesc(self._libvirt.VIR_DOMAIN_XML_INACTIVE) if domain.isPersistent() else None
            )
            live = domain.XMLDesc(0) if power is not Power.STOPPED else None
            return DomainFacts(
                name=domain.name(),
                power=power,
                inactive=inactive,
                live=live,
                host=host.read_host(self._libvirt, self._connection, inactive or live or ""),
                managed_save=bool(domain.hasManagedSaveImage(0)),
                memory_snapshots=host.memory_snapshots(self._libvirt, domain),
                model_features=host.model_features(self._libvirt, self._connection, inactive),
            )

    def apply(self, vm: Vm, change: Change) -> None:
        """Write the ``<cpu>`` element; see Backend."""
        with self._translated(ChangeRejected, f"libvirt refused the new definition of {vm.name}"):
            domain = self._lookup(vm)
            # Without SECURE a redefinition would lose passwords that the definition holds.
            flags = self._libvirt.VIR_DOMAIN_XML_INACTIVE | self._libvirt.VIR_DOMAIN_XML_SECURE
            definition = domain.XMLDesc(flags)
            present = cpu_xml.split(definition)[1]
            if present != change.before:
                raise ChangeRejected(
                    f"the CPU of {vm.name} was changed by somebody else a moment ago",
                    evidence=f"it was {change.before!r}, and is {present!r}",
                    cure="run this again to plan anew",
                )
            wanted = cpu_xml.replaced(definition, change.after)
            self._connection.defineXMLFlags(wanted, self._libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
            stored = self._lookup(vm).XMLDesc(flags)
            if not cpu_xml.same_but_cpu(definition, stored):
                self._connection.defineXML(definition)
                raise ChangeRejected(
                    f"libvirt changed more of {vm.name} than its CPU",
                    evidence="the definition read back differs outside <cpu>; the former one was put back",
                    cure=f"bring the definition into libvirt's own form first: virsh edit {vm.name}",
                )

    def stop(self, vm: Vm, *, timeout: float) -> None:
        """Shut the guest down by its agent, or else by the ACPI power button; see Backend."""
        deadline = time.monotonic() + timeout
        acpi = self._libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN
        pause = 2.0
        with self._translated(PowerError, f"libvirt could not shut {vm.name} down"):
            domain = self._lookup(vm)
            # A guest that still boots hears neither, so it is asked again, at growing intervals.
            while time.monotonic() < deadline:
                with contextlib.suppress(self._libvirt.libvirtError):
                    if not self._agent_shuts_down(domain):
                        domain.shutdownFlags(acpi)
                if self._is_off_by(domain, min(deadline, time.monotonic() + pause)):
                    return
                pause = min(pause * 1.5, 15.0)
        raise PowerError(
            f"{vm.name} did not shut down within {timeout:.0f} s",
            evidence="it was asked by its agent or by the ACPI power button; it may yet shut down",
            cure="give it more --timeout, look at its console, or allow --force-off",
        )

    def _is_off_by(self, domain: Any, moment: float) -> bool:
        while domain.isActive():
            if time.monotonic() >= moment:
                return False
            time.sleep(0.05)
        return True

    def power_off(self, vm: Vm) -> None:
        """Destroy the running domain, which cuts its power; see Backend."""
        with self._translated(PowerError, f"libvirt could not cut the power of {vm.name}"):
            domain = self._lookup(vm)
            if domain.isActive():
                domain.destroy()

    def start(self, vm: Vm, *, timeout: float) -> None:
        """Start the domain; see Backend."""
        deadline = time.monotonic() + timeout
        with self._translated(PowerError, f"{vm.name} did not start"):
            domain = self._lookup(vm)
            domain.create()
            while self._power(domain) is not Power.RUNNING:
                if time.monotonic() > deadline:
                    raise PowerError(
                        f"{vm.name} was not running within {timeout:.0f} s",
                        evidence=f"libvirt's state number is {domain.state()[0]}",
                        cure=f"virsh domstate --reason {vm.name}",
                    )
                time.sleep(0.05)

    def channel(self, vm: Vm) -> Channel | None:
        """The QEMU guest agent, where the running domain has its channel; see Backend."""
        with self._translated(ConnectionFailed, f"libvirt did not tell about {vm.name}"):
            domain = self._lookup(vm)
            if not domain.isActive() or agent_state(domain.XMLDesc(0)) is None:
                return None
        return AgentChannel(lambda command, timeout: self._to_agent(domain, command, timeout))

    def close(self) -> None:
        """Close the connection; a connection that is already lost is closed too."""
        with contextlib.suppress(self._libvirt.libvirtError):
            self._connection.close()

    def _lookup(self, vm: Vm) -> Any:
        return self._connection.lookupByUUIDString(vm.id)

    def _power(self, domain: Any) -> Power:
        state, _ = domain.state()
        off = (self._libvirt.VIR_DOMAIN_SHUTOFF, self._libvirt.VIR_DOMAIN_CRASHED)
        asleep = (self._libvirt.VIR_DOMAIN_PAUSED, self._libvirt.VIR_DOMAIN_PMSUSPENDED)
        if not domain.isActive() or state in off:
            return Power.STOPPED
        return Power.SUSPENDED if state in asleep else Power.RUNNING

    def _agent_shuts_down(self, domain: Any) -> bool:
        """Tell the agent, if it answers. libvirt's own call for it waits a minute, whatever our deadline."""
        try:
            self._to_agent(domain, '{"execute":"guest-ping"}', 2)
        except GuestUnreachable:
            return False
        with contextlib.suppress(GuestUnreachable):  # an agent that obeys does not answer any more
            self._to_agent(domain, '{"execute":"guest-shutdown"}', 1)
        return True

    def _to_agent(self, domain: Any, command: str, timeout: float) -> str:
        import libvirt_qemu

        try:
            return str(libvirt_qemu.qemuAgentCommand(domain, command, max(1, round(timeout)), 0))
        except self._libvirt.libvirtError as error:
            raise GuestUnreachable(
                "the guest agent did not answer",
                evidence=printable(error.get_error_message() or "", 300),
                cure="see that qemu-guest-agent is installed and runs in the guest, or use --ssh USER@HOST",
            ) from error

    @contextlib.contextmanager
    def _translated(self, kind: type[Error], message: str) -> Iterator[None]:
        """Turn libvirt's errors into ours, with libvirt's own words as evidence."""
        try:
            yield
        except self._libvirt.libvirtError as error:
            raise _translate(self._libvirt, error, kind, message, self.endpoint["uri"]) from error
        except ValueError as error:
            raise ChangeRejected(
                message, evidence=str(error), cure="look at it with: virsh dumpxml"
            ) from error


def _silence(_context: object, _error: object) -> None:
    """libvirt prints each error on stderr unless a handler is set."""


def _open(libvirt: Any, uri: str) -> Any:
    """Open a connection with a deadline, which libvirt itself has none for."""
    outcome: list[Any] = []
    _start_event_loop(libvirt)

    def opening() -> None:
        try:
            connection = libvirt.open(uri)
            with contextlib.suppress(libvirt.libvirtError):  # a driver without a daemon has nothing to lose
                connection.setKeepAlive(*KEEPALIVE)
            outcome.append(connection)
        except libvirt.libvirtError as error:
            outcome.append(error)

    thread = threading.Thread(target=opening, daemon=True)
    thread.start()
    thread.join(CONNECT_TIMEOUT)
    if not outcome:
        raise ConnectionFailed(
            f"{uri} did not answer within {CONNECT_TIMEOUT:.0f} s",
            evidence="the connection attempt still hangs",
            cure=f"try: virsh -c {uri} list",
        )
    if isinstance(outcome[0], libvirt.libvirtError):
        message = f"cannot connect to {uri}"
        raise _translate(libvirt, outcome[0], ConnectionFailed, message, uri) from outcome[0]
    return outcome[0]


@functools.cache
def _start_event_loop(libvirt: Any) -> None:
    """Run libvirt's events in the background, for keepalive: else a hung daemon is waited for, for ever."""
    libvirt.virEventRegisterDefaultImpl()

    def serve() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=serve, daemon=True).start()


def _translate(libvirt: Any, error: Any, kind: type[Error], message: str, uri: str) -> Error:
    code, words = error.get_error_code(), printable(error.get_error_message() or str(error), 500)
    denied = (
        libvirt.VIR_ERR_AUTH_FAILED,
        libvirt.VIR_ERR_AUTH_CANCELLED,
        libvirt.VIR_ERR_AUTH_UNAVAILABLE,
        libvirt.VIR_ERR_ACCESS_DENIED,
        libvirt.VIR_ERR_OPERATION_DENIED,
    )
    if code in denied or "Permission denied" in words:
        cure = "run as a user who may use this libvirt (on Debian and Fedora: a member of the group libvirt)"
        return AccessDenied(f"{uri} refused access", evidence=words, cure=cure)
    if code == libvirt.VIR_ERR_NO_DOMAIN:
        return TargetError(
            "the VM is gone", evidence=words, cure=f"see what there is: virsh -c {uri} list --all"
        )
    lost = (libvirt.VIR_ERR_NO_CONNECT, libvirt.VIR_ERR_RPC, libvirt.VIR_ERR_INVALID_CONN)
    if code in lost or "keepalive" in words:
        kind = ConnectionFailed
    cures: dict[type[Error], str] = {
        ConnectionFailed: f"see that libvirtd runs and the URI is right: virsh -c {uri} list",
        PowerError: "look at the VM's log, /var/log/libvirt/qemu/NAME.log on its host",
        ChangeRejected: "nothing was changed; the evidence says what libvirt misses",
    }
    return kind(message, evidence=words, cure=cures.get(kind, ""))
