"""VMs of a cluster: they move, and their numbers and names are each other's."""

from __future__ import annotations

import pytest

from nestvirt import engine
from nestvirt.engine import Step
from nestvirt.errors import TargetError
from nestvirt.journal import Journal
from nestvirt.model import Status
from tests.contract.conformance import MANNER, ON
from tests.contract.runs import enable, session
from tests.peers.proxmox_rig import ProxmoxRig


@pytest.mark.parametrize("moment", [Step.STOP, Step.APPLY, Step.READ_BACK, Step.START, Step.WAIT], ids=str)
def test_vm_that_moves_under_way_is_found_where_it_is(
    rig: ProxmoxRig, journal: Journal, moment: Step
) -> None:
    """As HA does it, which may start a VM on another node than it has stopped it on."""
    rig.pve.add_host("pve2")
    name = rig.make()

    def move(step: Step, _detail: str) -> None:
        if step is moment:
            rig.vm(name).node = "pve2"

    result = engine.reach(session(rig, journal, name, tell=move), ON, MANNER)
    assert result.conclusion is Status.PASS
    assert rig.see(name).nested


def test_vm_that_is_deleted_under_way_is_told_so(rig: ProxmoxRig, journal: Journal) -> None:
    name = rig.make()

    now = session(rig, journal, name)
    rig.pve.vms.remove(rig.vm(name))
    with pytest.raises(TargetError) as caught:
        now.backend.read(now.vm)
    assert "shows no VM" in caught.value.message


def test_name_that_is_another_ones_number_is_refused_and_the_records_id_is_not(
    rig: ProxmoxRig, journal: Journal
) -> None:
    name = rig.make()
    run = enable(rig, journal, name).run
    vmid = str(rig.vm(name).vmid)
    rig.pve.add(vmid)
    with pytest.raises(TargetError, match="more than one"):
        session(rig, journal, vmid)
    recorded = journal.find(run)
    again = session(rig, journal, recorded.vm.id)
    assert again.vm == recorded.vm
    assert engine.undo(again, recorded, MANNER).conclusion is Status.PASS
