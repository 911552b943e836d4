"""What the facts about a VM of Workstation mean; needs no VMware."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nestvirt.backends.workstation.facts import CHECKS
from nestvirt.backends.workstation.host import Host
from nestvirt.backends.workstation.locks import Holder, Life
from nestvirt.backends.workstation.situation import Control, shows
from nestvirt.model import Change, ColdBoot, Goal, Power, Status
from nestvirt.plan import make_plan
from tests.unit.backends.vmx_situations import CONTROL, OFF, ON, RUNNING, VM, of, vmx

SET_ON, SET_OFF = 'vhv.enable = "TRUE"', 'vhv.enable = "FALSE"'


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("TRUE", True),
        (" true ", True),
        ("1", True),
        ("Yes", True),
        ("on", True),
        ("FALSE", False),
        ("0", False),
        ("no", False),
        ("", False),
        (None, False),
        ("perhaps", None),
        ("2", None),
    ],
)
def test_a_word_means_yes_or_no_or_neither(value: str | None, shown: bool | None) -> None:
    assert shows(value) is shown


@pytest.mark.parametrize(
    ("lines", "goal", "change"),
    [
        ((), ON, (None, SET_ON)),
        ((SET_OFF,), ON, (SET_OFF, SET_ON)),
        ((SET_ON,), ON, None),
        (("VHV.Enable=yes # x",), ON, None),
        (("VHV.Enable=no # x",), ON, ("VHV.Enable=no # x", 'VHV.Enable = "TRUE"')),
        (('vhv.enable = "perhaps"',), ON, ('vhv.enable = "perhaps"', SET_ON)),
        ((SET_ON, SET_ON), ON, (f"{SET_ON}\n{SET_ON}", SET_ON)),
        ((SET_OFF, "x = 1", SET_ON), ON, (f"{SET_OFF}\n(1 other line)\n{SET_ON}", SET_ON)),
        ((), OFF, None),
        ((SET_OFF,), OFF, None),
        ((SET_ON,), OFF, (SET_ON, SET_OFF)),
        (('vhv.enable = "perhaps"',), OFF, ('vhv.enable = "perhaps"', SET_OFF)),
        ((SET_OFF, SET_OFF), OFF, (f"{SET_OFF}\n{SET_OFF}", SET_OFF)),
    ],
)
def test_the_plan_is_one_line(lines: tuple[str, ...], goal: Goal, change: tuple[str, str] | None) -> None:
    plan = make_plan(vmx(*lines).judge(goal))
    assert plan.changes == (() if change is None else (Change("vhv.enable", *change),))
    assert plan.blockers == ()
    [found] = of(vmx(*lines), "vm-cpu", goal)
    assert found.status is (Status.PASS if change is None else Status.FAIL)


@pytest.mark.parametrize(
    ("former", "after"),
    [
        (Change("vhv.enable", None, SET_ON), None),
        (Change("vhv.enable", "vhv.enable=no", SET_ON), "vhv.enable=no"),
        (Change("vhv.enable", SET_ON, SET_ON), SET_OFF),
        (Change("vhv.enable", 'vhv.enable = "perhaps"', SET_ON), SET_OFF),
        (Change("vhv.enable", f"{SET_OFF}\n{SET_OFF}", SET_ON), SET_OFF),
        (Change("vhv.enable", None, "vhv.enable = 1"), SET_OFF),
        (Change("cpu", None, SET_ON), SET_OFF),
    ],
)
def test_disable_puts_back_what_enable_found(former: Change, after: str | None) -> None:
    plan = make_plan(vmx(SET_ON).judge(replace(OFF, former=former)))
    assert plan.changes == (Change("vhv.enable", SET_ON, after),)


def test_two_lines_are_told_with_their_numbers() -> None:
    [found] = of(vmx(SET_ON, "x = 1", SET_ON), "vm-cpu")
    assert "2 times (lines 4, 6)" in found.evidence


@pytest.mark.parametrize(
    ("lines", "logged", "at_power_on", "goal", "pending"),
    [
        ((SET_ON,), True, None, ON, True),
        ((SET_ON,), True, "FALSE", ON, True),
        ((SET_ON,), True, "TRUE", ON, False),
        ((SET_ON,), True, "perhaps", ON, False),
        ((SET_ON,), False, None, ON, False),
        ((), True, "TRUE", ON, False),
        ((), True, "TRUE", OFF, True),
        ((SET_OFF,), True, "FALSE", OFF, False),
    ],
)
def test_set_and_not_in_effect(
    lines: tuple[str, ...], logged: bool, at_power_on: str | None, goal: Goal, pending: bool
) -> None:
    facts = vmx(*lines, control=RUNNING, logged=logged, powered_on_with=at_power_on)
    found = of(facts, "vm-cpu-pending", goal)
    assert [isinstance(f.fix, ColdBoot) for f in found] == [True] * pending
    assert of(replace(facts, control=CONTROL), "vm-cpu-pending", goal) == []
    assert not facts.has(Change("vhv.enable", None, SET_ON))


@pytest.mark.parametrize(
    ("control", "holders", "saved", "power"),
    [
        (CONTROL, (), "", Power.STOPPED),
        (None, (), "", Power.STOPPED),
        (RUNNING, (), "", Power.RUNNING),
        (RUNNING, (), "web.vmss", Power.RUNNING),
        (None, (VM,), "", Power.RUNNING),
        (CONTROL, (replace(VM, life=Life.DEAD),), "", Power.STOPPED),
        (CONTROL, (replace(VM, process="vmware"),), "", Power.STOPPED),
        (CONTROL, (replace(VM, process="vmware-vmx-debug"),), "", Power.RUNNING),
        (CONTROL, (), "web.vmss", Power.SUSPENDED),
    ],
)
def test_power(control: Control | None, holders: tuple[Holder, ...], saved: str, power: Power) -> None:
    assert vmx(control=control, holders=holders, saved_state=saved).power is power


def test_suspended_vm_names_its_file_and_how_to_resume() -> None:
    [found] = of(vmx(saved_state="web.vmss"), "vm-suspended", OFF)
    assert "web.vmss" in found.evidence
    assert "vmrun -T ws start /vms/web/web.vmx nogui" in found.cure
    [by_hand] = of(vmx(saved_state="web.vmss", control=None), "vm-suspended")
    assert "resume it" in by_hand.cure


@pytest.mark.parametrize("name", ["encryption.keySafe", "encryption.data", "encryptedVM.guid"])
@pytest.mark.parametrize("goal", [ON, OFF])
def test_encrypted_vm_is_refused_with_a_word(name: str, goal: Goal) -> None:
    plan = make_plan(vmx(f'{name} = "x"', 'virtualHW.version = "4"').judge(goal))
    [blocker] = plan.blockers
    assert blocker.check == "vm-encrypted"
    assert name in blocker.evidence
    assert "VT-x" in blocker.cure
    assert plan.changes == ()


@pytest.mark.parametrize(
    ("version", "status"), [("8", Status.FAIL), ("9", None), ("21", None), ("new", Status.UNKNOWN)]
)
def test_hardware_version(version: str, status: Status | None) -> None:
    facts = vmx(f'virtualHW.version = "{version}"')
    found = of(facts, "vm-hardware-version")
    assert [f.status for f in found] == ([status] if status else [])
    assert of(facts, "vm-hardware-version", OFF) == []


def test_old_hardware_is_raised_by_hand_and_not_without_a_copy() -> None:
    old = 'virtualHW.version = "8"'
    [found] = of(vmx(old), "vm-hardware-version")
    assert found.fix is None
    assert "no way back" in found.cure
    assert "vmrun -T ws upgradevm /vms/web/web.vmx" in found.cure
    [by_hand] = of(vmx(old, control=None), "vm-hardware-version")
    assert "Change Hardware Compatibility" in by_hand.cure


@pytest.mark.parametrize(
    ("host", "check", "status"),
    [
        (Host(False, None), "host-vmmon", Status.WARN),
        (Host(True, frozenset({"vmx", "ept"})), "host-cpu", Status.PASS),
        (Host(True, frozenset({"svm", "npt"})), "host-cpu", Status.PASS),
        (Host(True, frozenset({"sse"})), "host-cpu", Status.FAIL),
        (Host(True, frozenset({"vmx", "npt"})), "host-paging", Status.FAIL),
        (Host(True, frozenset({"svm", "ept"})), "host-paging", Status.FAIL),
    ],
)
def test_host(host: Host, check: str, status: Status) -> None:
    assert [f.status for f in of(vmx(host=host), check)] == [status]
    assert of(vmx(host=host), check, OFF) == []


def test_without_linux_nothing_is_said_of_the_host() -> None:
    assert [f for f in vmx(host=None).judge(ON) if f.check.startswith("host-")] == []


def test_arm_guest_is_no_x86_one() -> None:
    assert [f.status for f in of(vmx('guestOS = "arm-debian12-64"'), "vm-arch")] == [Status.FAIL]
    assert of(vmx(), "vm-arch") == []


def test_file_that_cannot_be_written_blocks_only_a_change() -> None:
    assert of(vmx(unwritable="read-only"), "vm-permission")[0].status is Status.FAIL
    assert of(vmx(SET_ON, unwritable="read-only"), "vm-permission") == []


@pytest.mark.parametrize(
    ("control", "lines", "word"),
    [
        (None, (), "no vmrun"),
        (CONTROL, (), "vmrun -T ws list"),
        (RUNNING, (), None),
        (None, (SET_ON,), None),
    ],
)
def test_running_vm_that_nobody_here_can_stop(
    control: Control | None, lines: tuple[str, ...], word: str | None
) -> None:
    found = of(vmx(*lines, control=control, holders=(VM,)), "vm-power-permission")
    assert [(word or "?") in f.evidence for f in found] == ([True] if word else [])


@pytest.mark.parametrize(
    ("holder", "check", "words"),
    [
        (Holder("/x.lck", 7, "vmware", Life.LIVE), "vm-lock", "process 7 (vmware) has it open"),
        (Holder("/x.lck", 7, "", Life.LIVE), "vm-lock", "process 7 has it open"),
        (Holder("/x.lck", 7, "vmware-vmx", Life.ELSEWHERE), "vm-lock", "of another machine"),
        (Holder("/x.lck", 0, "", Life.ELSEWHERE), "vm-lock", "somebody of another machine"),
        (Holder("/x.lck", 7, "vmware-vmx", Life.DEAD), "vm-lock-stale", "which is gone"),
    ],
)
def test_lock(holder: Holder, check: str, words: str) -> None:
    found = [f for f in vmx(holders=(holder,)).judge(OFF) if f.check.startswith("vm-lock")]
    assert [f.check for f in found] == [check]
    assert words in found[0].evidence
    assert found[0].cure


def test_folder_to_be_removed_is_one_word_for_a_shell() -> None:
    [found] = of(vmx(holders=(Holder("/vms/a b; c.lck", 0, "", Life.ELSEWHERE),)), "vm-lock")
    assert found.cure.endswith("rm -r '/vms/a b; c.lck'")


def test_snapshots_with_memory_and_the_way_in_are_told() -> None:
    facts = vmx(SET_ON, memory_snapshots=("before update",), control=replace(RUNNING, address="192.0.2.7"))
    assert "before update" in of(facts, "vm-snapshot-memory")[0].evidence
    assert of(facts, "vm-snapshot-memory", OFF) == []
    assert of(facts, "vm-agent")[0].cure.endswith("--ssh USER@192.0.2.7")
    assert of(replace(facts, control=RUNNING), "vm-agent")[0].cure.endswith("--ssh USER@HOST")
    assert of(vmx(), "vm-agent") == []


def test_every_ill_finding_is_of_a_check_and_has_evidence_and_cure() -> None:
    facts = vmx(
        'guestOS = "arm"',
        'virtualHW.version = "8"',
        holders=(VM, replace(VM, process="vmware"), replace(VM, life=Life.DEAD)),
        control=None,
        unwritable="read-only",
        memory_snapshots=("one",),
        host=Host(False, None),
    )
    found = [f for goal in (ON, OFF) for f in facts.judge(goal) if f.ill]
    assert len({f.check for f in found}) == 10
    assert {f.check for f in found} <= set(CHECKS)
    assert all(f.evidence and f.cure for f in found)
