"""The hypervisors, by name. A backend's module, and its vendor's library, is imported when it is used."""

from collections.abc import Mapping
from importlib import import_module
from typing import cast

from nestvirt.backends.base import Backend
from nestvirt.errors import TargetError
from nestvirt.model import Target

BACKENDS: dict[str, str] = {
    "libvirt": "nestvirt.backends.libvirt:LibvirtBackend",
    "proxmox": "nestvirt.backends.proxmox:ProxmoxBackend",
    "host": "nestvirt.backends.host:HostBackend",
    "vagrant": "nestvirt.backends.vagrant:VagrantBackend",
}
"""Name to ``module:class``. One line adds a hypervisor."""


def backend_class(name: str) -> type[Backend]:
    """Import the backend of that name.

    Raises:
        TargetError: there is no such backend.
    """
    if name not in BACKENDS:
        raise TargetError(
            f"there is no backend {name!r}",
            evidence=f"backends: {', '.join(sorted(BACKENDS))}",
            cure="write the target as backend:name, for example libvirt:web-01",
        )
    module, _, attribute = BACKENDS[name].partition(":")
    return cast("type[Backend]", getattr(import_module(module), attribute))


def connect(target: Target, endpoint: Mapping[str, str]) -> Backend:
    """Open a connection to the target's hypervisor; see ``Backend.connect`` for what it raises.

    Where the endpoint has ``with_host``, the VM's host is changed along with it.
    """
    backend = backend_class(target.backend).connect(target, endpoint)
    if "with_host" not in endpoint:
        return backend
    from nestvirt.backends.host.with_vm import WithHost  # when used, as a backend is

    return WithHost(backend, endpoint)
