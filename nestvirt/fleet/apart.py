"""Two VMs are two guests, and two nodes: what leads to one proves nothing of the other. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nestvirt.errors import SettingsError
from nestvirt.fleet.endpoints import address_of
from nestvirt.fleet.selection import Member
from nestvirt.printable import printable


def refuse_one_guest(members: Iterable[Member]) -> None:
    """Find two VMs to which the fleet file gives one way in, or one node.

    Raises:
        SettingsError: there are such.
    """
    seen: dict[tuple[str, ...], Member] = {}
    for member in members:
        given = [("ssh", member.ssh, member.ssh_config), ("node", member.node, None)]
        for key, value, beside in given:
            if value is None:
                continue
            other = seen.setdefault((key, value, beside or ""), member)
            if _vm(other) != _vm(member):
                raise _shared(f"{key} {value!r}", other.written, member.written)


def refuse_one_node(names: Mapping[str, str]) -> None:
    """The same, of what each is called as a node, by its VM's name, too.

    Args:
        names: target to node.

    Raises:
        SettingsError: there are two.
    """
    seen: dict[str, str] = {}
    for target, node in names.items():
        other = seen.setdefault(node, target)
        if other != target:
            raise _shared(f"node {node!r}", other, target)


def _vm(member: Member) -> tuple[str, ...]:
    """Which VM it is, as far as that is known: two profiles may lead to one hypervisor."""
    if member.target is None or member.vm is None or member.endpoint is None:
        return (member.written,)
    backend = member.target.backend
    place = address_of(backend, member.endpoint.settings) or str(member.endpoint.place)
    return (backend, place, member.vm.id)


def _shared(what: str, one: str, other: str) -> SettingsError:
    return SettingsError(
        f"two VMs have the same {printable(what, 200)}",
        evidence=f"{printable(one, 200)} and {printable(other, 200)}; nothing was touched",
        cure="give each its own in the fleet file; {name} in it stands for the VM's name",
    )
