"""The facts about one VM of Workstation or Fusion as data, for all that judges them."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from nestvirt.backends.workstation.dialect import Document
from nestvirt.backends.workstation.host import Host
from nestvirt.backends.workstation.locks import Holder, Life
from nestvirt.model import Change, Power

SETTING = "vhv.enable"
"""The one setting: "Virtualize Intel VT-x/EPT or AMD-V/RVI" in Workstation's window."""

# What VMware itself writes is TRUE and FALSE; the others are in files that people wrote.
_ON, _OFF = ("true", "t", "yes", "y", "on", "1"), ("false", "f", "no", "n", "off", "0", "")


def shows(value: str | None) -> bool | None:
    """Whether a value of the setting gives the guest vmx or svm; None where it is neither yes nor no."""
    word = (value or "").strip().lower()
    if word in _ON:
        return True
    return False if word in _OFF else None


@dataclass(frozen=True)
class Control:
    """``vmrun``, as far as facts need it.

    Attributes:
        command: the words that begin each command of it.
        listed: whether it lists the VM among those that run.
        address: the guest's, where VMware Tools tell it; empty where not.
    """

    command: tuple[str, ...]
    listed: bool
    address: str = ""

    def line(self, *words: str) -> str:
        """A command, to be copied into a shell."""
        return shlex.join((*self.command, *words))


@dataclass(frozen=True)
class Situation:
    """One VM as its files tell it, and vmrun.

    Attributes:
        path: of the .vmx file.
        holders: of its locks.
        control: None where there is no vmrun.
        saved_state: the file that holds its memory while it is suspended; empty where it is not.
        memory_snapshots: the names of snapshots that hold its memory.
        unwritable: why this user cannot replace the file; empty where nothing is in the way.
        logged: whether vmware.log tells what the VM was powered on with.
        powered_on_with: the setting's value then; None where it was not set.
        host: None where this is no Linux machine.
    """

    path: str
    document: Document
    holders: tuple[Holder, ...]
    control: Control | None
    saved_state: str
    memory_snapshots: tuple[str, ...]
    unwritable: str
    logged: bool
    powered_on_with: str | None
    host: Host | None

    busy = ""  # see Facts: what stands against stopping it is a finding
    waiting = ""  # and nothing else is shut down for it

    @property
    def power(self) -> Power:
        """See Facts."""
        if self.listed or any(holder.runs_vm for holder in self.holders):
            return Power.RUNNING
        return Power.SUSPENDED if self.saved_state else Power.STOPPED

    @property
    def listed(self) -> bool:
        """Whether vmrun lists it, and so can stop it."""
        return self.control is not None and self.control.listed

    def has(self, change: Change) -> bool:
        """See Facts. It is off for each change, so that it always comes up with it."""
        return False

    def value(self, setting: str) -> str | None:
        """The lines that define a setting; see Facts."""
        return self.document.text_of(setting)

    @property
    def nested(self) -> bool | None:
        """What the file says of nesting; None where its word is neither yes nor no."""
        return shows(self.document.get(SETTING))

    @property
    def live(self) -> bool | None:
        """What the running VM was powered on with; None where that is not known."""
        return shows(self.powered_on_with) if self.logged and self.power is Power.RUNNING else None

    @property
    def others(self) -> tuple[Holder, ...]:
        """Those who hold it, and are no running VM."""
        return tuple(h for h in self.holders if not h.runs_vm and h.life is not Life.DEAD)

    @property
    def left_behind(self) -> tuple[Holder, ...]:
        """Those who are gone, and did not take their lock along."""
        return tuple(h for h in self.holders if h.life is Life.DEAD)
