"""What only Proxmox has: its digest, locks, pending changes, tasks, HA and privileges. A test a trap."""

from __future__ import annotations

import re

import pytest

from nestvirt import engine
from nestvirt.backends.proxmox import https
from nestvirt.engine import Manner, Step
from nestvirt.errors import ChangeRejected, Error, PowerError, TargetError
from nestvirt.journal import Journal
from nestvirt.model import Change, Status
from tests.contract.basis import MANNER, OFF, ON, agree
from tests.contract.runs import check, enable, found, session
from tests.peers.proxmox_rig import ENOUGH, ProxmoxRig
from tests.peers.pve_server import Served

NO_RESTART = Manner(consent=agree, restart=False)


def blocks(rig: ProxmoxRig, journal: Journal, name: str, check_id: str) -> str:
    """Enabling is refused by that check, and nothing is written; returns the cure."""
    before = rig.see(name)
    rig.pve.traffic.clear()
    result = enable(rig, journal, name)
    assert [f.check for f in result.blockers] == [check_id]
    assert result.conclusion is Status.FAIL
    assert rig.see(name) == before
    assert not [kind for kind in rig.pve.traffic.counts if kind[0] != "GET" and "agent" not in kind[1]]
    return result.blockers[0].cure


# --- the digest, and the lock of the configuration


def test_edit_of_another_option_meanwhile_is_read_again_and_kept(rig: ProxmoxRig, journal: Journal) -> None:
    name = rig.make()

    def meddle(step: Step, _detail: str) -> None:
        if step is Step.APPLY:
            rig.vm(name).change({"memory": "1024"})

    result = engine.reach(session(rig, journal, name, tell=meddle), ON, MANNER)
    assert result.conclusion is Status.PASS
    assert rig.vm(name).config["memory"] == "1024"
    assert [("digest" in write, write.get("cpu")) for write in rig.pve.traffic.writes] == [(True, "host")] * 2


@pytest.mark.parametrize("to", ["kvm64", "host"])
def test_edit_of_the_cpu_meanwhile_is_refused(rig: ProxmoxRig, journal: Journal, to: str) -> None:
    name = rig.make()

    def meddle(step: Step, _detail: str) -> None:
        if step is Step.APPLY:
            rig.vm(name).change({"cpu": to})

    with pytest.raises(ChangeRejected):
        engine.reach(session(rig, journal, name, tell=meddle), ON, MANNER)
    assert rig.vm(name).config["cpu"] == to
    assert rig.see(name).running


def test_lock_that_a_clean_up_holds_is_waited_for(rig: ProxmoxRig, journal: Journal) -> None:
    name = rig.make()
    rig.vm(name).lock_timeouts = 2
    assert enable(rig, journal, name).conclusion is Status.PASS
    assert rig.pve.traffic.count("PUT", "/config") == 3


def test_write_whose_answer_is_lost_is_not_sent_again_blindly(rig: ProxmoxRig, journal: Journal) -> None:
    name = rig.make()
    rig.pve.lose.append(("PUT", "/config", True))
    assert enable(rig, journal, name).conclusion is Status.PASS
    assert rig.pve.traffic.count("PUT", "/config") == 1


def test_write_that_is_answered_too_late_is_not_sent_again_blindly(
    rig: ProxmoxRig, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(https, "TIMEOUT", (5.0, 0.5))
    name = rig.make()
    rig.pve.lose.append(("PUT", "/config", True))
    rig.pve.stall = 1.0
    assert enable(rig, journal, name).conclusion is Status.PASS
    assert rig.pve.traffic.count("PUT", "/config") == 1


def test_write_that_was_lost_is_sent_again(rig: ProxmoxRig, journal: Journal) -> None:
    name = rig.make()
    rig.pve.lose.append(("PUT", "/config", False))
    assert enable(rig, journal, name).conclusion is Status.PASS
    assert rig.pve.traffic.count("PUT", "/config") == 2


# --- states in which nothing is written


def test_locked_vm(rig: ProxmoxRig, journal: Journal) -> None:
    name = rig.make()
    rig.vm(name).set_lock("backup")
    assert "qm unlock" in blocks(rig, journal, name, "vm-lock")


def test_template(rig: ProxmoxRig, journal: Journal) -> None:
    assert "qm clone" in blocks(rig, journal, rig.make(running=False, template=1), "vm-template")


def test_hibernated_vm(rig: ProxmoxRig, journal: Journal) -> None:
    """It would come back with the CPU that it was saved with."""
    name = rig.make()
    rig.vm(name).hibernate()
    assert blocks(rig, journal, name, "vm-suspended")


def test_paused_vm(rig: ProxmoxRig, journal: Journal) -> None:
    name = rig.make()
    rig.vm(name).pause()
    assert "qm resume" in blocks(rig, journal, name, "vm-suspended")


def test_lock_that_comes_between_reading_and_writing(rig: ProxmoxRig, journal: Journal) -> None:
    name = rig.make(running=False)

    def meddle(step: Step, _detail: str) -> None:
        if step is Step.APPLY:
            rig.vm(name).set_lock("backup")

    with pytest.raises(ChangeRejected) as caught:
        engine.reach(session(rig, journal, name, tell=meddle), ON, MANNER)
    assert "VM is locked (backup)" in caught.value.evidence
    assert rig.vm(name).config["cpu"] == "x86-64-v2-AES"


# --- pending changes


def test_undo_of_a_pending_change_reverts_it_and_leaves_no_trace(rig: ProxmoxRig, journal: Journal) -> None:
    name = rig.make()
    before = rig.see(name)
    run = engine.reach(session(rig, journal, name), ON, NO_RESTART).run
    assert rig.vm(name).pending == {"cpu": "host"}
    engine.undo(session(rig, journal, name), journal.find(run), MANNER)
    assert rig.see(name) == before
    assert rig.vm(name).pending == {}
    assert "revert" in rig.pve.traffic.writes[-1]


@pytest.mark.parametrize("manner", [MANNER, NO_RESTART], ids=["restarted", "pending"])
def test_undo_of_what_was_not_set_deletes_it(rig: ProxmoxRig, journal: Journal, manner: Manner) -> None:
    name = rig.make(cpu=None)
    before = rig.see(name)
    run = engine.reach(session(rig, journal, name), ON, manner).run
    assert rig.see(name).nested
    engine.undo(session(rig, journal, name), journal.find(run), MANNER)
    assert rig.see(name).stored == before.stored
    assert "cpu" not in rig.vm(name).config


def test_pending_change_is_told_apart_from_a_live_one(rig: ProxmoxRig, journal: Journal) -> None:
    name = rig.make()
    rig.edit(name, nested=True)
    result = check(rig, journal, name)
    assert result.first_broken is not None
    assert result.first_broken.check == "vm-cpu-pending"
    assert "x86-64-v2-AES" in result.first_broken.evidence


def test_pending_delete_of_the_cpu_counts_as_no_cpu(rig: ProxmoxRig, journal: Journal) -> None:
    name = rig.make(nested=True)
    rig.vm(name).change({}, deletes=["cpu"])
    result = check(rig, journal, name, OFF)
    assert result.first_broken is not None
    assert result.first_broken.check == "vm-cpu-pending"


def test_what_else_is_pending_is_named_before_it_is_applied(rig: ProxmoxRig, journal: Journal) -> None:
    name = rig.make()
    rig.vm(name).change({"memory": "4096"})
    assert "memory" in found(check(rig, journal, name), "vm-pending-others").evidence


# --- power


def test_start_is_done_only_when_there_is_a_new_process(rig: ProxmoxRig, journal: Journal) -> None:
    name = rig.make()
    pid = rig.vm(name).pid
    rig.pve.task_polls = 2
    assert enable(rig, journal, name).conclusion is Status.PASS
    assert rig.vm(name).pid not in (None, pid)


def test_vm_that_runs_on_in_its_old_process_has_not_been_started(rig: ProxmoxRig, journal: Journal) -> None:
    now = session(rig, journal, rig.make())
    now.backend.read(now.vm)
    with pytest.raises(PowerError) as caught:
        now.backend.start(now.vm, timeout=5)
    assert "already running" in caught.value.evidence


def test_failed_start_shows_qemus_words_and_is_put_back(rig: ProxmoxRig, journal: Journal) -> None:
    """A vendor's type is enforced: where the module has nested=0, QEMU does not start with it."""
    name = rig.make(running=False, cpu="EPYC,flags=+nested-virt")
    vm = rig.vm(name)
    rig.pve.hosts["pve1"].nested = False
    backend = session(rig, journal, name).backend
    with pytest.raises(PowerError) as caught:
        backend.start(session(rig, journal, name).vm, timeout=10)
    assert "QEMU exited with code 1" in caught.value.evidence
    assert "svm" in caught.value.evidence
    assert vm.status == "stopped"


def test_warnings_of_the_start_are_shown(rig: ProxmoxRig, journal: Journal) -> None:
    """On a node without vmx and svm, nested-virt is ignored with a warning in the task's log alone."""
    name = rig.make(running=False, cpu="EPYC,flags=+nested-virt")
    rig.pve.hosts["pve1"].virt = False
    now = session(rig, journal, name)
    now.backend.start(now.vm, timeout=10)
    finding = found(engine.check(now, ON), "vm-start-warnings")
    assert finding.status is Status.WARN
    assert "nested-virt" in finding.evidence


def test_guest_that_ignores_the_shutdown_keeps_its_pending_cpu_out(rig: ProxmoxRig, journal: Journal) -> None:
    name = rig.make(quirk="deaf")
    before = rig.see(name)
    with pytest.raises(PowerError) as caught:
        engine.reach(session(rig, journal, name, timeout=5), ON, MANNER)
    assert "got timeout" in caught.value.evidence
    assert rig.see(name) == before


def test_ha_vm_goes_off_and_on_through_the_manager(rig: ProxmoxRig, journal: Journal) -> None:
    """Its tasks are done once the manager has been asked; the VM follows later."""
    name = rig.make()
    vm = rig.vm(name)
    vm.ha_state, vm.ha_polls = "started", 3
    pid = vm.pid
    result = enable(rig, journal, name)
    assert result.conclusion is Status.PASS
    assert found(result, "vm-ha").status is Status.WARN
    assert vm.pid not in (None, pid)
    assert {t["type"] for t in rig.pve.tasklog} == {"hastop", "hastart"}


def test_ha_vm_in_error_blocks(rig: ProxmoxRig, journal: Journal) -> None:
    name = rig.make()
    rig.vm(name).ha_state = "error"
    assert "ha-manager" in blocks(rig, journal, name, "vm-ha")


# --- privileges


@pytest.mark.parametrize(
    ("missing", "check_id"),
    [("VM.Config.CPU", "vm-permission"), ("VM.PowerMgmt", "vm-power-permission")],
)
def test_missing_privilege_is_named_with_its_command(
    served: Served, journal: Journal, missing: str, check_id: str
) -> None:
    rig = ProxmoxRig(served, tuple(p for p in ENOUGH if p != missing))
    name = rig.make()
    cure = blocks(rig, journal, name, check_id)
    assert "pveum" in cure
    assert missing in cure
    assert f"/vms/{rig.vm(name).vmid}" in cure


def test_power_privilege_is_not_asked_of_who_restarts_nothing(served: Served, journal: Journal) -> None:
    rig = ProxmoxRig(served, tuple(p for p in ENOUGH if p != "VM.PowerMgmt"))
    name = rig.make(running=False)
    assert enable(rig, journal, name).run is not None
    assert rig.see(name).nested


def test_empty_list_is_no_permission_or_no_vm(served: Served, journal: Journal) -> None:
    rig = ProxmoxRig(served, ("Sys.Audit",))
    rig.make()
    with pytest.raises(TargetError) as caught:
        session(rig, journal, "web-01")
    assert "no permission" in f"{caught.value.message} {caught.value.evidence}"
    assert "VM.Audit" in caught.value.cure


def test_right_withdrawn_midway_is_put_back_as_far_as_it_may(rig: ProxmoxRig, journal: Journal) -> None:
    name = rig.make()

    def meddle(step: Step, _detail: str) -> None:
        if step is Step.APPLY:
            rig.pve.acl.clear()
            rig.pve.grant("ops@pve!nestvirt", "/", "VM.Audit", "VM.PowerMgmt", "Sys.Audit")

    with pytest.raises(Error) as caught:
        engine.reach(session(rig, journal, name, tell=meddle), ON, MANNER)
    assert "VM.Config.CPU" in f"{caught.value.message} {caught.value.evidence} {caught.value.cure}"
    assert rig.see(name).running


# --- where a VM is


@pytest.mark.parametrize("listed", ["pve1", ""], ids=["elsewhere", "not yet"])
def test_vm_is_found_where_it_is_and_not_where_the_list_has_it(
    rig: ProxmoxRig, journal: Journal, listed: str
) -> None:
    rig.pve.add_host("pve2")
    vm = rig.pve.add("moved", vmid=400, node="pve2", running=True, cpu="x86-64-v2-AES")
    vm.listed = listed
    assert enable(rig, journal, "400").conclusion is Status.PASS
    assert vm.config["cpu"] == "host"


def test_vm_that_moves_meanwhile_is_found_again(rig: ProxmoxRig, journal: Journal) -> None:
    rig.pve.add_host("pve2")
    name = rig.make(running=False)
    now = session(rig, journal, name)
    engine.check(now, ON)
    rig.vm(name).node = rig.vm(name).listed = "pve2"
    engine.reach(now, ON, MANNER)
    assert rig.see(name).nested


def test_container_is_no_vm(rig: ProxmoxRig, journal: Journal) -> None:
    rig.pve.add_ct(500, "box")
    for name in ("500", "box"):
        with pytest.raises(TargetError) as caught:
            session(rig, journal, name)
        assert "container" in caught.value.message


def test_vm_on_a_node_that_is_away_is_a_plain_error(rig: ProxmoxRig, journal: Journal) -> None:
    rig.pve.add_host("pve2", online=False)
    rig.pve.add("far", vmid=401, node="pve2")
    with pytest.raises(Error) as caught:
        check(rig, journal, "far")
    assert caught.value.exit_code == 3
    assert caught.value.cure


# --- what Proxmox refuses of a cpu string


def test_nothing_but_the_cpu_is_ever_written_and_never_vmx_or_svm(rig: ProxmoxRig, journal: Journal) -> None:
    for cpu in ("x86-64-v2-AES", "EPYC,flags=-nested-virt", "kvm64,hidden=1", None):
        name = rig.make(cpu=cpu)
        run = enable(rig, journal, name).run
        engine.undo(session(rig, journal, name), journal.find(run), MANNER)
    for write in rig.pve.traffic.writes:
        assert write.keys() - {"cpu", "delete", "revert", "digest"} == set()
        assert not re.search(r"[+-](vmx|svm)\b", str(write.get("cpu")))


def test_refused_value_has_proxmoxs_own_words(rig: ProxmoxRig, journal: Journal) -> None:
    now = session(rig, journal, rig.make(running=False))
    for value, words in (
        ("host,flags=+vmx", "VM-specific CPU flags must be a subset of"),
        ("custom-nope", "Custom cputype 'nope' not found"),
        ("HOST", "Built-in cputype 'HOST' is not defined"),
    ):
        with pytest.raises(ChangeRejected) as caught:
            now.backend.apply(now.vm, Change("cpu", "x86-64-v2-AES", value))
        assert words in caught.value.evidence
