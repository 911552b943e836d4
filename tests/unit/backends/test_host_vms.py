"""VMs that are drained: named by a person, shut down and started by who manages them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from nestvirt.backends.host.situation import User
from nestvirt.backends.host.vms import Vms, keys_of
from nestvirt.errors import PowerError, TargetError
from nestvirt.guest.channel import Completed

UUID = "c0ffee00-0000-4000-8000-000000000001"
WEB = User(10, "qemu-system-x86", "web-01", "libvirt", UUID)
MAIL = User(11, "kvm", "mail", "proxmox", "102")
TWIN = User(12, "kvm", "mail", "proxmox", "103")
BARE = User(13, "qemu-system-x86", "lab")
KEYS = (f"libvirt:{UUID}", "proxmox:102")


class Managers:
    """virsh and qm of one host.

    Args:
        deaf: VMs that do not react when they are asked to shut down.
        broken: VMs that cannot be started.
        passing: VMs that could not be started again.
    """

    def __init__(self, *, deaf: Sequence[str] = (), broken: Sequence[str] = (), passing: str = "") -> None:
        self.on = {UUID: True, "102": True}
        self.deaf, self.broken, self.passing = deaf, broken, passing
        self.orders: list[str] = []

    def run(self, argv: Sequence[str], *, timeout: float) -> Completed:
        assert timeout > 0
        program = argv[0]
        vm = next(word for word in argv if word in self.on)
        order = argv[argv.index("--domain") - 1] if program == "virsh" else argv[1]
        if program == "sh":
            return Completed(0, b"service vm:102 (n1, started)\n" if vm == self.passing else b"free\n", b"")
        if order == "dominfo":
            return Completed(
                0, b"Persistent:     no\n" if vm == self.passing else b"Persistent:     yes\n", b""
            )
        if order in ("domstate", "status"):
            words = {"virsh": ("running", "shut off\n"), "qm": ("status: running", "status: stopped\n")}
            return Completed(0, words[program][not self.on[vm]].encode(), b"")
        self.orders.append(f"{program} {order} {vm}")
        if order == "start" and vm in self.broken:
            return Completed(1, b"", b"no bootable device")
        if order != "shutdown" or vm not in self.deaf:
            self.on[vm] = order == "start"
        return Completed(0, b"", b"")


def test_vms_are_named_as_people_name_them() -> None:
    users = [WEB, MAIL]
    assert keys_of(["web-01", "mail"], users) == KEYS
    assert keys_of([UUID, "102"], users) == KEYS
    assert keys_of(KEYS, users) == KEYS
    assert keys_of(["web-01"], [*users, User(14, "sh", "web-01")]) == KEYS[:1]  # anybody may call it so


@pytest.mark.parametrize(
    ("name", "users", "words"),
    [
        ("db", [WEB, MAIL], "no running VM called 'db'"),
        (KEYS[0], [MAIL], "no running VM called"),
        ("", [BARE], "no running VM called ''"),
        ("mail", [MAIL, TWIN], "more than one VM is called 'mail'"),
        ("lab", [BARE], "does not know how to shut lab"),
    ],
)
def test_a_name_that_cannot_be_drained_is_refused(name: str, users: list[User], words: str) -> None:
    with pytest.raises(TargetError) as caught:
        keys_of([name], users)
    assert words in caught.value.message
    assert caught.value.evidence
    assert caught.value.cure


@pytest.mark.parametrize(("passing", "why"), [(UUID, "transient"), ("102", "HA manages it")])
def test_a_vm_that_could_not_be_started_again_is_refused(passing: str, why: str) -> None:
    Vms(Managers().run).refuse_passing(KEYS)
    with pytest.raises(TargetError) as caught:
        Vms(Managers(passing=passing).run).refuse_passing(KEYS)
    assert why in caught.value.evidence


def test_all_are_asked_and_started_again() -> None:
    managers = Managers()
    Vms(managers.run).shut_down(KEYS, timeout=5)
    assert managers.orders == [f"virsh shutdown {UUID}", "qm shutdown 102"]
    Vms(managers.run).start(KEYS, timeout=5)
    assert managers.orders[2:] == [f"virsh start {UUID}", "qm start 102"]
    Vms(managers.run).start(KEYS, timeout=5)
    assert len(managers.orders) == 4  # they run already


def test_where_one_does_not_shut_down_the_others_are_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    managers = Managers(deaf=["102"])
    with pytest.raises(PowerError) as caught:
        Vms(managers.run).shut_down(KEYS, timeout=0)
    assert "102" in caught.value.message
    assert managers.on == {UUID: True, "102": True}
    Vms(managers.run).power_off(KEYS)
    assert managers.on == {UUID: False, "102": False}


def test_one_that_does_not_start_keeps_none_of_the_others_off() -> None:
    managers = Managers(broken=[UUID])
    Vms(managers.run).shut_down(KEYS, timeout=5)
    with pytest.raises(PowerError) as caught:
        Vms(managers.run).start(KEYS, timeout=5)
    assert "no bootable device" in caught.value.evidence
    assert managers.on == {UUID: False, "102": True}


@pytest.mark.parametrize(
    "key", ["", "web-01", "xen:1", "libvirt:", "libvirt:--help", "proxmox:\u0661\u0662\u0663"]
)
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(TargetError):
        Vms(Managers().run).power_off([key])
