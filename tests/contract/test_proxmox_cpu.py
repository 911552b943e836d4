"""Which CPU Proxmox's VMs get, on which nodes, and what their guests let anybody see of it."""

from __future__ import annotations

import dataclasses

import pytest

from nestvirt import engine
from nestvirt.journal import Journal
from nestvirt.model import PROOF, Goal, Status
from tests.contract.basis import MANNER, OFF, ON
from tests.contract.runs import check, enable, found, session
from tests.peers.proxmox_rig import ENOUGH, ProxmoxRig
from tests.peers.pve_cpu import PVE_7, PVE_8, PVE_9_0, PVE_9_1, PVE_9_2, Release, intel
from tests.peers.pve_server import Served, serve

EPYC = Goal(cpu="EPYC")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "host"),
        ("x86-64-v2-AES", "host"),
        ("cputype=kvm64", "host"),
        ("x86-64-v2-AES,flags=+pcid,hidden=1", "host,flags=+pcid,hidden=1"),
        ("EPYC,flags=-nested-virt;+aes,phys-bits=host", "host,flags=+aes,phys-bits=host"),
        ("host,flags=-nested-virt", "host"),
    ],
)
def test_type_becomes_host_and_the_rest_is_kept(
    rig: ProxmoxRig, journal: Journal, before: str | None, after: str
) -> None:
    name = rig.make(cpu=before)
    assert enable(rig, journal, name).conclusion is Status.PASS
    assert rig.vm(name).config["cpu"].removeprefix("cputype=") == after


@pytest.mark.parametrize("cpu", ["host", "max", "EPYC,flags=+nested-virt", "host,flags=+nested-virt;+pcid"])
def test_what_nests_already_is_left_alone(rig: ProxmoxRig, journal: Journal, cpu: str) -> None:
    name = rig.make(cpu=cpu)
    before = rig.see(name)
    result = enable(rig, journal, name)
    assert (result.conclusion, result.changes) == (Status.PASS, ())
    assert rig.see(name) == before


def test_vendors_type_gets_the_flag(rig: ProxmoxRig, journal: Journal) -> None:
    name = rig.make(cpu="x86-64-v2-AES,hidden=1,flags=+pcid")
    assert enable(rig, journal, name, EPYC).conclusion is Status.PASS
    kind, *rest = rig.vm(name).config["cpu"].split(",")
    assert kind == "EPYC"
    assert "hidden=1" in rest
    [flags] = [part.removeprefix("flags=") for part in rest if part.startswith("flags=")]
    assert set(flags.split(";")) == {"+nested-virt", "+pcid"}


@pytest.mark.parametrize("release", [PVE_8, PVE_9_0], ids=lambda r: r.release)
def test_vendors_type_is_refused_where_the_node_has_no_such_flag(
    rig: ProxmoxRig, journal: Journal, release: Release
) -> None:
    """As qemu-server before 9.0.27: the way is then a custom model, which root defines."""
    name = rig.make()
    before = rig.see(name)
    result = enable(rig, journal, name, EPYC)
    assert [f.check for f in result.blockers] == ["vm-cpu-choice"]
    assert "cpu-models.conf" in result.blockers[0].cure
    assert rig.see(name) == before


def test_type_of_another_vendor_is_refused(rig: ProxmoxRig, journal: Journal) -> None:
    result = enable(rig, journal, rig.make(), Goal(cpu="Skylake-Server"))
    assert [f.check for f in result.blockers] == ["vm-cpu-choice"]


def test_type_that_differs_in_case_is_refused_with_its_name(rig: ProxmoxRig, journal: Journal) -> None:
    result = enable(rig, journal, rig.make(), Goal(cpu="epyc"))
    assert [f.check for f in result.blockers] == ["vm-cpu-choice"]
    assert "EPYC" in result.blockers[0].cure


def test_generic_level_with_the_flag_is_warned_of(rig: ProxmoxRig, journal: Journal) -> None:
    """The flag shows in the guest, and no VM starts there."""
    name = rig.make(cpu="x86-64-v3,flags=+nested-virt")
    result = check(rig, journal, name)
    assert found(result, "vm-cpu").status is Status.WARN
    assert result.conclusion is not Status.PASS
    assert enable(rig, journal, name).conclusion is Status.PASS


def test_args_with_a_cpu_decide_and_nothing_is_planned(rig: ProxmoxRig, journal: Journal) -> None:
    name = rig.make(cpu="host", args="-cpu EPYC,-svm")
    before = rig.see(name)
    result = enable(rig, journal, name)
    assert [f.check for f in result.blockers] == ["vm-cpu"]
    assert "args" in found(result, "vm-cpu").evidence
    assert result.changes == ()
    assert rig.see(name) == before


def test_custom_model_is_not_touched(rig: ProxmoxRig, journal: Journal) -> None:
    rig.pve.custom["nested"] = "+svm"
    name = rig.make(cpu="custom-nested")
    result = enable(rig, journal, name)
    assert (result.conclusion, result.changes) == (Status.PASS, ())


def test_windows_with_host_is_warned_of(rig: ProxmoxRig, journal: Journal) -> None:
    result = check(rig, journal, rig.make(ostype="win11"))
    assert found(result, "vm-windows-host").status is Status.WARN
    assert found(result, "vm-windows-host").cure


def test_disable_of_a_vendors_type_takes_the_flag_away(rig: ProxmoxRig, journal: Journal) -> None:
    name = rig.make(cpu="EPYC,flags=+nested-virt;+aes")
    assert engine.reach(session(rig, journal, name), OFF, MANNER).conclusion is Status.PASS
    assert rig.vm(name).config["cpu"] == "EPYC,flags=+aes"


# --- the nodes


def test_node_without_vmx_and_svm_blocks(rig: ProxmoxRig, journal: Journal) -> None:
    rig.pve.hosts["pve1"].virt = False
    name = rig.make()
    before = rig.see(name)
    result = enable(rig, journal, name)
    assert "host-cpu" in [f.check for f in result.blockers]
    assert rig.see(name) == before


def test_node_that_reports_it_passes(rig: ProxmoxRig, journal: Journal) -> None:
    assert found(check(rig, journal, rig.make()), "host-nested").status is Status.PASS


@pytest.mark.parametrize(
    ("release", "reports", "nested"),
    [(PVE_9_2, False, True), (PVE_9_2, True, False), (PVE_9_1, True, True), (PVE_8, True, True)],
    ids=["not reported", "reported without", "9.1", "8.4"],
)
def test_node_that_does_not_report_it_is_unknown(
    rig: ProxmoxRig, journal: Journal, release: Release, reports: bool, nested: bool
) -> None:
    """KVM omits it where the module has nested=0; but an empty list may mean no report as well."""
    host = rig.pve.hosts["pve1"]
    host.reports, host.nested = reports, nested
    finding = found(check(rig, journal, rig.make()), "host-nested")
    assert finding.status is Status.UNKNOWN
    assert "parameters/nested" in finding.cure


def test_host_on_a_node_with_nested_off_is_never_called_a_success(rig: ProxmoxRig, journal: Journal) -> None:
    """It starts in silence, without svm: only the guest tells."""
    host = rig.pve.hosts["pve1"]
    host.reports = host.nested = False
    result = enable(rig, journal, rig.make())
    assert result.conclusion is Status.FAIL
    assert result.first_broken is not None
    assert result.first_broken.check == "host-nested"  # it is all that is left, though it could not be read
    assert "the host does not let it nest" in result.first_broken.evidence


def test_unlike_members_of_the_cluster_are_named(rig: ProxmoxRig, journal: Journal) -> None:
    rig.pve.add_host("pve2", intel())
    rig.pve.add_host("pve3", online=False)
    finding = found(check(rig, journal, rig.make()), "vm-migration")
    assert finding.status is Status.WARN
    assert "pve2" in finding.evidence
    assert "pve3" not in finding.evidence


def test_alike_members_pass(rig: ProxmoxRig, journal: Journal) -> None:
    rig.pve.add_host("pve2")
    assert found(check(rig, journal, rig.make()), "vm-migration").status is Status.PASS


def test_node_of_arm_is_refused(rig: ProxmoxRig, journal: Journal) -> None:
    rig.pve.hosts["pve1"].machine = "aarch64"
    name = rig.make()
    before = rig.see(name)
    assert "vm-arch" in [f.check for f in enable(rig, journal, name).blockers]
    assert rig.see(name) == before


def test_who_may_not_read_the_node_gets_an_answer_all_the_same(served: Served, journal: Journal) -> None:
    """Sys.Audit is more than a VM's owner is given."""
    rig = ProxmoxRig(served, tuple(p for p in ENOUGH if p != "Sys.Audit"))
    assert enable(rig, journal, rig.make()).conclusion is Status.PASS


# --- inside the guest


def no_exec(served: Served) -> ProxmoxRig:
    """A token that may ask the agent and read files, and run nothing: a role that many give."""
    privileges = (
        "VM.Audit",
        "VM.Config.CPU",
        "VM.PowerMgmt",
        "VM.GuestAgent.Audit",
        "VM.GuestAgent.FileRead",
    )
    return ProxmoxRig(served, privileges)


def test_exec_denied_leaves_files_as_evidence_and_proves_nothing(served: Served, journal: Journal) -> None:
    rig = no_exec(served)
    name = rig.make()
    result = enable(rig, journal, name)
    assert result.conclusion is Status.UNKNOWN
    assert result.proof is not None
    assert result.proof.verdict == "not-proven"
    assert found(result, PROOF).status is Status.UNKNOWN
    assert "/proc/cpuinfo" in found(result, "guest-cpu-flag").evidence
    assert rig.pve.traffic.count("GET", "/agent/file-read") > 0


def test_files_alone_can_tell_that_it_is_off(served: Served, journal: Journal) -> None:
    rig = no_exec(served)
    result = check(rig, journal, rig.make())
    assert result.conclusion is Status.FAIL
    assert found(result, "guest-cpu-flag").status is Status.FAIL


def test_agent_that_runs_no_programs_may_read_files(rig: ProxmoxRig, journal: Journal) -> None:
    name = rig.make(nested=True)
    rig.vm(name).system.execs = False
    result = check(rig, journal, name)
    assert result.conclusion is Status.UNKNOWN
    assert found(result, "guest-cpu-flag").status is Status.PASS


def test_guest_without_python_is_read_by_its_shell_and_596_is_not_provoked(
    rig: ProxmoxRig, journal: Journal
) -> None:
    name = rig.make(nested=True)
    rig.vm(name).system.python = False
    result = check(rig, journal, name)
    assert (result.conclusion, found(result, PROOF).status) == (Status.UNKNOWN, Status.UNKNOWN)
    assert "no guest code was run" in found(result, PROOF).evidence
    assert rig.vm(name).system.broken_pipes == 0


@pytest.mark.parametrize(
    ("switch", "value", "evidence"),
    [
        ("says", '{"schema_version": 1, "verdict": "works"}', "not the probe's"),
        ("says", "x" * (2 << 20), "more than"),
        ("keeps", 100, "more than"),
        ("says", "\x1b[31mhello", "not the probe's"),
        ("forgets", True, "Invalid parameter 'pid'"),
        ("agent", False, "QEMU guest agent is not running"),
        ("late", 10**6, "QEMU guest agent is not running"),
        ("slow", 10**6, "within"),
    ],
    ids=["liar", "flood", "cut", "babble", "forgetful", "no agent", "silent", "hangs"],
)
def test_guest_that_cannot_be_trusted_or_asked_is_unproven(
    rig: ProxmoxRig, journal: Journal, switch: str, value: object, evidence: str
) -> None:
    name = rig.make(nested=True)
    setattr(rig.vm(name).system, switch, value)
    rig.vm(name).system.boot()
    now = dataclasses.replace(session(rig, journal, name), timeout=3)
    result = engine.check(now, ON)
    assert result.conclusion is Status.UNKNOWN
    assert evidence in found(result, PROOF).evidence
    assert found(result, PROOF).evidence.isprintable()


def test_agent_that_comes_up_late_is_waited_for(rig: ProxmoxRig, journal: Journal) -> None:
    name = rig.make()
    rig.vm(name).system.late = 2
    assert enable(rig, journal, name).conclusion is Status.PASS


def test_vm_without_an_agent_says_what_to_do(rig: ProxmoxRig, journal: Journal) -> None:
    result = check(rig, journal, rig.make(nested=True, agent="0"))
    assert result.conclusion is Status.UNKNOWN
    assert "agent" in found(result, PROOF).cure


def test_disable_refuses_while_vms_run_inside(rig: ProxmoxRig, journal: Journal) -> None:
    name = rig.make(nested=True)
    rig.vm(name).system.numbers = {"kvm_users": 2}
    before = rig.see(name)
    result = engine.reach(session(rig, journal, name), OFF, MANNER)
    assert [f.check for f in result.blockers] == ["guest-kvm-users"]
    assert rig.see(name) == before


# --- versions


@pytest.mark.parametrize("release", [PVE_7, PVE_8, PVE_9_0, PVE_9_1], ids=lambda r: r.release)
def test_every_version_from_7_on(release: Release, journal: Journal) -> None:
    """They differ in exec's command, in the agent's privileges, in CPU types, in flags, in error bodies."""
    with serve(release) as served:
        rig = ProxmoxRig(served)
        name = rig.make(cpu="kvm64")
        before = rig.see(name)
        result = enable(rig, journal, name)
        assert result.conclusion is Status.PASS
        engine.undo(session(rig, journal, name), journal.find(result.run), MANNER)
        assert rig.see(name).stored == before.stored
        assert served.pve.traffic.violations == []
        assert rig.vm(name).system.broken_pipes == 0


@pytest.mark.parametrize("release", [PVE_7], ids=lambda r: r.release)
def test_disable_on_7_names_no_type_that_it_does_not_have(
    rig: ProxmoxRig, journal: Journal, release: Release
) -> None:
    name = rig.make(nested=True)
    assert engine.reach(session(rig, journal, name), OFF, MANNER).conclusion is Status.PASS
    assert "x86-64" not in rig.vm(name).config.get("cpu", "")


@pytest.mark.parametrize("release", [PVE_8], ids=lambda r: r.release)
def test_missing_monitor_privilege_is_named_as_8_calls_it(served: Served, journal: Journal) -> None:
    rig = ProxmoxRig(served, ("VM.Audit", "VM.Config.CPU", "VM.PowerMgmt", "Sys.Audit"))
    result = check(rig, journal, rig.make(nested=True))
    proof = found(result, PROOF)
    assert "VM.Monitor" in f"{proof.evidence} {proof.cure}"
    assert "VM.GuestAgent" not in f"{proof.evidence} {proof.cure}"
