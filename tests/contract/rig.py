"""What the conformance suite needs of a peer: VMs in every state, and an oracle that is not ours."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Seen:
    """What the oracle sees of a VM, by the peer's own means.

    Attributes:
        stored: its whole stored configuration, exactly.
        others: the same less the one setting that nestvirt may change.
        nested: whether the stored configuration shows the guest nesting.
        running: whether it runs.
        boot: what differs after every power-on, so that a power cycle can be seen.
    """

    stored: str
    others: str
    nested: bool
    running: bool
    boot: str


class Rig(Protocol):
    """One peer under test."""

    backend: str
    secret: str
    """A password that each VM's configuration holds, and nobody may show."""

    @property
    def endpoint(self) -> Mapping[str, str]:
        """What connects to the peer."""

    @property
    def dead_endpoint(self) -> Mapping[str, str]:
        """What connects to nothing."""

    def forbidden(self) -> AbstractContextManager[Mapping[str, str]]:
        """What the peer refuses this user, as long as the context lasts."""

    def make(self, *, nested: bool = False, running: bool = True, quirk: str = "") -> str:
        """Make a VM; return its name. Quirks: deaf (ignores a shutdown), fragile (no start with nesting)."""

    def make_ambiguous(self) -> str:
        """Make VMs such that the returned name means more than one."""

    def see(self, name: str) -> Seen:
        """Ask the oracle."""

    def suspend(self, name: str) -> None:
        """Suspend a running VM."""

    def edit(self, name: str, *, nested: bool | None) -> None:
        """Change the setting behind nestvirt's back, without a restart; None: to some third value."""

    def reboot_inside(self, name: str) -> None:
        """Reboot from within the guest, which is no power cycle; return when the guest is up again."""
