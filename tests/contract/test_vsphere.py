"""The conformance suite against vSphere: a vCenter with a cluster, and a plain ESXi host."""

from __future__ import annotations

import pytest

from tests.contract.cold import ColdConformance
from tests.peers.vsphere import VSphere
from tests.peers.vsphere_rig import EsxiRig, VSphereRig


class TestVCenter(ColdConformance):
    """A user with the privileges that the guide names, and no others."""

    @pytest.fixture
    def rig(self, vcenter: VSphere) -> VSphereRig:
        return VSphereRig(vcenter)


class TestEsxi(ColdConformance):
    """The same without a vCenter, where there are no clusters, no DRS and no folders."""

    @pytest.fixture
    def rig(self, esxi: VSphere) -> VSphereRig:
        return EsxiRig(esxi)
