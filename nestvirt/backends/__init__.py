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
    "vsphere": "nestvirt.backends.vsphere:VsphereBackend",
    "hyperv": "nestvirt.backends.hyperv:HyperVBackend",
    "vmx": "nestvirt.backends.workstation:VmxBackend",
    "host": "nestvirt.backends.host:HostBackend",
    "vagrant": "nestvirt.backends.vagrant:VagrantBackend",
}
"""Name to ``module:class``. One line adds a hypervisor."""

BELOW = ("with_host", "host_id", "host_ssh_config", "drain")
"""What an endpoint has of the host below a VM, beside the settings of the VM's own backend."""

AUTO = "auto"
"""The ``with_host`` that stands for the address that the VM's own backend tells."""


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
    if "with_host" not in endpoint:
        return backend_class(target.backend).connect(target, endpoint)
    from nestvirt.backends.host.with_vm import WithHost  # when used, as a backend is

    own = {name: value for name, value in endpoint.items() if name not in BELOW}
    return WithHost(backend_class(target.backend).connect(target, own), endpoint)
