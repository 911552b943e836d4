"""What the fleet file's [targets] say of single VMs. Pure.

An entry counts for its VM however the run has come to it: a pattern finds "proxmox@lab:100", and the entry is
called "proxmox@lab:worker-1". One that counts for none is a slip of the pen: its VM would be worked on as
another user, or with another node.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from nestvirt.errors import Error, SettingsError, TargetError
from nestvirt.fleet.endpoints import Place
from nestvirt.fleet.patterns import Pattern
from nestvirt.model import Target, Vm
from nestvirt.printable import printable

NEAR = 3
"""So many names are told beside one that is wrong."""

VmAt = tuple[Place | None, str]
"""A VM's identity: its endpoint, and its id there."""


@dataclass
class Entry:
    """One table.

    Attributes:
        what: the VM, or the VMs, that it names.
        told: their ``ssh``, ``ssh_config`` and ``node``.
        asked: whether the run names the same; then a row says what is wrong with that name.
        vms: those that it was seen to mean.
        error: why they are not known; None, too, where its hypervisor is not of this run.
    """

    what: Target | Pattern
    told: Mapping[str, str]
    asked: bool = False
    vms: Collection[VmAt] = frozenset()
    error: Error | None = None

    @property
    def keys(self) -> set[object]:
        """What it counts for: a name as it is written, and VMs."""
        return {str(self.what), *self.vms}


@dataclass
class Told:
    """What all entries say, found by whom it is of: with a table for each of ten thousand VMs, too."""

    entries: Sequence[Entry] = ()

    def __post_init__(self) -> None:
        self._at: dict[object, list[int]] = {}
        for number, entry in enumerate(self.entries):
            for key in entry.keys:
                self._at.setdefault(key, []).append(number)

    def of(self, names: Collection[str], vm: VmAt | None) -> dict[str, str]:
        """Of a member; of two that say the same, the later one counts."""
        told: dict[str, str] = {}
        for number in sorted({number for key in (*names, vm) for number in self._at.get(key, ())}):
            told |= self.entries[number].told
        return told


def refuse_idle(
    entries: Iterable[Entry], members: Mapping[str, tuple[Place, Vm | None] | None], groups: Collection[str]
) -> None:
    """Find an entry that counts for nothing.

    Args:
        entries: all of the file's.
        members: what those of the run are called, to where they are, and which VM it is, as far as known.
        groups: all that the file's groups name, where only some of them are meant; else nothing. What counts
            for nothing here may be another group's then: it is named there, or is a VM.

    Raises:
        SettingsError: there is one.
    """
    vms = {(place, vm.id) for place, vm in filter(None, members.values()) if vm is not None}
    for entry in entries:
        if entry.asked or str(entry.what) in groups:
            continue
        if entry.error is not None:  # but for a TargetError, nobody knows what there is
            idle = isinstance(entry.error, TargetError)
        else:
            idle = not groups and vms.isdisjoint(entry.vms)
        if idle:
            raise _idle(entry, members)


def _idle(entry: Entry, members: Mapping[str, tuple[Place, Vm | None] | None]) -> SettingsError:
    known = [f"{place}:{vm.name}" for place, vm in filter(None, members.values()) if vm is not None]
    names: Sequence[str] = list(dict.fromkeys([*members, *known]))
    near = get_close_matches(str(entry.what), names, NEAR, 0.5) or [
        *names[:NEAR],
        *["…"] * (len(names) > NEAR),
    ]
    seen = f"{entry.error.message}: {entry.error.evidence}; " if entry.error is not None else ""
    return SettingsError(
        f'[targets."{printable(str(entry.what), 200)}"] of the fleet file is no target of this run',
        evidence=printable(f"{seen}the run has {', '.join(near)}", 900),
        cure="correct its name, put it in a group, or take it out; nestvirt list shows all VMs",
    )
