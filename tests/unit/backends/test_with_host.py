"""A VM together with its host: one chain, one plan; and who is let near which host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from nestvirt.backends.base import VM, Place
from nestvirt.backends.host import HostFacts
from nestvirt.backends.host.facts import content
from nestvirt.backends.host.situation import User
from nestvirt.backends.host.with_vm import BothFacts, WithHost
from nestvirt.backends.libvirt.host import login_of
from nestvirt.errors import TargetError
from nestvirt.model import Change, Goal, Power, Status, Vm
from nestvirt.plan import make_plan
from tests.peers.memory import MemoryFacts
from tests.unit.backends.test_host_facts import host, off

OURS = "/etc/modprobe.d/zz-nestvirt.conf"
PARAMETER = "/sys/module/kvm_amd/parameters/nested"
UUID = "c0ffee00-0000-4000-8000-000000000001"
OWN = User(10, "qemu-system-x86", "web-01", "libvirt", UUID)
OTHER = User(11, "qemu-system-x86", "web-02", "libvirt", "c0ffee00-0000-4000-8000-000000000002")
DROP_IN = Change(OURS, None, content("kvm_amd", nested=True))
RELOAD = Change(PARAMETER, "0", "1")
VM_CHANGE = Change("nested", "off", "on")


def both(below: HostFacts, *, nested: str = "on", power: Power = Power.RUNNING) -> BothFacts:
    return BothFacts(MemoryFacts("web-01", power, nested, nested), below, frozenset({UUID}))


BUSY: dict[str, Any] = {"loaded": {"kvm_amd": 5}}

ROWS = {
    "all is well": (both(host()), (), ()),
    "only the VM": (both(host(), nested="off"), (VM_CHANGE,), ()),
    "only the host, the VM runs": (both(off(users=(OWN,), **BUSY)), (RELOAD, DROP_IN), ()),
    "only the host, the VM is off": (both(off(), power=Power.STOPPED), (RELOAD, DROP_IN), ()),
    "both": (both(off(users=(OWN,), **BUSY), nested="off"), (RELOAD, DROP_IN, VM_CHANGE), ()),
    "the file is right, and not loaded": (
        both(off(configs={OURS: content("kvm_amd", nested=True)})),
        (RELOAD,),
        (),
    ),
    "the module is not loaded": (
        both(host(nested=None, loaded={}), power=Power.STOPPED),
        (Change(PARAMETER, None, "1"),),
        (),
    ),
    "another VM runs": (both(off(users=(OWN, OTHER), **BUSY)), (RELOAD, DROP_IN), ("host-users",)),
    "another VM runs, this one is off": (
        both(off(users=(OTHER,), **BUSY), power=Power.STOPPED),
        (RELOAD, DROP_IN),
        ("host-users",),
    ),
    "another VM runs, and is drained": (
        both(off(users=(OWN, OTHER), drain=(OTHER.key,), **BUSY)),
        (RELOAD, DROP_IN),
        (),
    ),
    "somebody unseen uses it": (both(off(**BUSY)), (RELOAD, DROP_IN), ("host-users",)),
    "the command line says off": (
        both(off(cmdline="kvm_amd.nested=0")),
        (),
        ("host-nested", "host-nested-next-boot"),
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_plan(name: str) -> None:
    facts, changes, blocks = ROWS[name]
    plan = make_plan(facts.judge(Goal()))
    assert plan.changes == changes
    assert tuple(f.check for f in plan.blockers) == blocks
    for change in changes:
        assert facts.value(change.setting) == change.before


def test_a_change_of_the_host_needs_a_power_cycle_and_one_that_runs_already_does_not() -> None:
    facts = both(off(users=(OWN,), **BUSY))
    assert not facts.has(RELOAD)
    assert facts.has(Change("nested", "off", "on"))
    assert (facts.power, facts.busy) == (Power.RUNNING, "")


def test_without_nesting_only_who_stands_in_the_way_is_asked_of_a_host() -> None:
    """That is for an undo, which loads the module anew."""
    alone = both(host(users=(OWN,), **BUSY), nested="off").judge(Goal(nested=False))
    assert [(f.check, f.status) for f in alone] == [("host-users", Status.WARN), ("vm-cpu", Status.PASS)]
    busy = both(host(users=(OWN, OTHER), **BUSY), nested="off").judge(Goal(nested=False))
    assert [f.check for f in make_plan(busy).blockers] == ["host-users"]
    stuck = both(host(loading=()), nested="off").judge(Goal(nested=False))
    assert [f.check for f in make_plan(stuck).blockers] == ["host-module"]


class Vms:
    """A VM's backend, as far as its host is asked for."""

    kind = VM
    endpoint: Mapping[str, str] = {"uri": "qemu+tls://node1/system"}

    def __init__(self, place: Place) -> None:
        self.place = place

    def find(self, name: str) -> Vm:
        return Vm(UUID, name)

    def host_of(self, _vm: Vm) -> Place:
        return self.place


def test_a_host_that_cannot_be_logged_in_to_is_asked_for() -> None:
    backend: Any = Vms(Place("node1", None))
    with pytest.raises(TargetError) as caught:
        WithHost(backend, {"with_host": "auto"}).find("web-01")
    assert "--with-host ssh://root@node1" in caught.value.cure


def test_a_host_that_is_not_the_vms_own_is_refused() -> None:
    backend: Any = Vms(Place("node1.example.com", None))
    with pytest.raises(TargetError) as caught:
        WithHost(backend, {"with_host": "local"}).find("web-01")
    assert "not on the host" in caught.value.message
    assert "node1.example.com" in caught.value.evidence


@pytest.mark.parametrize(
    ("uri", "login"),
    [
        ("qemu:///system", "local"),
        ("qemu+unix:///session", "local"),
        ("qemu+ssh://root@node1:2222/system?keyfile=k", "ssh://root@node1:2222"),
        ("qemu+libssh2://node1/system", "ssh://node1"),
        ("qemu+tls://node1/system", None),
        ("qemu+tcp://node1/system", None),
    ],
)
def test_login_of_a_libvirt_uri(uri: str, login: str | None) -> None:
    assert login_of(uri) == login
