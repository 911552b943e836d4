"""The way into the guest: guest operations, run as real processes by the peer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nestvirt import engine
from nestvirt.backends.vsphere.guestops import GuestChannel
from nestvirt.errors import GuestUnreachable
from nestvirt.guest import probe
from nestvirt.guest.channel import NOT_FOUND, OUTPUT_LIMIT, Channel
from nestvirt.journal import Journal
from nestvirt.model import Finding, Status
from tests.contract.basis import ON
from tests.contract.runs import check, enable, found, session
from tests.lab import wait_for
from tests.peers.vsphere import VSphere
from tests.peers.vsphere_rig import VSphereRig


@pytest.fixture
def rig(vcenter: VSphere) -> VSphereRig:
    return VSphereRig(vcenter)


def channel(rig: VSphereRig, journal: Journal, name: str, **endpoint: str) -> Channel:
    """The way into a VM's guest, once its Tools run."""
    tools = ("guest", "ToolsRunningStatus")
    wait_for(lambda: rig.lab.see(name)[tools[0]][tools[1]] == "guestToolsRunning", 10, "Tools to run")
    now = session(rig, journal, name, endpoint={**rig.endpoint, **endpoint})
    found = now.backend.channel(now.vm)
    assert isinstance(found, GuestChannel)
    return found


def guest_finding(rig: VSphereRig, journal: Journal, name: str, **endpoint: str) -> Finding:
    """What a check of a VM that nests says of the way into its guest, where that is closed."""
    now = session(rig, journal, name, endpoint={**rig.endpoint, **endpoint}, timeout=2)
    result = engine.check(now, ON)
    assert result.conclusion is Status.UNKNOWN
    [finding] = [f for f in result.findings if f.check.startswith("guest-")]
    return finding


def test_program_gets_its_input_and_gives_its_streams_and_its_code(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make()
    way = channel(rig, journal, name)
    script = 'cat; echo "it\'s" "$1" >&2; exit 7'
    done = way.run(["sh", "-c", script, "sh", "a  b$HOME`id`"], stdin=b"\x00in\xff", timeout=10)
    assert (done.code, done.stdout, done.truncated) == (7, b"\x00in\xff", False)
    assert done.stderr == b"it's a  b$HOME`id`\n"
    assert rig.lab.leftovers(name) == []


def test_program_that_is_not_there(rig: VSphereRig, journal: Journal) -> None:
    assert channel(rig, journal, rig.make()).run(["no-such-program"], timeout=10).code == NOT_FOUND


def test_output_is_fetched_up_to_the_limit_and_marked(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make()
    done = channel(rig, journal, name).run(["head", "-c", "5000000", "/dev/zero"], timeout=20)
    assert (len(done.stdout), done.truncated) == (OUTPUT_LIMIT, True)
    assert rig.lab.leftovers(name) == []


def test_program_that_does_not_end_is_ended_and_cleared_away(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make()
    way = channel(rig, journal, name)
    with pytest.raises(GuestUnreachable, match="did not end"):
        way.run(["sleep", "987"], timeout=0.5)
    assert rig.lab.counts()["TerminateProcessInGuest"] == 1
    wait_for(lambda: not running(rig, "sleep 987"), 5, "the program to be gone")
    assert rig.lab.leftovers(name) == []


def running(rig: VSphereRig, words: str) -> bool:
    """Whether a program runs in a guest of the peer."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            argv = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            environment = (process / "environ").read_text(errors="replace")
        except OSError:
            continue  # it ended, or is not ours
        if argv.strip() == words and str(rig.lab.folder) in environment:
            return True
    return False


def test_tools_that_are_slow_to_see_an_end_are_waited_for(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make(nested=True, slow=2)
    assert check(rig, journal, name).conclusion is Status.PASS


def test_tools_that_forget_a_program_prove_nothing(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make(nested=True, forgets=True)
    finding = guest_finding(rig, journal, name)
    assert "ListProcessesInGuest" in finding.evidence
    assert rig.lab.leftovers(name) == []


def test_tools_that_are_away_for_a_moment_lose_no_proof(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make(nested=True)
    rig.lab.fail("ListProcessesInGuest", "GuestOperationsUnavailable")
    rig.lab.break_at("ListProcessesInGuest", "after")
    assert check(rig, journal, name).conclusion is Status.PASS


@pytest.mark.parametrize("url", ["https://127.0.0.2/x?id=s3cret ticket", "https://127.0.0.2/ä?id=s3cret"])
def test_address_of_a_file_that_cannot_be_used_keeps_its_ticket(
    rig: VSphereRig, journal: Journal, url: str
) -> None:
    way = channel(rig, journal, rig.make())
    assert isinstance(way, GuestChannel)
    with pytest.raises(GuestUnreachable) as caught:
        way._transfer("GET", url, None)
    error = caught.value
    assert "s3cret" not in f"{error.message}{error.evidence}{error.cure}{error.__cause__}"


def test_tools_that_start_late_are_waited_for(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make(tools_late=0.6)
    rig.lab.set(name, {"guest.toolsRunningStatus": "guestToolsRunning"})
    assert enable(rig, journal, name).conclusion is Status.PASS


def test_guest_without_python_is_read_by_its_shell(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make(nested=True, python=False)
    result = check(rig, journal, name)
    assert result.conclusion is Status.UNKNOWN
    assert found(result, "guest-cpu-flag").status is Status.PASS
    assert "python3" in found(result, "guest-kvm-run").cure


def test_real_probe_is_run_and_its_verdict_told(rig: VSphereRig, journal: Journal) -> None:
    """The peer's guest is this machine here: what the probe says on it is the oracle."""
    name = rig.make(nested=True, real_python=True)
    command = [sys.executable, "-I", probe.__file__]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    oracle = json.loads(asked.stdout)
    result = check(rig, journal, name)
    assert result.proof is not None
    assert result.proof.verdict == oracle["verdict"]
    assert found(result, "guest-cpu-flag").status == oracle_status(oracle, "guest-cpu-flag")


def oracle_status(oracle: dict[str, list[dict[str, str]]], check_id: str) -> str:
    return next(f["status"] for f in oracle["findings"] if f["check"] == check_id)


def test_wrong_password_of_the_guest_is_told_and_not_tried_on(rig: VSphereRig, journal: Journal) -> None:
    """A guest may lock an account after a few."""
    name = rig.make(nested=True)
    rig.lab.clear()
    finding = guest_finding(rig, journal, name, guest_password="wrong-one")  # noqa: S106
    assert "InvalidGuestLogin" in finding.evidence
    assert "GUEST" in finding.cure
    assert "wrong-one" not in f"{finding}"
    assert "StartProgramInGuest" not in rig.lab.counts()


def test_without_a_user_of_the_guest_nothing_is_asked_of_it(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make(nested=True)
    endpoint = {key: value for key, value in rig.endpoint.items() if not key.startswith("guest_")}
    result = engine.check(session(rig, journal, name, endpoint=endpoint), ON)
    finding = found(result, "vm-agent")
    assert finding.status is Status.WARN
    assert "GUEST_USERNAME" in finding.cure
    assert not [method for method in rig.lab.counts() if method.endswith("InGuest")]


def test_guest_operations_that_the_role_does_not_allow_name_the_privilege(
    rig: VSphereRig, journal: Journal
) -> None:
    name = rig.make(nested=True)
    rig.lab.privileges("VirtualMachine.Config.Settings", "VirtualMachine.GuestOperations.Query")
    finding = guest_finding(rig, journal, name)
    assert "VirtualMachine.GuestOperations" in f"{finding.evidence} {finding.cure}"


# --- guests' files come from their host, which has a certificate of its own


def test_address_with_a_star_is_the_server_that_was_asked(rig: VSphereRig, journal: Journal) -> None:
    rig.lab.transfer("*")
    assert check(rig, journal, rig.make(nested=True)).conclusion is Status.PASS


def pinned(rig: VSphereRig) -> dict[str, str]:
    """No CA, but the certificate of vCenter."""
    return {"ca_file": "", "fingerprint": rig.lab.thumbprint}


def test_host_with_another_certificate_is_known_by_what_a_pinned_vcenter_says_of_it(
    rig: VSphereRig, journal: Journal
) -> None:
    rig.lab.transfer("other")
    way = channel(rig, journal, rig.make(), **pinned(rig))
    assert way.run(["cat"], stdin=b"over there", timeout=10).stdout == b"over there"


def test_host_with_another_certificate_is_known_by_its_ca(rig: VSphereRig, journal: Journal) -> None:
    rig.lab.transfer("other")
    both = os.pathsep.join([rig.lab.ca_file, rig.lab.hosts_ca_file])
    way = channel(rig, journal, rig.make(), ca_file=both)
    assert way.run(["cat"], stdin=b"over there", timeout=10).stdout == b"over there"


@pytest.mark.parametrize("trust", ["pinned", "ca"])
def test_host_that_nobody_vouches_for_gets_nothing(rig: VSphereRig, journal: Journal, trust: str) -> None:
    rig.lab.transfer("other")
    name = rig.make(nested=True)
    rig.lab.set_host("DC0_C0_H0", {"summary.config.sslThumbprint": ":".join(["AB"] * 20)})
    rig.lab.clear()
    finding = guest_finding(rig, journal, name, **(pinned(rig) if trust == "pinned" else {}))
    assert "certificate of 127.0.0.3" in finding.evidence
    assert "--ca-file" in finding.cure
    assert not [what for what in rig.lab.counts() if "guestFile" in what]
    assert rig.lab.leftovers(name) == []


def test_thumbprint_of_another_form_vouches_for_nothing(rig: VSphereRig, journal: Journal) -> None:
    rig.lab.transfer("other")
    name = rig.make(nested=True)
    rig.lab.set_host("DC0_C0_H0", {"summary.config.sslThumbprint": "SHA-384 AB:CD"})
    finding = guest_finding(rig, journal, name, **pinned(rig))
    assert "certificate of 127.0.0.3" in finding.evidence


@pytest.mark.parametrize("what", ["PUT guestFile", "GET guestFile"])
def test_transfer_that_breaks_off_is_told_and_cleared_away(
    rig: VSphereRig, journal: Journal, what: str
) -> None:
    name = rig.make(nested=True)
    rig.lab.break_at(what, "before")
    finding = guest_finding(rig, journal, name)
    assert finding.evidence
    assert rig.lab.leftovers(name) == []


def test_no_password_is_in_what_the_guest_sees(rig: VSphereRig, journal: Journal) -> None:
    done = channel(rig, journal, rig.make()).run(["env"], timeout=10)
    seen = done.stdout.decode()
    assert "PATH=" in seen
    assert rig.lab.password not in seen
    assert rig.lab.guest_password not in seen
