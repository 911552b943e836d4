"""Two VMs are two guests, and two nodes: what leads to one proves nothing of the other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping

from nestvirt.errors import Error, SettingsError
from nestvirt.fleet.selection import Member
from nestvirt.journal import identity
from nestvirt.printable import printable


def refuse_one_guest(members: Iterable[Member]) -> None:
    """Find two VMs to which the fleet file gives one way in, or one node.

    Raises:
        SettingsError: there are such.
    """
    given = (
        (key, value, beside, member)
        for member in members
        for key, value, beside in (("ssh", member.ssh, member.ssh_config), ("node", member.node, None))
    )
    _refuse_shared((f"{key} {value!r}", beside, member) for key, value, beside, member in given if value)


def refuse_one_node(members: Iterable[Member], names: Mapping[str, str]) -> None:
    """The same, of what each is called as a node, by its VM's name, too.

    Args:
        members: those whose node may be away.
        names: target to node.

    Raises:
        SettingsError: there are two.
    """
    _refuse_shared((f"node {names[member.written]!r}", None, member) for member in members)


def _refuse_shared(given: Iterable[tuple[str, str | None, Member]]) -> None:
    """Args: given: what a member has, and in what that counts."""
    seen: dict[tuple[str, str | None], Member] = {}
    for what, within, member in given:
        other = seen.setdefault((what, within), member)
        if other is not member and _are_two(other, member):
            raise SettingsError(
                f"two VMs have the same {printable(what, 200)}",
                evidence=f"{printable(other.written, 200)} and {printable(member.written, 200)}; "
                "nothing was touched",
                cure="give each its own in the fleet file; {name} in it stands for the VM's name",
            )


def _are_two(one: Member, other: Member) -> bool:
    """Two profiles, or addresses, may lead to one hypervisor: that shows when the VMs have been found."""
    places = {member.endpoint.place if member.endpoint is not None else None for member in (one, other)}
    first, second = (_identity(member, look=len(places) > 1) for member in (one, other))
    if first is None or second is None:
        return len(places) == 1  # else one is not to be found: its row says so, and nothing is done to it
    return first != second


def _identity(member: Member, *, look: bool) -> str | None:
    """Which VM it is; None where that is not known."""
    target, endpoint, vm = member.target, member.endpoint, member.vm
    if target is None or endpoint is None:
        return None
    if vm is None and look:
        with contextlib.suppress(Error):
            vm = endpoint.connected().find(target.name)
    return identity(target.backend, vm) if vm is not None else None
