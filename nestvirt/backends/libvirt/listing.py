"""All domains of a connection: each one's XML, and what its host offers, asked once for each platform."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

from nestvirt.backends.base import Listed, nesting_of
from nestvirt.backends.libvirt import cpu_xml, host
from nestvirt.backends.libvirt.cpu_checks import vm_cpu, vm_cpu_pending
from nestvirt.backends.libvirt.domain import Domain, Platform
from nestvirt.model import Finding, Goal, Power, Vm

_TRANSIENT = "transient: it has no definition that outlives its power-off"


def listed(libvirt: Any, connection: Any, uri: str, power_of: Callable[[Any], Power]) -> Iterator[Listed]:
    """Every domain that this user may see."""

    @cache
    def host_of(platform: Platform) -> Any:
        return host.read_host(libvirt, connection, platform)

    expanded: dict[tuple[Platform, str | None], frozenset[str] | None] = {}
    for domain in connection.listAllDomains():
        try:
            power = power_of(domain)
            persistent = bool(domain.isPersistent())
            inactive = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE) if persistent else None
            live = domain.XMLDesc(0) if power is not Power.STOPPED else None
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                continue  # it was removed meanwhile
            raise
        definition = inactive or live or "<domain/>"
        platform = Platform.parse(definition)
        cpu = (platform, cpu_xml.split(definition)[1])
        if cpu not in expanded:
            expanded[cpu] = host.model_features(libvirt, connection, inactive)
        facts = Domain(
            uri=uri,
            name=domain.name(),
            power=power,
            inactive=inactive,
            live=live,
            host=host_of(platform),
            managed_save=False,
            memory_snapshots=(),
            model_features=expanded[cpu],
        )
        vm = Vm(domain.UUIDString(), domain.name())
        note = "" if persistent else _TRANSIENT
        yield Listed(vm, vm.name, power, nesting_of(partial(_of_cpu, facts)), {"uuid": (vm.id,)}, note)


def _of_cpu(facts: Domain, goal: Goal) -> list[Finding]:
    return [*vm_cpu(facts, goal), *vm_cpu_pending(facts, goal)]
