"""The list of VMs: every form of it, whatever a hypervisor has called them."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any, get_args
from xml.etree import ElementTree

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestvirt import report_list
from nestvirt.backends.base import Listed, Nesting
from nestvirt.cli.output import finish_list
from nestvirt.errors import AccessDenied, ConnectionFailed, Error, MissingExtra, TargetError
from nestvirt.model import Power, Vm
from nestvirt.report_list import Entry, Inventory
from tests.unit.fleets import DOWN, HOSTILE

SCHEMA = json.loads(
    (Path(__file__).parents[2] / "docs/reference/list.schema.json").read_text(encoding="utf-8")
)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
DRIFT = "set, and not in effect until a power cycle"


def entry(name: str, nesting: Nesting = "on", **fields: Any) -> Entry:
    listed = Listed(
        Vm(f"uuid-of-{name}", name), name, Power.RUNNING, nesting, {"tag": ("k8s", "prod"), "node": ("pve1",)}
    )
    return Entry(f"proxmox@lab:{name}", listed, **fields)


def hostile(said: str) -> Inventory:
    listed = Listed(Vm(said, said), said, Power.STOPPED, "unknown", {"tag": (said,)}, note=said)
    named = Entry(f"libvirt:{said}", listed, drift=said)
    return Inventory((named,), ((f"libvirt@{said}", ConnectionFailed(said, evidence=said, cure=said)),))


INVENTORY = Inventory(
    (
        entry("web-01", proven="2026-01-31T10:15:00+00:00"),
        entry("web-02", "pending", drift=DRIFT),
        entry("web-03", "off"),
        entry("web-04", "unknown"),
    ),
    (("vsphere@east", DOWN),),
)


def text_of(inventory: Inventory) -> list[str]:
    return [line for line, _ in report_list.to_lines(inventory)]


def test_every_state_is_counted_and_known() -> None:
    assert set(get_args(Nesting)) == set(report_list.STATES) == set(report_list.STYLES)
    assert INVENTORY.states == {"on": 1, "pending": 1, "off": 1, "unknown": 1}


@pytest.mark.parametrize("of", [INVENTORY, Inventory(()), hostile(HOSTILE)], ids=["all", "none", "hostile"])
def test_json_is_as_the_schema_says(of: Inventory) -> None:
    fields = json.loads(report_list.to_json(of))
    VALIDATOR.validate(fields)
    assert fields["summary"]["total"] == len(fields["vms"])
    lines = list(report_list.to_jsonl(of))
    assert len(lines) == len(of.entries) + len(of.errors) + 1
    for line in lines:
        assert "\n" not in line
        VALIDATOR.validate(json.loads(line))


def test_the_schema_refuses_what_is_wrong() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    whole = json.loads(report_list.to_json(INVENTORY))
    vm = whole["vms"][0]
    wrong = [{**whole, "vms": [{k: v for k, v in vm.items() if k != field}]} for field in vm]
    wrong += [{**whole, "vms": [vm | spoil]} for spoil in ({"nesting": "maybe"}, {"power": "on"}, {"x": 1})]
    wrong += [{k: v for k, v in whole.items() if k != field} for field in whole]
    assert not [fields for fields in wrong if VALIDATOR.is_valid(fields)]


def test_json_says_what_is_known_of_a_vm() -> None:
    assert json.loads(report_list.to_json(INVENTORY))["vms"][1] == {
        "target": "proxmox@lab:web-02",
        "id": "uuid-of-web-02",
        "name": "web-02",
        "power": "running",
        "nesting": "pending",
        "drift": DRIFT,
        "proven": None,
        "labels": {"tag": ["k8s", "prod"], "node": ["pve1"]},
        "note": "",
    }


def test_text_is_a_table_with_what_all_come_to() -> None:
    lines = text_of(INVENTORY)
    assert [line.split() for line in lines[:2]] == [
        ["TARGET", "POWER", "NESTING", "PROVEN", "NOTE"],
        ["proxmox@lab:web-01", "running", "on", "2026-01-31", "10:15"],
    ]
    assert DRIFT in lines[2]
    assert lines[6:] == [
        "4 VMs: 1 on; 1 set, but pending; 1 off; 1 unknown; 1 hypervisor could not be asked",
        "",
        "vsphere@east: vc1 does not answer",
        "  seen: connection refused",
        "  do this: start it",
    ]
    assert len({line.index("running") for line in lines[1:5]}) == 1


def test_a_wrong_question_is_no_hypervisor_that_could_not_be_asked() -> None:
    wrong = ("proxmox@lab", TargetError("no VM is meant by 'proxmox@lab: tag=nope'"))
    asked = Inventory((), (*INVENTORY.errors, wrong, wrong))
    assert report_list.sentence(asked) == "0 VMs: 1 hypervisor could not be asked; 2 errors"
    assert ">errors<" in report_list.to_html(asked, "now")


def test_a_vm_that_is_addressed_otherwise_has_its_name_in_the_note() -> None:
    listed = Listed(Vm("u", "web-01"), "100", Power.STOPPED, "off", {})
    assert "web-01" in text_of(Inventory((Entry("proxmox:100", listed),)))[1]


def test_where_there_is_nothing_it_says_so() -> None:
    assert text_of(Inventory(())) == ["0 VMs"]


@given(st.text(max_size=60) | st.just(HOSTILE))
def test_no_foreign_text_controls_the_terminal_or_the_page(said: str) -> None:
    text = "\n".join(text_of(hostile(said)))
    assert not [c for c in text if unicodedata.category(c).startswith("C") and c != "\n"]
    page = report_list.to_html(hostile(said), "now").partition("\n")[2]
    root = ElementTree.fromstring(page)  # noqa: S314 - our own
    assert len(list(root.iter("script"))) == 1


def test_the_page_has_a_row_for_each_and_the_errors() -> None:
    page = report_list.to_html(INVENTORY, "now")
    root = ElementTree.fromstring(page.partition("\n")[2])  # noqa: S314 - our own
    rows = [[" ".join("".join(c.itertext()).split()) for c in tr] for tr in root.iter("tr")]
    assert rows[2] == [
        *("proxmox@lab:web-02", "web-02", "running", "set, but pending", "never"),
        *("tag=k8s, prod; node=pve1", DRIFT),
    ]
    assert "vc1 does not answer" in "".join(root.itertext())


@pytest.mark.parametrize("output", ["text", "json", "jsonl", "html"])
@pytest.mark.parametrize(
    ("errors", "code"),
    [((), 0), ((DOWN,), 3), ((DOWN, AccessDenied("no")), 3), ((DOWN, MissingExtra("no libvirt")), 1)],
)
def test_the_exit_code(
    output: str, errors: tuple[Error, ...], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = Inventory(INVENTORY.entries, tuple((f"libvirt@p{n}", error) for n, error in enumerate(errors)))
    assert finish_list(listed, output) == code
    assert "web-01" in capsys.readouterr().out
