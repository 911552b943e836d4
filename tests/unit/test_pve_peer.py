"""The Proxmox peer answers as PVE 9.2 was seen to: status, reason phrase, and the fields that matter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.peers.pve import NODE_USER
from tests.peers.pve_cpu import PVE_8, Host
from tests.peers.pve_server import Served, serve
from tests.peers.pve_vm import PveVm

CONFIG = "/nodes/pve1/qemu/101/config"
SUBSET = (
    "invalid format - VM-specific CPU flags must be a subset of: aes, amd-no-ssb, amd-ssbd, hv-evmcs, "
    "hv-tlbflush, ibpb, md-clear, nested-virt, pcid, pdpe1gb, spec-ctrl, ssbd, virt-ssbd\n"
)
FAILED = "Parameter verification failed."
Answer = tuple[int, str, Any]


class Pve:
    """The peer with two VMs, as it was recorded: 100 runs with its agent, 101 is off and has none."""

    def __init__(self, served: Served) -> None:
        self.pve = served.pve
        self._served = served
        self.token = f"{NODE_USER}={served.pve.node_secret}"
        self.up: PveVm = self.pve.add("t100", running=True, cpu="x86-64-v2-AES")
        self.off: PveVm = self.pve.add("t101", cpu="EPYC", agent="0")

    def ask(self, words: str, token: str = "", **values: Any) -> Answer:
        """Send ``METHOD /path``; return status, reason and body."""
        method, path = words.split()
        query, form = (values, None) if method == "GET" else (None, values)
        headers = {"Authorization": f"PVEAPIToken={token or self.token}"}
        url = f"{self._served.url}/api2/json{path}"
        answer = requests.request(
            method, url, headers=headers, verify=self._served.ca_file, timeout=10, params=query, data=form
        )
        return answer.status_code, answer.reason, answer.json() if answer.text else ""

    def data(self, words: str, **values: Any) -> Any:
        """What a request that succeeds has for an answer."""
        status, reason, body = self.ask(words, **values)
        assert (status, reason) == (200, "OK")
        return body["data"]

    def end(self, words: str, **values: Any) -> tuple[str, list[str]]:
        """How a task ends, and its log."""
        upid = self.data(words, **values)
        where = f"/nodes/pve1/tasks/{upid}"
        status = self.data(f"GET {where}/status")
        assert status["status"] == "stopped"
        return status["exitstatus"], [line["t"] for line in self.data(f"GET {where}/log")]


@pytest.fixture
def pve() -> Iterator[Pve]:
    with serve() as served:
        yield Pve(served)


@pytest.mark.parametrize(
    ("values", "answer"),
    [
        *[
            ({"cpu": cpu}, (200, "OK", None))
            for cpu in (
                "x86-64-v2-AES",
                "host",
                "host,flags=+pcid;-pdpe1gb",
                "host,hidden=1",
                "EPYC,flags=+nested-virt",
                "x86-64-v3,flags=+nested-virt",
                "kvm64",
            )
        ],
        ({"cpu": "host,flags=+vmx"}, (400, FAILED, {"cpu": SUBSET})),
        ({"cpu": "host,flags=+svm"}, (400, FAILED, {"cpu": SUBSET})),
        *[
            (
                {"cpu": cpu},
                (
                    400,
                    FAILED,
                    {
                        "cpu": f"invalid format - Built-in cputype '{cpu}' is not defined "
                        "(missing 'custom-' prefix?)\n"
                    },
                ),
            )
            for cpu in ("foo", "HOST")
        ],
        (
            {"cpu": "custom-nope"},
            (400, FAILED, {"cpu": "invalid format - Custom cputype 'nope' not found\n"}),
        ),
        ({}, (500, "no options specified", None)),
        ({"cpu": "host", "digest": "0" * 40}, (500, "checksum mismatch (file change by other user?)", None)),
        ({"delete": "cpu"}, (200, "OK", None)),
        (
            {"nonsense": "1"},
            (
                400,
                FAILED,
                {
                    "nonsense": "property is not defined in schema and the schema does not allow "
                    "additional properties"
                },
            ),
        ),
    ],
)
def test_write(pve: Pve, values: dict[str, str], answer: Answer) -> None:
    status, reason, body = pve.ask(f"PUT {CONFIG}", **values)
    assert (status, reason, body.get("errors")) == answer
    assert status == 200 or body["message"] == f"{reason}\n"


def test_locked(pve: Pve) -> None:
    pve.off.set_lock("backup")
    assert pve.ask(f"PUT {CONFIG}", cpu="host")[:2] == (500, "VM is locked (backup)")
    assert pve.end("POST /nodes/pve1/qemu/101/status/start")[0] == "VM is locked (backup)"
    assert pve.data("GET /nodes/pve1/qemu/101/status/current")["lock"] == "backup"
    token = pve.pve.add_token("root@pam!test")
    status, _, body = pve.ask(f"PUT {CONFIG}", token, cpu="host", skiplock=1)
    assert (status, body["errors"]) == (400, {"skiplock": "Only root may use this option."})


def test_pending_and_revert(pve: Pve) -> None:
    config = "/nodes/pve1/qemu/100/config"
    digest = pve.data(f"GET {config}")["digest"]
    pve.data(f"PUT {config}", cpu="x86-64-v2-AES")
    assert pve.data(f"GET {config}")["digest"] == digest
    pve.data(f"PUT {config}", cpu="host", digest=digest)
    rows = {row["key"]: row for row in pve.data("GET /nodes/pve1/qemu/100/pending")}
    assert rows["cpu"] == {"key": "cpu", "value": "x86-64-v2-AES", "pending": "host"}
    merged, live = pve.data(f"GET {config}"), pve.data(f"GET {config}", current=1)
    assert (merged["cpu"], live["cpu"]) == ("host", "x86-64-v2-AES")
    assert rows["digest"]["value"] == merged["digest"] == live["digest"] != digest
    pve.data(f"PUT {config}", delete="cpu")
    rows = {row["key"]: row for row in pve.data("GET /nodes/pve1/qemu/100/pending")}
    assert rows["cpu"] == {"key": "cpu", "value": "x86-64-v2-AES", "delete": 1}
    pve.data(f"PUT {config}", revert="cpu")
    assert pve.data(f"GET {config}")["digest"] == digest


def test_power(pve: Pve) -> None:
    status = pve.data("GET /nodes/pve1/qemu/100/status/current")
    assert (status["status"], status["qmpstatus"], status["ha"]) == ("running", "running", {"managed": 0})
    off = pve.data("GET /nodes/pve1/qemu/101/status/current")
    assert off["status"] == "stopped"
    assert not off.keys() & {"pid", "lock", "agent", "template"}
    started = "POST /nodes/pve1/qemu/100/status/start"
    assert pve.end(started) == ("VM 100 already running", ["TASK ERROR: VM 100 already running"])
    assert pve.end("POST /nodes/pve1/qemu/101/status/stop") == ("OK", ["TASK OK"])
    assert pve.ask("POST /nodes/pve1/qemu/101/status/reboot")[:2] == (500, "VM 101 not running")
    pve.up.change({"cpu": "host"})
    assert pve.end("POST /nodes/pve1/qemu/100/status/shutdown", timeout=30)[0] == "OK"
    assert (pve.up.config["cpu"], pve.up.pending) == ("host", {})
    assert pve.end(started) == ("OK", ["TASK OK"])
    assert pve.data("GET /nodes/pve1/qemu/100/status/current")["pid"] != status["pid"]
    pve.up.acpi = False
    end = pve.end("POST /nodes/pve1/qemu/100/status/shutdown", timeout=30)
    assert end[0] == "VM quit/powerdown failed - got timeout"


def test_template(pve: Pve) -> None:
    pve.pve.add("t103", vmid=103, template=1, cpu="host")
    pve.data("PUT /nodes/pve1/qemu/103/config", delete="cpu")
    why = "you can't start a vm if it's a template"
    assert pve.end("POST /nodes/pve1/qemu/103/status/start") == (why, [f"TASK ERROR: {why}"])


@pytest.mark.parametrize(
    ("cpu", "host", "end", "inside"),
    [
        ("host", Host(nested=False), ("OK", []), "no-flag"),
        (
            "EPYC,flags=+nested-virt",
            Host(nested=False),
            (
                "start failed: QEMU exited with code 1",
                [
                    "CPU flag 'nested-virt' resolved to 'svm'",
                    "kvm: warning: host doesn't support requested feature: CPUID.80000001H:ECX.svm [bit 2]",
                    "kvm: Host doesn't support requested features",
                ],
            ),
            "no-flag",
        ),
        ("host", Host(), ("OK", []), "works"),
        (
            "x86-64-v3,flags=+nested-virt",
            Host(),
            ("OK", ["CPU flag 'nested-virt' resolved to 'svm'"]),
            "broken",
        ),
        ("EPYC", Host(), ("OK", []), "no-flag"),
    ],
)
def test_start(pve: Pve, cpu: str, host: Host, end: tuple[str, list[str]], inside: str) -> None:
    pve.off.host = host
    pve.off.change({"cpu": cpu})
    status, log = pve.end("POST /nodes/pve1/qemu/101/status/start")
    assert (status, log[:-1]) == end
    assert pve.off.inside == inside
    assert log[-1] == ("TASK OK" if status == "OK" else f"TASK ERROR: {status}")


def test_nested_virt_on_a_node_that_has_neither_flag(pve: Pve) -> None:
    pve.off.host = Host(virt=False)
    pve.off.change({"cpu": "EPYC,flags=+nested-virt"})
    status, log = pve.end("POST /nodes/pve1/qemu/101/status/start")
    assert (status, pve.off.inside) == ("WARNINGS: 1", "no-flag")
    assert [line.startswith("WARN: ") for line in log] == [True, False]


AGENT_100, AGENT_101 = "/nodes/pve1/qemu/100/agent", "/nodes/pve1/qemu/101/agent"
OPEN = "Agent error: failed to open file '{}' (mode: 'r'): No such file or directory"


@pytest.mark.parametrize(
    ("words", "values", "answer"),
    [
        (f"POST {AGENT_100}/ping", {}, (200, "OK", {"result": {}})),
        (f"POST {AGENT_101}/ping", {}, (500, "VM 101 is not running", None)),
        (f"GET {AGENT_100}/file-read", {"file": "/dev/kvm"}, (500, OPEN.format("/dev/kvm"), None)),
        (f"GET {AGENT_100}/file-read", {"file": "/nope"}, (500, OPEN.format("/nope"), None)),
        (f"POST {AGENT_100}/exec", {"command": ["/no/such/binary"]}, (596, "Broken pipe", None)),
        (f"GET {AGENT_100}/exec-status", {"pid": 99999}, (500, "Agent error: Invalid parameter 'pid'", None)),
    ],
)
def test_agent(pve: Pve, words: str, values: dict[str, Any], answer: Answer) -> None:
    status, reason, body = pve.ask(words, **values)
    assert (status, reason) == answer[:2]
    assert (body or {"data": None})["data"] == answer[2]


def test_agent_runs_programs(pve: Pve) -> None:
    script = ["/bin/sh", "-c", "echo out; echo err >&2; exit 3"]
    pid = pve.data(f"POST {AGENT_100}/exec", command=script)["pid"]
    ended = pve.data(f"GET {AGENT_100}/exec-status", pid=pid)
    assert (ended["exited"], ended["exitcode"], ended["out-data"], ended["err-data"]) == (
        1,
        3,
        "out\n",
        "err\n",
    )
    assert pve.ask(f"GET {AGENT_100}/exec-status", pid=pid)[0] == 500
    pid = pve.data(f"POST {AGENT_100}/exec", command="/bin/cat", **{"input-data": "hello"})["pid"]
    assert pve.data(f"GET {AGENT_100}/exec-status", pid=pid)["out-data"] == "hello"


def test_agent_that_is_absent(pve: Pve) -> None:
    pve.up.system.agent = False
    assert pve.ask(f"POST {AGENT_100}/ping")[:2] == (500, "QEMU guest agent is not running")
    pve.off.power_on()
    assert pve.ask(f"POST {AGENT_101}/ping")[:2] == (500, "No QEMU guest agent configured")


def test_rights(pve: Pve) -> None:
    role = ("VM.Audit", "VM.Config.CPU", "VM.GuestAgent.Audit", "VM.PowerMgmt", "VM.GuestAgent.FileRead")
    alice = pve.pve.add_token("alice@pve!priv", *role, path="/vms/100")
    rows = pve.ask("GET /cluster/resources", alice, type="vm")[2]["data"]
    assert [row["vmid"] for row in rows] == [100]
    held = pve.ask("GET /access/permissions", alice, path="/vms/100")[2]["data"]
    assert held == {"/vms/100": dict.fromkeys(role, 1)}
    for words, path, privilege in (
        ("GET /nodes/pve1/qemu/101/config", "/vms/101", "VM.Audit"),
        ("GET /nodes/pve1/status", "/nodes/pve1", "Sys.Audit"),
    ):
        assert pve.ask(words, alice)[:2] == (403, f"Permission check failed ({path}, {privilege})")
    status, reason, _ = pve.ask(f"POST {AGENT_100}/exec", alice, command=["/bin/true"])
    assert (status, reason) == (403, "Permission check failed (/vms/100, VM.GuestAgent.Unrestricted)")
    for token in ("alice@pve!priv=wrong", "nonsense"):
        assert pve.ask("GET /version", token) == (401, "Authentication failed!", "")


def test_places(pve: Pve) -> None:
    missing = "Configuration file 'nodes/pve1/qemu-server/999.conf' does not exist"
    assert pve.ask("GET /nodes/pve1/qemu/999/config")[:2] == (500, missing)
    status, reason, _ = pve.ask("GET /nodes/nope/qemu/100/config")
    assert (status, reason[:26]) == (500, "hostname lookup 'nope' fai")


def test_older_ones_have_errors_in_the_reason_phrase_alone() -> None:
    with serve(PVE_8) as served:
        pve = Pve(served)
        assert pve.ask(f"PUT {CONFIG}") == (500, "no options specified", {"data": None})
        assert pve.ask("GET /nodes/pve1/capabilities/qemu/cpu-flags")[0] == 501
        served.pve.add_token("ops@pve!old", "VM.Monitor")
        token = f"ops@pve!old={served.pve.apitokens['ops@pve!old']}"
        assert pve.ask(f"POST {AGENT_100}/ping", token)[0] == 200


def test_requests_that_pve_does_not_know_are_noted(pve: Pve) -> None:
    pve.ask("GET /nodes/pve1/nothing")
    pve.ask(f"PUT {CONFIG}", nonsense=1)
    pve.ask("GET /nodes/pve1/qemu/101/agent/file-read")
    assert len(pve.pve.traffic.violations) == 3
    assert pve.pve.traffic.count("PUT", "/config") == 1
