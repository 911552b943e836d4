"""From names to VMs: who is asked how often, and who is meant."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from nestvirt.errors import ConnectionFailed, SettingsError
from nestvirt.fleet.endpoints import Endpoints, Place
from nestvirt.fleet.selection import FEW, Member, Selection
from nestvirt.fleet.targetsfile import FleetFile
from nestvirt.model import Target
from tests.peers import memory
from tests.peers.memory_fleet import MemoryFleet


class Counted(memory.MemoryBackend):
    """Counts its connections, and the listings."""

    connections = 0
    listings = 0

    def __init__(self, endpoint: Mapping[str, str]) -> None:
        type(self).connections += 1
        super().__init__(endpoint)

    def listed(self) -> Iterator[Any]:
        type(self).listings += 1
        return super().listed()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> type[Counted]:
    monkeypatch.setattr(memory, "MemoryBackend", Counted)
    Counted.connections = Counted.listings = 0
    return Counted


def chosen(fleet: MemoryFleet, names: Sequence[str | Target], file: FleetFile | None = None) -> list[Member]:
    def settings_of(place: Place) -> Mapping[str, str]:
        if place.profile == "broken":
            raise SettingsError("there is no profile 'broken'")
        return {"path": str(fleet.path if place.profile != "gone" else fleet.folder / "nowhere")}

    endpoints = Endpoints(settings_of)
    try:
        return Selection(endpoints, file or FleetFile()).of(names)
    finally:
        endpoints.close()


def test_one_listing_for_all_patterns_and_names_of_an_endpoint(
    fleet: MemoryFleet, counted: type[Counted]
) -> None:
    for number in range(9):
        fleet.add(f"vm-{number}")
    names = [f"memory:vm-{number}" for number in range(FEW + 1)]
    found = chosen(fleet, [*names, "memory: name=vm-7", "memory: name=vm-8"])
    assert [member.vm.name for member in found if member.vm] == [
        *(f"vm-{number}" for number in range(FEW + 1)),
        "vm-7",
        "vm-8",
    ]
    assert (counted.connections, counted.listings) == (1, 1)


def test_few_names_ask_for_no_listing(fleet: MemoryFleet, counted: type[Counted]) -> None:
    fleet.add("a")
    [member] = chosen(fleet, ["memory:a"])
    assert member.vm is None  # found when it is its turn
    assert (counted.connections, counted.listings) == (0, 0)


def test_two_names_of_one_vm_are_one_member_however_few_they_are(
    fleet: MemoryFleet, counted: type[Counted]
) -> None:
    fleet.add("a")
    fleet.add("b")
    found = chosen(fleet, ["memory:a", "memory:id-a", "memory:b"])
    assert [member.written for member in found] == ["memory:a", "memory:b"]
    assert counted.listings == 0
    found = chosen(fleet, ["memory:nope", "memory:a", "memory@gone:a", "memory@gone:id-a"])
    assert [member.written for member in found] == [
        *("memory:nope", "memory:a", "memory@gone:a", "memory@gone:id-a"),
    ]
    assert all(member.error is None for member in found)  # each says itself what is wrong when it is its turn


def refused(
    fleet: MemoryFleet, names: Sequence[str], told: Sequence[str], groups: Mapping[str, tuple[str, ...]]
) -> str:
    """Which entry is refused, and what is said of it; groups: where only some of these are meant."""
    file = FleetFile(groups, {name: {"node": "n"} for name in told})
    endpoints = Endpoints(lambda place: {"path": str(fleet.folder / "no" if place.profile else fleet.path)})
    selection = Selection(endpoints, file)
    members = selection.of(names)
    try:
        selection.refuse_idle(members, some=bool(groups))
    except SettingsError as error:
        return f"{error.message}; {error.evidence}"
    finally:
        endpoints.close()
    return ""


def test_what_the_file_tells_of_nobody_is_refused(fleet: MemoryFleet) -> None:
    fleet.add("a")
    fleet.add("b")
    names = ["memory: name=a", "memory@gone: *", "memory: name=c"]
    told = ("memory: name=a", "memory:a", "memory:id-a", "memory@gone:b", "memory: name=c")
    assert not refused(fleet, names, told, {})
    for idle, seen in (
        ("memory:zzz", "0 VMs are called 'zzz'"),
        ("memory:b", "memory:a"),
        ("memory@lab:a", "memory:a"),
        ("memory: tag=x", "no VM is meant"),
        ("memory: nope=x", "does not tell"),
    ):
        said = refused(fleet, names, [*told, idle], {})
        assert f'[targets."{idle}"] of the fleet file is no target of this run' in said
        assert seen in said


def test_of_some_groups_what_may_be_of_another_is_let_be(fleet: MemoryFleet) -> None:
    fleet.add("a")
    fleet.add("b")
    groups = {"these": ("memory:a",), "those": ("memory: tag=x", "memory:nope")}
    told = ["memory:b", "memory@lab:c", "memory@gone:c", "memory: tag=x", "memory:nope"]
    assert not refused(fleet, ["memory:a"], told, groups)
    assert "zzz" in refused(fleet, ["memory:a"], [*told, "memory:zzz"], groups)


def test_an_entry_that_names_two_vms_is_refused(fleet: MemoryFleet) -> None:
    fleet.add("a")
    fleet.add("b")
    fleet.path.write_text(fleet.path.read_text().replace('"name": "b"', '"name": "a"'))
    for groups in ({}, {"these": ("memory: *",)}):
        assert "2 VMs are called 'a'" in refused(fleet, ["memory: *"], ["memory:a"], groups)


def test_an_entry_counts_for_its_vm_by_whatever_name_it_is_in_the_run(
    fleet: MemoryFleet, counted: type[Counted]
) -> None:
    for name in "abc":
        fleet.add(name, tags=["w"])
    entries = {"memory: tag=w": {"ssh": "w@{name}", "node": "n-{name}"}, "memory:a": {"node": "own"}}
    file = FleetFile(details=entries)
    a, b, _c = chosen(fleet, ["memory: name=*"], file)  # memory:id-a, memory:id-b, ...
    assert [(m.written, m.ssh, m.node) for m in (a, b)] == [
        ("memory:id-a", "w@a", "own"),
        ("memory:id-b", "w@b", "n-b"),
    ]
    Counted.listings = 0
    [a] = chosen(fleet, ["memory:id-a"], FleetFile(details={"memory:a": {"node": "own"}}))
    assert (a.node, Counted.listings) == ("own", 0)
    [a] = chosen(fleet, ["memory@gone:id-a"], file)
    assert a.node is None  # who has no profile is elsewhere


def test_a_listing_that_only_the_file_needs_fails_no_target(
    fleet: MemoryFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(self: memory.MemoryBackend) -> Iterator[Any]:
        raise ConnectionFailed("not now")

    fleet.add("a")
    monkeypatch.setattr(memory.MemoryBackend, "listed", refuses)
    [a] = chosen(fleet, ["memory:id-a"], FleetFile(details={"memory: tag=w": {}, "memory:a": {"node": "n"}}))
    assert a.error is None
    assert a.node == "n"
    [row] = chosen(fleet, ["memory: *"])
    assert isinstance(row.error, ConnectionFailed)


def test_an_ambiguous_name_is_left_to_the_backend_which_refuses_it(fleet: MemoryFleet) -> None:
    for number in range(FEW):
        fleet.add(f"vm-{number}")
    fleet.add("twin")
    text = fleet.path.read_text().replace("id-twin", "vm-0")
    fleet.path.write_text(text)  # an id that is another one's name
    found = chosen(fleet, ["memory:vm-0", "memory:vm-1", "memory:vm-2", "memory:twin"])
    assert found[0].vm is None
    assert found[1].vm is not None


def test_what_cannot_be_reached_is_one_row_for_each_name(fleet: MemoryFleet) -> None:
    fleet.add("a")
    found = chosen(fleet, ["memory@gone: *", "memory@broken:b", "memory: *"])
    assert isinstance(found[0].error, ConnectionFailed)
    assert isinstance(found[1].error, SettingsError)
    assert found[2].error is None


def test_a_connection_that_failed_is_not_tried_again(fleet: MemoryFleet, counted: type[Counted]) -> None:
    names = ["memory@gone: name=a", "memory@gone: name=b", *(f"memory@gone:{n}" for n in "cdef")]
    assert all(isinstance(member.error, ConnectionFailed) for member in chosen(fleet, names))
    assert counted.connections == 1


def test_the_file_tells_of_targets_and_of_all_that_a_pattern_means(fleet: MemoryFleet) -> None:
    fleet.add("a")
    fleet.add("b")
    told = {"memory: *": {"ssh": "admin@{name}", "node": "k8s-{name}"}, "memory:id-b": {"node": "special"}}
    a, b = chosen(fleet, ["memory: *"], FleetFile(details=told))
    assert (a.ssh, a.node) == ("admin@a", "k8s-a")
    assert (b.ssh, b.node) == ("admin@b", "special")


def test_where_a_pattern_cannot_be_resolved_it_keeps_what_the_file_tells_of_all_that_it_may_mean(
    fleet: MemoryFleet,
) -> None:
    told = {name: {"node": f"{{name}} of {name}"} for name in ("memory@gone: *", "memory@gone:b", "memory:a")}
    endpoints = Endpoints(lambda place: {"path": str(fleet.folder / "no" if place.profile else fleet.path)})
    fleet.add("a")
    gone, here = Selection(endpoints, FleetFile(details=told)).of(["memory@gone: *", "memory:a"])
    endpoints.close()
    assert gone.told == {name: told[name] for name in ("memory@gone: *", "memory@gone:b")}
    assert here.told == {}


def test_of_many_names_and_tables_none_is_compared_with_all_others(
    fleet: MemoryFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run over ten thousand that is gone on with has as many tables as targets."""
    written: list[Target] = []
    as_text = Target.__str__

    def text(target: Target) -> str:
        written.append(target)
        return as_text(target)

    monkeypatch.setattr(Target, "__str__", text)
    names = [f"vm-{number}" for number in range(100)]
    vms = {f"id-{name}": {"name": name, "power": "running"} for name in names}
    fleet.path.write_text(json.dumps(vms))
    file = FleetFile(details={f"memory:id-{name}": {"node": name} for name in names})
    found = chosen(fleet, [f"memory:{name}" for name in names], file)
    assert [member.node for member in found] == names
    assert len(written) < 20 * len(names)


def test_a_target_as_such_is_no_pattern(fleet: MemoryFleet, tmp_path: Path) -> None:
    [member] = chosen(fleet, [Target("memory", "name=a")])
    assert member.target == Target("memory", "name=a")
    assert member.error is None


def test_a_file_or_folder_is_named_as_it_holds_anywhere(
    fleet: MemoryFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = chosen(fleet, ["vmx:web/web.vmx", "vagrant:project#db", "vmx:./web/web.vmx"])
    assert [member.written for member in found] == [
        f"vmx:{tmp_path}/web/web.vmx",
        f"vagrant:{tmp_path}/project#db",
    ]


def test_what_has_a_connection_of_its_own_is_a_place_of_its_own() -> None:
    one, two = (Place.of(Target("host", name)) for name in ("ssh://root@a", "ssh://root@b"))
    assert one != two
    assert Place.of(Target("libvirt", "a")) == Place.of(Target("libvirt", "b"))
    assert str(Place.of(Target("libvirt", "a", "lab"))) == "libvirt@lab"


def test_tables_of_many_whose_hypervisor_is_down_are_not_searched_for_each(
    fleet: MemoryFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {f"memory@gone:{number}": {"ssh": f"{number}.lab"} for number in range(100)}
    spelled: list[Target] = []
    spell = Target.__str__
    monkeypatch.setattr(Target, "__str__", lambda target: spelled.append(target) or spell(target))  # type: ignore[func-returns-value]
    members = chosen(fleet, list(told), FleetFile(details=told))
    assert [member.told for member in members] == [{name: table} for name, table in told.items()]
    assert all(member.error is not None for member in members)
    assert len(spelled) < 20 * len(told)
