"""The conformance suite against Hyper-V: real WinRM, and behind it a host that keeps Hyper-V's rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from nestvirt import backends, engine
from nestvirt.engine import Session
from nestvirt.errors import ChangeRejected
from nestvirt.journal import Journal
from nestvirt.model import Target
from tests.contract.basis import ON, Tell, quiet
from tests.contract.cold import ColdConformance
from tests.contract.rig import Rig
from tests.peers.hyperv import Host
from tests.peers.hyperv_guest import LinuxGuest
from tests.peers.hyperv_rig import HyperVLab, HyperVRig
from tests.peers.winrm.pki import Certificates


class HyperVConformance(ColdConformance):
    """A guest that has not heard of its shutdown in 4 seconds is deaf; Linux guests are reached by SSH."""

    kind: type[HyperVRig] = HyperVRig

    def prepare(self, host: Host) -> None:
        """What host it is."""

    @pytest.fixture
    def rig(self, certificates: Certificates) -> Iterator[HyperVRig]:
        with HyperVLab(certificates) as lab:
            self.prepare(lab.host)
            yield self.kind(lab)
            assert lab.wrongs() == []

    def session(
        self, rig: Rig, journal: Journal, name: str, tell: Tell = quiet, timeout: float = 0
    ) -> Session:
        target = Target(rig.backend, name)
        backend = backends.connect(target, rig.endpoint)
        vm = backend.find(name)
        ssh = LinuxGuest(cast("HyperVRig", rig), name)
        spelling, timeout = f"--hyperv {name}", min(timeout, 4) or 30
        return Session(backend, target, vm, journal, spelling, ssh=ssh, timeout=timeout, tell=tell)

    def test_set_but_not_power_cycled_is_told_apart_even_after_a_reboot_inside(
        self, rig: Rig, journal: Journal
    ) -> None:
        """Hyper-V has no such state: it refuses the change while the VM runs, and so do we."""
        name = rig.make()
        before = rig.see(name)
        session = self.session(rig, journal, name)
        [change] = engine.reach(session, ON, engine.Manner(consent=lambda _plan: None, dry_run=True)).changes
        with pytest.raises(ChangeRejected) as caught:
            session.backend.apply(session.vm, change)
        assert "only while the VM is off" in caught.value.cure
        rig.reboot_inside(name)
        assert rig.see(name) == before


class TestIntel(HyperVConformance):
    """Windows Server 2016 on a CPU of Intel's, with the versions of its time."""

    def prepare(self, host: Host) -> None:
        host.vendor, host.build, host.version = "GenuineIntel", 14393, "8.0"


class TestAmd(HyperVConformance):
    """Windows Server 2022 on a CPU of AMD's."""


class ClusteredRig(HyperVRig):
    """Every VM is a role of a cluster's."""

    def make(self, *, nested: bool = False, running: bool = True, quirk: str = "", **switches: Any) -> str:
        return super().make(nested=nested, running=running, quirk=quirk, group="Offline", **switches)


class TestCluster(HyperVConformance):
    """A cluster, which starts a VM again that goes off behind its back."""

    kind = ClusteredRig

    def prepare(self, host: Host) -> None:
        host.cluster, host.restarts = "HVC", 0.5
