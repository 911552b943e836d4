"""Two VMs with one guest, or one node, are a slip of the fleet file."""

from __future__ import annotations

from pathlib import Path

import pytest

from nestvirt.errors import SettingsError
from nestvirt.fleet.apart import refuse_one_guest, refuse_one_node
from nestvirt.fleet.endpoints import Endpoint, Place
from nestvirt.fleet.selection import Member
from nestvirt.model import Target, Vm
from tests.peers.memory_fleet import MemoryFleet


def member(name: str, *, vm: str = "", profile: str | None = None, host: str = "h1", **told: str) -> Member:
    """A VM of a Proxmox node."""
    target = Target("proxmox", name, profile)
    endpoint = Endpoint(Place("proxmox", profile), {"endpoint": host})
    return Member(str(target), target, endpoint, Vm(vm, name) if vm else None, **told)  # type: ignore[arg-type]


def test_each_has_its_own() -> None:
    one = member("a", ssh="admin@a", node="a")
    refuse_one_guest([one, member("b", ssh="admin@b", node="b"), member("c"), Member("proxmox: tag=x")])
    nodes = [member("a", vm="1"), member("b", vm="2")]
    refuse_one_node(nodes, {"proxmox:a": "a", "proxmox:b": "b"})


@pytest.mark.parametrize("key", ["ssh", "node"])
def test_one_of_two_is_refused(key: str) -> None:
    with pytest.raises(SettingsError, match=f"the same {key} 'x'") as caught:
        refuse_one_guest([member("a", **{key: "x"}), member("b", **{key: "x"})])
    assert caught.value.evidence.startswith("proxmox:a and proxmox:b")
    assert "{name}" in caught.value.cure


def test_an_alias_of_two_files_may_be_two_guests() -> None:
    refuse_one_guest([member("a", ssh="x", ssh_config="/1"), member("b", ssh="x", ssh_config="/2")])


def test_two_names_of_one_vm_may_share_them_by_whatever_address_but_not_two_vms() -> None:
    told = {"ssh": "admin@a", "node": "a"}
    here = member("100", vm="100@uuid", **told)
    refuse_one_guest([here, member("a", vm="100@uuid", profile="lab", host="h2", **told)])
    with pytest.raises(SettingsError):
        refuse_one_guest([here, member("a", vm="100@other", profile="east", host="h2", **told)])


def test_a_node_of_two_vms_is_refused() -> None:
    east, again, west = (member("w1", vm=vm, profile=at) for vm, at in (("1", "e"), ("1", "x"), ("2", "w")))
    names = dict.fromkeys((east.written, again.written, west.written), "w1")
    refuse_one_node([east, again], names)
    with pytest.raises(SettingsError, match="the same node 'w1'"):
        refuse_one_node([east, west], names)


def test_who_is_known_by_name_only_is_looked_for_where_two_profiles_may_lead_to_one_vm(
    fleet: MemoryFleet,
) -> None:
    for name in "ab":
        fleet.add(name)

    def named(name: str, profile: str | None = None, path: Path = fleet.path) -> Member:
        target = Target("memory", name, profile)
        return Member(str(target), target, Endpoint(Place("memory", profile), {"path": str(path)}), ssh="x")

    refuse_one_guest([named("a"), named("a", "lab"), named("b", "gone", Path("/nowhere"))])
    with pytest.raises(SettingsError) as caught:
        refuse_one_guest([named("a"), named("b", "lab")])
    assert caught.value.evidence.startswith("memory:a and memory@lab:b;")
