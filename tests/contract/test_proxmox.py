"""The conformance suite against Proxmox over HTTPS: with an API token, and with a password."""

from __future__ import annotations

import pytest

from nestvirt.journal import Journal
from tests.contract.conformance import Conformance
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


class TestProxmoxPassword(Conformance):
    """A user who logs in, and gets a ticket."""

    @pytest.fixture
    def rig(self, served: Served) -> ProxmoxRig:
        return PasswordRig(served)
