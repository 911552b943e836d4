"""The conformance suite against Proxmox over HTTPS: with an API token, and with a password."""

from __future__ import annotations

import pytest

from nestvirt import engine
from nestvirt.journal import Journal
from nestvirt.model import Status
from tests.contract.conformance import MANNER, ON, Conformance
from tests.peers.proxmox_rig import PasswordRig, ProxmoxRig
from tests.peers.pve_server import Served


class TestProxmox(Conformance):
    """A token with the privileges that the guide names, and no others."""

    @pytest.fixture
    def rig(self, served: Served) -> ProxmoxRig:
        return ProxmoxRig(served)

    def test_found_by_vmid_and_by_what_records_write(self, rig: ProxmoxRig, journal: Journal) -> None:
        name = rig.make()
        by_number = self.session(rig, journal, str(rig.vm(name).vmid))
        assert by_number.vm.name == name
        assert self.session(rig, journal, by_number.vm.id).vm == by_number.vm

    def test_enabling_takes_few_requests(self, rig: ProxmoxRig, journal: Journal) -> None:
        name = rig.make()
        result = engine.reach(self.session(rig, journal, name), ON, MANNER)
        assert result.conclusion is Status.PASS
        traffic = rig.pve.traffic
        assert traffic.count("PUT", "/config") == 1
        assert traffic.count("GET", "/cluster/resources") == 1
        assert traffic.count("GET", "/nodes/{node}/status") == 1
        assert traffic.others <= 25, traffic.table()
        assert traffic.polls <= 25, traffic.table()


class TestProxmoxPassword(Conformance):
    """A user who logs in, and gets a ticket."""

    @pytest.fixture
    def rig(self, served: Served) -> ProxmoxRig:
        return PasswordRig(served)
