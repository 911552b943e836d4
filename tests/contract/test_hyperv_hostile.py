"""Names of VMs that are programs, and answers that are lies: nothing injected, nothing crashed."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from nestvirt import engine, report
from nestvirt.backends import connect
from nestvirt.backends.base import Backend
from nestvirt.backends.hyperv.reading import facts_of
from nestvirt.engine import Session
from nestvirt.errors import Error, TargetError
from nestvirt.journal import Journal
from nestvirt.model import Goal, Target
from tests.contract.basis import MANNER, OFF, ON
from tests.peers.hyperv_guest import LinuxGuest
from tests.peers.hyperv_rig import HyperVLab, HyperVRig
from tests.peers.winrm.command import Invocation, Result
from tests.peers.winrm.pki import Certificates
from tests.peers.winrm.server import Endpoint
from tests.unit.backends.hyperv_situations import answer

PROGRAM = "Remove-VM *"
NAMES = [
    f'"; {PROGRAM}; #',
    f"'; {PROGRAM}; #",
    f"$({PROGRAM})",
    f"`$({PROGRAM})",
    f"@({PROGRAM})",
    f"&{{{PROGRAM}}}",
    f"| {PROGRAM}",
    f"\n{PROGRAM}\n",
    f"\r\n{PROGRAM}",
    f"`n{PROGRAM}",
    f"'@\n{PROGRAM}\n@'",
    f'"@\n{PROGRAM}\n@"',
    f"<# {PROGRAM} #>",
    f"#> {PROGRAM} <#",
    f"{PROGRAM} -Force -Confirm:$false",
    f"'+({PROGRAM})+'",
    f"\u2019; {PROGRAM}; \u2018",
    f"\u201d; {PROGRAM}; \u201c",
    f"\u201a{PROGRAM}\u201b",
    f"; iex '{PROGRAM}'",
    "$env:COMPUTERNAME",
    "$data",
    "$data.id",
    "$nestvirtData",
    "$null",
    "$true",
    "$_",
    "${name}",
    "$PSItem",
    "$(exit 1)",
    "exit",
    "throw 'x'",
    "return",
    "`",
    "``",
    "'",
    "''",
    '"',
    '""',
    '\\"',
    "\\",
    "\\\\",
    "--%",
    "-Name",
    "-Name *",
    "-WhatIf",
    "-Confirm:$false",
    "/?",
    "-?",
    "*",
    "?",
    "**",
    "[a-z]",
    "[",
    "]",
    "[]",
    "[*]",
    "`*",
    "~",
    ".",
    "..",
    "../../etc/passwd",
    "C:\\Windows\\System32",
    "\\\\server\\share",
    "%PATH%",
    "%COMSPEC% /c calc",
    "&calc",
    "&&calc",
    "||calc",
    "calc&",
    "^&calc",
    "<nul",
    ">out.txt",
    "2>&1",
    "!x!",
    "{0}",
    "{0:N}",
    "{{}}",
    "%s%n",
    "<a>&amp;</a>",
    "<![CDATA[x]]>",
    "]]>",
    "<!ENTITY x 'y'>",
    "_x000D__x000A_",
    "#< CLIXML",
    "NESTVIRT:e30=",
    "/Date(0)/",
    "2026-11-29T11:00:00Z",
    "0",
    "-1",
    "1e309",
    "NaN",
    "null",
    "true",
    "[]{}",
    '{"ok": 1}',
    "00000000-0000-0000-0000-000000000000",
    "11111111-2222-3333-4444-555555555555@HYPERV01",
    "caf\u00e9",
    "cafe\u0301",
    "\u0130stanbul",
    "stra\u00dfe",
    "\u540d\u524d",
    "\U0001f600",
    "\u202egnirts",
    "a\u200bb",
    "\ufeffbom",
    "\x1b[31mred\x1b[0m",
    "\x07bell",
    "tab\there",
    "a\x7fb",
    " leading",
    "trailing ",
    "two  blanks",
    "x" * 100,
    "\u0646\u0638\u0627\u0645",
]


def session(rig: HyperVRig, backend: Backend, journal: Journal, name: str) -> Session:
    target = Target("hyperv", name)
    return Session(
        backend, target, backend.find(name), journal, "--hyperv NAME", ssh=LinuxGuest(rig, name), timeout=5
    )


@pytest.fixture
def opened(hyperv: HyperVRig) -> Iterator[Backend]:
    backend = connect(Target("hyperv", "any"), hyperv.endpoint)
    yield backend
    backend.close()


def test_there_are_a_hundred() -> None:
    assert len(set(NAMES)) == len(NAMES) >= 100


@pytest.mark.parametrize("part", range(6))
def test_a_vm_of_any_name_is_just_a_vm(
    hyperv: HyperVRig, opened: Backend, journal: Journal, part: int
) -> None:
    """Each is found by its name, enabled, disabled, and nothing else on the host was touched."""
    names = NAMES[part::6]
    for name in names:
        hyperv.make(name=name, running=False)
    bystander = hyperv.make(name="bystander")
    before = {name: hyperv.see(name) for name in (*names, bystander)}
    for name in names:
        hyperv.host.log.clear()
        now = session(hyperv, opened, journal, name)
        result = engine.reach(now, ON, MANNER)
        assert hyperv.host.log == [f"Set-VMProcessor {name}"]
        assert [n for n in before if hyperv.see(n) != before[n]] == [name]
        assert str(report.to_text(result)).replace("\n", "").isprintable()
        json.loads(report.to_json(result))
        engine.reach(now, OFF, MANNER)
        assert hyperv.see(name) == before[name]


def test_no_name_is_part_of_a_script(hyperv: HyperVRig, opened: Backend) -> None:
    """What is sent differs in one line alone, which is base64."""
    bodies: set[str] = set()
    for name in NAMES[:20]:
        with pytest.raises(TargetError):
            opened.find(name)
        last = hyperv.lab.endpoint.invocations[-1]
        script = base64.b64decode(last.arguments[-1]).decode("utf-16-le")
        data, _, body = script.partition("\n")
        assert data.startswith("$nestvirtData = '")
        assert json.loads(base64.b64decode(data.split("'")[1]))["name"] == f"={name}"
        bodies.add(body)
    assert len(bodies) == 1


# --- answers


def wrapped(text: str) -> bytes:
    return b"NESTVIRT:" + base64.b64encode(text.encode()) + b"\r\n"


ONE = {"count": 1, "facts": answer(), "total": 1, "host": "HV01", "cluster": "", "listed": [], "roles": []}
OUTPUTS: list[bytes] = [
    b"",
    b"\n" * 10000,
    b"\x00" * 1000,
    b"\xff\xfe\xff",
    b"NESTVIRT:",
    b"NESTVIRT:\x00",
    b"NESTVIRT:!!!!",
    b"NESTVIRT:e30=",
    b"NESTVIRT:e30",
    b"NESTVIRT:bm8ganNvbg==",
    b"NESTVIRT:" + b"A" * 100000,
    b"NESTVIRT:" + base64.b64encode(b"\xff\xff"),
    b"nestvirt:e30=",
    b"#< CLIXML\r\n<Objs/>",
    b"The term 'Get-VM' is not recognized",
    wrapped("null"),
    wrapped("[]"),
    wrapped("7"),
    wrapped('"text"'),
    wrapped("{"),
    wrapped("[" * 100000),
    wrapped('{"ok": ' * 5000),
    wrapped('{"ok": null}'),
    wrapped('{"ok": []}'),
    wrapped('{"ok": "text"}'),
    wrapped('{"ok": {}}'),
    wrapped('{"ok": {"count": 1e400}}'),
    wrapped('{"ok": {"count": NaN}}'),
    wrapped('{"ok": {"count": ' + "9" * 5000 + "}}"),
    wrapped('{"ok": {"count": -1}}'),
    wrapped('{"ok": {"count": 1, "facts": null}}'),
    wrapped('{"ok": {"count": 0}}'),
    wrapped('{"ok": {"count": 2, "listed": [1, 2]}}'),
    wrapped(json.dumps({"ok": ONE | {"facts": answer(id="../../x")}})),
    wrapped(json.dumps({"ok": ONE | {"facts": answer(settings={"a": "b" * 10000})}})),
    wrapped(json.dumps({"ok": ONE | {"count": 0, "listed": [{"name": "\x1b]0;x\x07"}]}})),
    wrapped('{"error": null}'),
    wrapped('{"error": {}}'),
    wrapped('{"error": []}'),
    wrapped('{"error": {"id": 7, "category": [], "type": {}, "message": null, "hresult": "x"}}'),
    wrapped(json.dumps({"error": {"id": "x\x1b[2J" * 9999, "category": "\n", "message": "\x00" * 9999}})),
    wrapped('{"ok": {}, "error": {}}'),
]


@pytest.mark.parametrize("number", range(len(OUTPUTS)))
def test_output_that_is_no_answer_is_an_error_and_no_crash(certificates: Certificates, number: int) -> None:
    def program(_invocation: Invocation) -> Result:
        return Result(OUTPUTS[number], b"#< CLIXML\r\n<S>\x1b[31m</S>", 0)

    with Endpoint(program, certificates) as host:
        url = host.https_url.removesuffix("/wsman")
        endpoint = {
            "endpoint": url,
            "ca_file": str(certificates.ca_file),
            "username": host.user,
            "password": host.password,
        }
        backend = connect(Target("hyperv", "any"), endpoint)
        with pytest.raises(Error) as caught:
            backend.find("web-01")
        backend.close()
    said = f"{caught.value.message}{caught.value.evidence}{caught.value.cure}"
    assert said.isprintable()
    assert len(said) < 4000
    assert host.password not in said


LIES: list[Any] = [
    None,
    True,
    -1,
    0,
    1 << 70,
    1.5,
    "",
    "true",
    "Off",
    "x" * 10000,
    "\x1b[31m\u202e\x00",
    "9" * 400 + ".0",
    "٣.٣",
    [],
    ["a"],
    [[]],
    [None],
    [{}],
    [{"id": "x", "name": "\n", "spoofing": "On", "enabled": True, "status": "?"}] * 3,
    {},
    {"a": {}},
    {"SavedState": "saved", "ExposeVirtualizationExtensions": "maybe", "Version": ""},
]
PLACES = [(name,) for name in answer()] + [("host", name) for name in answer()["host"]]
GOALS = (Goal(), OFF, Goal(discard_saved_state=True, mac_spoofing=True, upgrade_version=True))


def said_of(told: dict[str, Any]) -> Iterator[str]:
    """All that such an answer makes nestvirt say."""
    try:
        facts = facts_of(told, "Administrator")
    except Error as error:
        yield error.evidence
        return
    for goal in GOALS:
        for finding in facts.judge(goal):
            yield finding.evidence
            yield finding.cure


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_lie_in_any_place_is_refused_or_judged_and_no_crash(place: tuple[str, ...]) -> None:
    for lie in LIES:
        told = answer()
        inner = told["host"] = dict(told["host"])
        (inner if len(place) == 2 else told)[place[-1]] = lie
        for said in said_of(told):
            assert said.isprintable()
            assert len(said) < 2000


@pytest.mark.parametrize(
    "item",
    [
        "<INSTANCE",
        "<PROPERTY NAME='OSName'>" * 10000,
        '<PROPERTY NAME="Name"><VALUE>OSName</VALUE><PROPERTY NAME="Data"><VALUE>\x1b[2J&#27;[31m</VALUE>',
        '<PROPERTY NAME="Name"><VALUE>OSName</VALUE><PROPERTY NAME="Data"><VALUE>'
        + "A" * 100000
        + "</VALUE>",
        7,
        None,
        {},
    ],
    ids=lambda item: str(item)[:40],
)
def test_guest_that_lies_about_its_system_is_harmless(item: Any) -> None:
    for finding in facts_of(answer(state="Running", kvp=[item] * 40), "").judge(ON):
        assert finding.evidence.isprintable()


def test_lab_understands_all_that_is_sent(hyperv_lab: HyperVLab) -> None:
    """What it does not understand would be told here: it is no silent witness."""
    result = hyperv_lab(Invocation("powershell.exe", ("-NoProfile", "-Surprise"), b"", user=""))
    assert result.code != 0
    assert hyperv_lab.wrongs()
    hyperv_lab.shell.unknown.clear()
