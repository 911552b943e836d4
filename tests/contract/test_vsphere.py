"""The conformance suite against vSphere: a vCenter with a cluster, and a plain ESXi host."""

from __future__ import annotations

import pytest

from nestvirt.engine import Session
from nestvirt.journal import Journal
from tests.contract.basis import Tell, quiet
from tests.contract.cold import ColdConformance
from tests.contract.rig import Rig
from tests.peers.vsphere import VSphere
from tests.peers.vsphere_rig import EsxiRig, VSphereRig


class VSphereConformance(ColdConformance):
    """A guest that has not heard of its shutdown in 5 seconds is deaf, also on a busy machine."""

    def session(
        self, rig: Rig, journal: Journal, name: str, tell: Tell = quiet, timeout: float = 0
    ) -> Session:
        return super().session(rig, journal, name, tell, min(timeout, 5))


class TestVCenter(VSphereConformance):
    """A user with the privileges that the guide names, and no others."""

    @pytest.fixture
    def rig(self, vcenter: VSphere) -> VSphereRig:
        return VSphereRig(vcenter)


class TestEsxi(VSphereConformance):
    """The same without a vCenter, where there are no clusters, no DRS and no folders."""

    @pytest.fixture
    def rig(self, esxi: VSphere) -> VSphereRig:
        return EsxiRig(esxi)
