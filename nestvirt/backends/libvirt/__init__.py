"""KVM and QEMU through libvirt: reads and writes a domain's ``<cpu>``, and nothing else of it.

API: https://libvirt.org/html/libvirt-libvirt-domain.html
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any, Self
from urllib.parse import urlsplit

from nestvirt.backends.base import VM, Listed, Place
from nestvirt.backends.libvirt import cpu_xml, host, listing
from nestvirt.backends.libvirt.agent import AgentChannel
from nestvirt.backends.libvirt.connection import Connection
from nestvirt.backends.libvirt.domain import Platform, agent_state, virsh
from nestvirt.backends.libvirt.facts import CHECKS, DomainFacts
from nestvirt.errors import (
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

DESTROY_TIMEOUT = 60.0
"""Seconds for QEMU's end: libvirt asks it first, then kills it, 15 s later at most."""
_SEE_LOG = "look at the VM's log, /var/log/libvirt/qemu/NAME.log on its host"


class LibvirtBackend:
    """One libvirt connection; see Backend."""

    kind = VM

    def __init__(self, connection: Connection, endpoint: Mapping[str, str]) -> None:
        self._libvirt = connection.libvirt
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
                cure="in nestvirt's checkout: pip install '.[libvirt]'; it compiles, for which Debian needs: "
                "apt install libvirt-dev pkg-config gcc python3-dev",
            ) from error
        _refuse_unusable(endpoint["uri"])
        return cls(Connection(libvirt, endpoint["uri"]), endpoint)

    def find(self, name: str) -> Vm:
        """By name, UUID, or id of a running domain; see Backend."""
        with self._connection.translated(ConnectionFailed, "libvirt did not list its domains"):
            domains = self._connection.ask(
                lambda connection: [(d.name(), d.UUIDString(), d.ID()) for d in connection.listAllDomains()]
            )
        for matches in (
            [d for d in domains if d[0] == name],
            [d for d in domains if name.lower() == d[1]],
            [d for d in domains if name.isdecimal() and d[2] == int(name)],
        ):
            if matches:
                found, uuid, _ = matches[0]
                _refuse_ambiguous(name, uuid, domains)
                return Vm(uuid, found)
        known = ", ".join(sorted(d[0] for d in domains)[:20]) or "none that this user may see"
        raise TargetError(
            f"{self._connection.uri} has no VM {name!r}",
            evidence=f"it has: {printable(known)}",
            cure="name one of these; for another libvirt, give --connect URI",
        )

    def listed(self) -> Iterator[Listed]:
        """All domains; see Listing."""
        with self._connection.translated(ConnectionFailed, "libvirt did not list its domains"):
            domains = self._connection.ask(
                lambda c: list(listing.listed(self._libvirt, c, self._connection.uri, self._power))
            )
        yield from domains

    def host_of(self, vm: Vm) -> Place:
        """From the connection's URI; see Backend."""
        with self._connection.translated(ConnectionFailed, "libvirt did not tell its host's name"):
            name, uri = self._connection.ask(lambda c: (c.getHostname(), c.getURI()))
        return Place(name, host.login_of(uri), certain=True)

    def read(self, vm: Vm) -> DomainFacts:
        """Definition, live XML, capabilities, saved states; see Backend."""
        with self._connection.translated(ConnectionFailed, f"libvirt did not tell about {vm.name}"):
            return self._connection.ask(lambda connection: self._facts(connection, vm))

    def _facts(self, connection: Any, vm: Vm) -> DomainFacts:
        domain = connection.lookupByUUIDString(vm.id)
        power = self._power(domain)
        inactive = domain.XMLDesc(self._libvirt.VIR_DOMAIN_XML_INACTIVE) if domain.isPersistent() else None
        live = domain.XMLDesc(0) if power is not Power.STOPPED else None
        platform = Platform.parse(inactive or live or "<domain/>")
        return DomainFacts(
            uri=self._connection.uri,
            name=domain.name(),
            power=power,
            inactive=inactive,
            live=live,
            host=host.read_host(self._libvirt, connection, platform),
            managed_save=bool(domain.hasManagedSaveImage(0)),
            memory_snapshots=host.memory_snapshots(self._libvirt, domain),
            model_features=host.model_features(self._libvirt, connection, inactive),
            pm_suspended=domain.state()[0] == self._libvirt.VIR_DOMAIN_PMSUSPENDED,
        )

    def apply(self, vm: Vm, change: Change) -> None:
        """Write the ``<cpu>`` element; see Backend."""
        definition = self._definition(vm, f"libvirt did not tell about {vm.name}")
        present = cpu_xml.split(definition)[1]
        if present != change.before:
            raise ChangeRejected(
                f"the CPU of {vm.name} was changed by somebody else a moment ago",
                evidence=f"it was {change.before!r}, and is {present!r}",
                cure="run this again to plan anew",
            )
        wanted = cpu_xml.replaced(definition, change.after)
        refused = f"libvirt refused the new definition of {vm.name}"
        nothing = "nothing was changed; the evidence says what libvirt misses"
        with self._connection.translated(ChangeRejected, refused, nothing):
            self._connection.handle.defineXMLFlags(wanted, self._libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
        stored = self._definition(vm, f"the new definition of {vm.name} was written, and cannot be read back")
        if not cpu_xml.same_but_cpu(definition, stored):
            edit = virsh(self._connection.uri, "edit", vm.name)
            more = f"libvirt changed more of {vm.name} than its CPU"
            with self._connection.translated(Error, f"{more}, and refused its former definition", edit):
                self._connection.handle.defineXML(definition)
            raise ChangeRejected(
                more,
                evidence="the definition read back differs outside <cpu>; the former one was put back",
                cure=f"bring the definition into libvirt's own form first: {edit}",
            )

    def _definition(self, vm: Vm, failure: str) -> str:
        # Without SECURE a redefinition would lose passwords that the definition holds.
        flags = self._libvirt.VIR_DOMAIN_XML_INACTIVE | self._libvirt.VIR_DOMAIN_XML_SECURE
        look = virsh(self._connection.uri, "dumpxml", "--inactive", vm.name)
        with self._connection.translated(Error, failure, f"look at it: {look}"):
            return self._connection.ask(lambda c: str(c.lookupByUUIDString(vm.id).XMLDesc(flags)))

    def stop(self, vm: Vm, *, timeout: float) -> None:
        """Shut the guest down by its agent, or else by the ACPI power button; see Backend."""
        deadline = time.monotonic() + timeout
        pause, again = 2.0, False
        cure = "give it more --timeout, look at its console, or allow --force-off"
        with self._connection.translated(PowerError, f"libvirt could not shut {vm.name} down", cure):
            domain = self._domain(vm)
            # A guest that still boots hears neither, so it is asked again, at growing intervals.
            while time.monotonic() < deadline:
                with contextlib.suppress(self._libvirt.libvirtError):
                    if not self._agent_shuts_down(domain) or again:
                        self._press_button(domain, max(1.0, deadline - time.monotonic()))
                if self._is_off_by(domain, min(deadline, time.monotonic() + pause)):
                    return
                pause, again = min(pause * 1.5, 15.0), True
        raise PowerError(
            f"{vm.name} did not shut down within {timeout:.0f} s",
            evidence="it was asked by its agent or by the ACPI power button; it may yet shut down",
            cure=cure,
        )

    def _press_button(self, domain: Any, seconds: float) -> None:
        acpi = self._libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN
        self._connection.within(seconds, lambda: domain.shutdownFlags(acpi))

    def _is_off_by(self, domain: Any, moment: float) -> bool:
        while domain.isActive():
            if time.monotonic() >= moment:
                return False
            time.sleep(0.05)
        return True

    def power_off(self, vm: Vm) -> None:
        """Destroy the running domain, which cuts its power; see Backend."""
        message = f"libvirt could not cut the power of {vm.name}"
        with self._connection.translated(PowerError, message, _SEE_LOG):
            domain = self._domain(vm)
            if domain.isActive():
                self._connection.within(DESTROY_TIMEOUT, domain.destroy)

    def start(self, vm: Vm, *, timeout: float) -> None:
        """Start the domain; see Backend."""
        deadline = time.monotonic() + timeout
        with self._connection.translated(PowerError, f"{vm.name} did not start", _SEE_LOG):
            domain = self._domain(vm)
            try:
                self._connection.within(timeout, domain.create)
            except TimeoutError:
                self._connection.within(DESTROY_TIMEOUT, domain.destroy)  # else it might start at any time
                raise
            while self._power(domain) is not Power.RUNNING:
                if time.monotonic() > deadline:
                    raise PowerError(
                        f"{vm.name} was not running within {timeout:.0f} s",
                        evidence=f"libvirt's state number is {domain.state()[0]}",
                        cure=virsh(self._connection.uri, "domstate", "--reason", vm.name),
                    )
                time.sleep(0.05)

    def channel(self, vm: Vm) -> Channel | None:
        """The QEMU guest agent, where the running domain has its channel; see Backend."""
        with self._connection.translated(ConnectionFailed, f"libvirt did not tell about {vm.name}"):
            domain = self._domain(vm)
            if not domain.isActive() or agent_state(domain.XMLDesc(0)) is None:
                return None
        return AgentChannel(lambda command, timeout: self._to_agent(vm, command, timeout))

    def close(self) -> None:
        """Close the connection; a connection that is already lost is closed too."""
        self._connection.close()

    def _domain(self, vm: Vm) -> Any:
        return self._connection.ask(lambda connection: connection.lookupByUUIDString(vm.id))

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
            _agent_command(domain, '{"execute":"guest-ping"}', 2)
        except self._libvirt.libvirtError:
            return False
        try:
            _agent_command(domain, '{"execute":"guest-shutdown"}', 1)
        except self._libvirt.libvirtError as error:
            # An agent that obeys does not answer any more; one that answers with an error has refused.
            return bool(error.get_error_code() == self._libvirt.VIR_ERR_AGENT_UNRESPONSIVE)
        return True

    def _to_agent(self, vm: Vm, command: str, timeout: float) -> str:
        message = "the guest agent did not answer"
        try:
            return _agent_command(self._domain(vm), command, timeout)
        except ConnectionFailed as error:
            raise GuestUnreachable(
                message, evidence=f"{error.message}: {error.evidence}", cure=error.cure
            ) from error
        except self._libvirt.libvirtError as error:
            raise GuestUnreachable(
                message,
                evidence=printable(error.get_error_message() or "", 300),
                cure="see that qemu-guest-agent is installed and runs in the guest, or use --ssh USER@HOST",
            ) from error


def _agent_command(domain: Any, command: str, timeout: float) -> str:
    """Send one command; libvirt first synchronizes with the agent, for which it allows 5 s more."""
    import libvirt_qemu

    return str(libvirt_qemu.qemuAgentCommand(domain, command, max(1, round(timeout)), 0))


def _refuse_unusable(uri: str) -> None:
    try:
        password = urlsplit(uri).password
    except ValueError as error:
        raise SettingsError(
            "the libvirt URI is not one",
            evidence="its host cannot be read; brackets, for instance, hold an IPv6 address",
            cure="for example: qemu+ssh://root@node1/system",
        ) from error
    if password is not None:
        raise SettingsError(
            "a libvirt URI has no place for a password",
            evidence="the URI holds user:password@",
            cure="use SSH keys with qemu+ssh://, or libvirt's auth.conf",
        )


def _refuse_ambiguous(name: str, uuid: str, domains: list[tuple[str, str, int]]) -> None:
    """A number may be one domain's name and another one's id."""
    others = [d for d in domains if d[1] != uuid and name in (d[0], d[1], str(d[2]))]
    if others:
        listed = ", ".join(f"{d[0]} ({d[1]})" for d in domains if name in (d[0], d[1], str(d[2])))
        raise TargetError(f"{name!r} means more than one VM", evidence=listed, cure="give the UUID")
