"""Two VMs with one guest, or one node, are a slip of the fleet file."""

from __future__ import annotations

import pytest

from nestvirt.errors import SettingsError
from nestvirt.fleet.apart import refuse_one_guest, refuse_one_node
from nestvirt.fleet.endpoints import Endpoint, Place
from nestvirt.fleet.selection import Member
from nestvirt.model import Target, Vm


def member(name: str, *, vm: str = "", profile: str | None = None, host: str = "h1", **told: str) -> Member:
    """A VM of a Proxmox node."""
    target = Target("proxmox", name, profile)
    endpoint = Endpoint(Place("proxmox", profile), {"endpoint": host})
    return Member(str(target), target, endpoint, Vm(vm, name) if vm else None, **told)  # type: ignore[arg-type]


def test_each_has_its_own() -> None:
    one = member("a", ssh="admin@a", node="a")
    refuse_one_guest([one, member("b", ssh="admin@b", node="b"), member("c"), Member("proxmox: tag=x")])
    refuse_one_node({"proxmox:a": "a", "proxmox:b": "b"})


@pytest.mark.parametrize("key", ["ssh", "node"])
def test_one_of_two_is_refused(key: str) -> None:
    with pytest.raises(SettingsError, match=f"the same {key} 'x'") as caught:
        refuse_one_guest([member("a", **{key: "x"}), member("b", **{key: "x"})])
    assert caught.value.evidence.startswith("proxmox:a and proxmox:b")
    assert "{name}" in caught.value.cure


def test_an_alias_of_two_files_may_be_two_guests() -> None:
    refuse_one_guest([member("a", ssh="x", ssh_config="/1"), member("b", ssh="x", ssh_config="/2")])


def test_two_names_of_one_vm_may_share_them_but_not_two_vms_of_one_id() -> None:
    told = {"ssh": "admin@a", "node": "a"}
    here = member("100", vm="100", **told)
    refuse_one_guest([here, member("a", vm="100", profile="lab", **told)])
    with pytest.raises(SettingsError):
        refuse_one_guest([here, member("a", vm="100", profile="east", host="h2", **told)])


def test_a_node_of_two_endpoints_is_refused() -> None:
    with pytest.raises(SettingsError, match="the same node 'w1'"):
        refuse_one_node({"proxmox@east:w1": "w1", "proxmox@west:w1": "w1"})
