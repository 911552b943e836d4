"""The scripts' answers as facts: what fits is taken, what does not is an error, and nothing is assumed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nestvirt.backends.hyperv.finding import Wanted, one, place_of
from nestvirt.backends.hyperv.reading import facts_of
from nestvirt.backends.hyperv.situation import SHUTDOWN_SERVICE, Checkpoint, Group, Service
from nestvirt.errors import Error, TargetError
from tests.unit.backends.hyperv_situations import GUID, ROLE, answer, vm


def test_an_answer_is_read_in_full() -> None:
    facts = facts_of(answer(), "Administrator")
    assert (facts.id, facts.name, facts.state, facts.version_number) == (GUID, "web-01", "Off", (10, 0))
    assert (facts.host.build, facts.host.cpu_vendor, facts.host.vbs) == (20348, "GenuineIntel", False)
    assert facts.services == {SHUTDOWN_SERVICE: Service(True, "Ok")}
    assert [adapter.name for adapter in facts.adapters] == ["Network Adapter"]
    assert (facts.group, facts.system, facts.guest_user) == (None, None, "Administrator")
    assert facts.value("ExposeVirtualizationExtensions") == "false"


def test_what_this_user_may_not_know_is_not_known() -> None:
    host = {**answer()["host"], "hypervisor": None, "vbs": None, "version": None, "build": "?"}
    facts = facts_of(answer(host=host), "")
    assert (facts.host.hypervisor, facts.host.vbs, facts.host.version, facts.host.build) == (
        None,
        None,
        "",
        0,
    )


def test_a_cluster_and_a_guest_are_read() -> None:
    group = {"cluster": "HVC", "name": "web-01", "state": "Online"}
    item = (
        '<INSTANCE CLASSNAME="Msvm_KvpExchangeDataItem"><PROPERTY NAME="Data" TYPE="string"><VALUE>Debian'
        '</VALUE></PROPERTY><PROPERTY NAME="Name" TYPE="string"><VALUE>OSName</VALUE></PROPERTY></INSTANCE>'
    )
    facts = facts_of(answer(group=group, kvp=[item]), "")
    assert facts.group == ROLE
    assert facts.system is not None
    assert (facts.system.name, facts.system.windows) == ("Debian", False)


@pytest.mark.parametrize(
    "ill",
    [
        None,
        [],
        "text",
        {},
        answer(id="not-a-guid"),
        answer(id=GUID + "x"),
        answer(name=7),
        answer(generation="2"),
        answer(generation=True),
        answer(memory=-1),
        answer(memory=1 << 63),
        answer(memory=1.5),
        answer(host=[]),
        answer(host={"name": "HV01"}),
        answer(adapters={}),
        answer(adapters=[1]),
        answer(adapters=[{"id": "a", "name": "b"}]),
        answer(services=[{"id": "a", "enabled": "yes", "status": "Ok"}]),
        answer(checkpoints=["a"]),
        answer(checkpoints=[{"name": "a", "saved": "yes", "automatic": False}]),
        answer(checkpoints=[{"name": "a", "saved": True, "automatic": False}] * 1001),
        answer(demand=-1),
        answer(stop_action=3),
        answer(group=[]),
        answer(settings={"Version": 10}),
        answer(settings={"Version": "1\x1b[31m"}),
        answer(settings={"a b": "c"}),
        answer(settings={"Version": "9" * 201}),
        answer(settings={"ExposeVirtualizationExtensions": True}),
    ],
    ids=str,
)
def test_nonsense_is_an_error(ill: Any) -> None:
    with pytest.raises(Error) as caught:
        facts_of(ill, "")
    assert caught.value.evidence
    assert caught.value.cure
    assert caught.value.evidence.isprintable()


def test_texts_are_safe_to_show() -> None:
    checkpoint = {"name": "a\nb", "saved": True, "automatic": None}
    facts = facts_of(answer(name="web\x1b[2J\u202e01", checkpoints=[checkpoint]), "")
    assert facts.name == "web [2J 01"
    assert facts.checkpoints == (Checkpoint("a b", True, False),)


def test_memory_is_what_it_has_or_wants() -> None:
    facts = facts_of(answer(assigned=2 << 30, demand=3 << 30), "")
    assert (facts.used, facts.stop_action) == (3 << 30, "Save")


# --- which VM a name means


def found(*names: str, **more: Any) -> dict[str, Any]:
    """What find.ps1 says where it has found none, or several."""
    listed = [{"id": GUID, "name": name, "state": "Off"} for name in names]
    said: dict[str, Any] = {
        "count": 0,
        "facts": None,
        "total": len(names),
        "host": "HV01",
        "cluster": "",
        "roles": [],
    }
    return {**said, "listed": listed, **more}


@pytest.mark.parametrize(
    ("name", "id", "place"),
    [
        ("web-01", "", ""),
        (GUID, GUID, ""),
        (GUID.upper(), GUID, ""),
        (f"{{{GUID}}}", GUID, ""),
        (f"{GUID}@HV01", GUID, "HV01"),
        (f"x{GUID}", "", ""),
        ("web@HV01", "", ""),
        (f"{GUID}@", "", ""),
    ],
)
def test_a_name_may_be_an_id(name: str, id: str, place: str) -> None:  # noqa: A002
    wanted = Wanted.parse(name)
    assert (wanted.id, wanted.place) == (id, place)
    assert wanted.data == {"name": f"={name}", "id": id}


def test_none_tells_what_there_is() -> None:
    with pytest.raises(TargetError) as caught:
        one(Wanted("web-02"), found("web-01", "db-01", total=30))
    assert "web-02" in caught.value.message
    assert caught.value.evidence == "its VMs: db-01, web-01 and 28 more"
    with pytest.raises(TargetError, match="HV01") as caught:
        one(Wanted("web-02"), found())
    assert "Hyper-V Administrators" in caught.value.cure


def test_several_tell_their_ids() -> None:
    with pytest.raises(TargetError) as caught:
        one(Wanted("web-01"), found("web-01", "web-01", count=2))
    assert GUID in caught.value.evidence
    assert "id" in caught.value.cure


def test_one_of_another_node_names_it() -> None:
    roles = [{"name": "Web-01", "node": "HV02", "configuration": []}]
    with pytest.raises(TargetError) as caught:
        one(Wanted("web-01"), found("db-01", roles=roles))
    assert "HV02" in caught.value.cure


@pytest.mark.parametrize("ill", [None, {}, found(count="1"), found(count=1), found(listed=None)], ids=str)
def test_nonsense_about_names_is_an_error(ill: Any) -> None:
    with pytest.raises(Error) as caught:
        one(Wanted("web-01"), ill)
    assert not isinstance(caught.value, TargetError)


def test_an_identity_belongs_to_the_cluster_where_there_is_one() -> None:
    wanted, hidden = Wanted("web-01"), replace(ROLE, cluster="", name="")
    assert place_of(wanted, vm(), "HVC") == "HV01"
    assert place_of(wanted, vm(group=hidden), "HVC") == "HVC"
    assert place_of(wanted, vm(group=ROLE), "") == "HVC"
    assert place_of(wanted, vm(group=hidden), "") == "HV01"


@pytest.mark.parametrize(("group", "place"), [(None, "hvc"), (ROLE, "hv01"), (None, "HV01"), (ROLE, "HVC")])
def test_a_record_may_be_of_before_the_vm_was_a_clusters_or_after(group: Group | None, place: str) -> None:
    assert place_of(Wanted.parse(f"{GUID}@{place}"), vm(group=group), "HVC") == place.upper()


def test_a_vm_of_that_id_on_another_host_is_another() -> None:
    with pytest.raises(TargetError) as caught:
        place_of(Wanted.parse(f"{GUID}@HV02"), vm(group=ROLE), "HVC")
    assert "HV02" in caught.value.cure
    assert "HVC" in caught.value.evidence
