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
    """

    def __init__(self, *, deaf: Sequence[str] = (), broken: Sequence[str] = ()) -> None:
        self.on = {UUID: True, "102": True}
        self.deaf, self.broken = deaf, broken
        self.orders: list[str] = []

    def run(self, argv: Sequence[str], *, timeout: float) -> Completed:
        assert timeout > 0
        program, vm = argv[0], argv[-1]
        order = argv[3] if program == "virsh" else argv[1]
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
    assert keys_of(KEYS, []) == KEYS  # from a record, when they may be off


@pytest.mark.parametrize(
    ("name", "users", "words"),
    [
        ("db", [WEB, MAIL], "no running VM called 'db'"),
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


def test_all_are_asked_and_started_again() -> None:
    managers = Managers()
    Vms(managers.run).shut_down(KEYS, timeout=5)
    assert managers.orders == [f"virsh shutdown {UUID}", "qm shutdown 102"]
    Vms(managers.run).start(KEYS, timeout=5)
    assert managers.orders[2:] == [f"virsh start {UUID}", "qm start 102"]
    Vms(managers.run).start(KEYS, timeout=5)
    assert len(managers.orders) == 4  # they run already


def test_a_vm_that_does_not_shut_down_is_told_and_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    managers = Managers(deaf=[UUID])
    with pytest.raises(PowerError) as caught:
        Vms(managers.run).shut_down(KEYS, timeout=0)
    assert UUID in caught.value.message
    assert "--force-off" in caught.value.cure
    Vms(managers.run).power_off(KEYS)
    assert managers.on == {UUID: False, "102": False}
    assert managers.orders[2:] == [f"virsh destroy {UUID}"]


def test_a_vm_that_does_not_start_is_told_in_its_managers_words() -> None:
    managers = Managers(broken=["102"])
    Vms(managers.run).shut_down(KEYS, timeout=5)
    with pytest.raises(PowerError) as caught:
        Vms(managers.run).start(KEYS, timeout=5)
    assert "no bootable device" in caught.value.evidence


@pytest.mark.parametrize("key", ["", "web-01", "xen:1", "libvirt:"])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(TargetError):
        Vms(Managers().run).power_off([key])
