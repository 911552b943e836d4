"""The command line on Hyper-V, with nothing but Terraform's environment variables."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest

from tests.e2e.shell import HyperVShell, same_configuration
from tests.peers.hyperv.model import GIB, MIB

SCHEMA = Path(__file__).parents[2] / "docs/reference/report.schema.json"
OTHER = ":".join(["AB"] * 32)


def test_enable_from_running_is_a_clean_stop_the_change_a_start_and_a_proof(hyperv: HyperVShell) -> None:
    vm = hyperv.rig.make()
    before = hyperv.rig.see(vm)
    code, out, _ = hyperv.run("enable", "--hyperv", vm, "--dry-run")
    assert code == 0
    assert "  ExposeVirtualizationExtensions: false -> true\n" in out
    assert hyperv.rig.see(vm) == before

    hyperv.rig.host.log.clear()
    code, out, err = hyperv.run("enable", "--hyperv", vm, "--yes")
    after = hyperv.rig.see(vm)
    assert code == 0, out + err
    assert "the endpoint is from HYPERV_HOST" in err
    assert (after.nested, after.running, after.others) == (True, True, before.others)
    assert after.boot != before.boot
    assert [line for line in hyperv.rig.host.log if line.startswith("Stop-VM")] == []

    hyperv.rig.machine(vm).guest.inner = False
    code, out, err = hyperv.run("undo", "--hyperv", vm, "--yes")
    assert code == 0, out + err
    assert hyperv.rig.see(vm).stored == before.stored


def test_enable_from_off_leaves_it_off_and_unproven(hyperv: HyperVShell) -> None:
    vm = hyperv.rig.make(running=False)
    code, _, err = hyperv.run("enable", "--hyperv", vm, "--yes", "--quiet")
    assert code == 3, err
    assert (hyperv.rig.see(vm).nested, hyperv.rig.see(vm).running) == (True, False)


def test_enable_from_saved_is_refused_with_its_cure_and_then_done_by_it(hyperv: HyperVShell) -> None:
    vm = hyperv.rig.make()
    hyperv.rig.suspend(vm)
    code, out, _ = hyperv.run("enable", "--hyperv", vm, "--yes", "--quiet")
    assert code == 1
    assert "--discard-saved-state" in out
    assert hyperv.rig.machine(vm).state == "Saved"
    code, out, err = hyperv.run("enable", "--hyperv", vm, "--discard-saved-state", "--yes")
    assert code == 3, err
    assert "mind vm-saved-state" in err
    assert "is off now, as its saved state is gone" in out
    assert "SavedState is gone, which nobody can undo" in out
    assert hyperv.rig.machine(vm).state == "Off"


def test_enable_with_dynamic_memory_shows_both_changes_in_order(hyperv: HyperVShell) -> None:
    vm = hyperv.rig.make(running=False, dynamic=True, minimum=768 * MIB, startup=4 * GIB, maximum=9 * GIB)
    before = hyperv.rig.see(vm)
    code, out, _ = hyperv.run("enable", "--hyperv", vm, "--dry-run")
    assert code == 0
    assert out.index("DynamicMemoryEnabled: true, minimum=805306368") < out.index(
        "ExposeVirtualizationExtensions: false -> true"
    )
    assert hyperv.run("enable", "--hyperv", vm, "--yes", "--quiet")[0] == 3
    assert not hyperv.rig.machine(vm).dynamic
    assert hyperv.run("undo", "--hyperv", vm, "--yes", "--quiet")[0] == 0
    assert hyperv.rig.see(vm) == before


@pytest.mark.parametrize(
    ("build", "version", "check", "cure"),
    [(17763, "9.0", "host-build", "Windows Server 2022"), (20348, "9.0", "vm-version", "--upgrade-version")],
)
def test_enable_on_amd_with_an_old_host_or_an_old_version_is_refused_with_its_cure(
    hyperv: HyperVShell, build: int, version: str, check: str, cure: str
) -> None:
    hyperv.rig.host.build = build
    vm = hyperv.rig.make(version=version)
    before = hyperv.rig.see(vm)
    code, out, _ = hyperv.run("enable", "--hyperv", vm, "--yes", "-o", "json")
    [finding] = [f for f in json.loads(out)["findings"] if f["check"] == check]
    assert (code, finding["status"]) == (1, "fail")
    assert cure in finding["cure"]
    assert hyperv.rig.see(vm) == before


def test_old_version_is_raised_when_that_is_asked_for_and_said_to_stay(hyperv: HyperVShell) -> None:
    vm = hyperv.rig.make(version="9.0")
    code, out, err = hyperv.run("enable", "--hyperv", vm, "--upgrade-version", "--yes")
    assert code == 0, out + err
    assert "mind vm-version-upgrade: 9.0 -> 10.0 cannot be undone" in err
    hyperv.rig.machine(vm).guest.inner = False
    code, out, err = hyperv.run("undo", "--hyperv", vm, "--yes")
    assert code == 0, out + err
    assert "Version: 10.0 stays" in out
    assert (hyperv.rig.machine(vm).version, hyperv.rig.machine(vm).expose) == ("10.0", False)


def test_cure_has_the_options_that_were_given(hyperv: HyperVShell) -> None:
    vm = hyperv.rig.make(running=False)
    _, out, _ = hyperv.run("enable", "--hyperv", vm, "--mac-spoofing", "--dry-run", "-o", "json")
    [cure] = {f["cure"] for f in json.loads(out)["findings"] if f["check"] == "vm-mac-spoofing"}
    assert cure == f"nestvirt enable --hyperv {vm} --mac-spoofing"


def test_undo_finds_its_endpoint_in_the_record_and_the_password_in_the_environment(
    hyperv: HyperVShell,
) -> None:
    vm = hyperv.rig.make(running=False)
    before = hyperv.rig.see(vm)
    assert hyperv.run("enable", "--hyperv", vm, "--yes", "--quiet")[0] == 3
    for name in ("HYPERV_HOST", "HYPERV_USER", "HYPERV_CACERT_PATH"):
        del hyperv.environment[name]
    code, _, err = hyperv.run("undo", "--yes", "--quiet")
    assert code == 0, err
    assert hyperv.rig.see(vm) == before


WRONG = {
    "CA": ({"HYPERV_CACERT_PATH": "other_ca_file"}, "certificate"),
    "fingerprint": ({"HYPERV_CACERT_PATH": "", "NESTVIRT_HYPERV_FINGERPRINT": OTHER}, "fingerprint"),
    "password": ({"HYPERV_PASSWORD": "not-this-one"}, "refused the credentials"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_with_its_cure_and_nothing_is_touched(hyperv: HyperVShell, what: str) -> None:
    values, words = WRONG[what]
    vm = hyperv.rig.make()
    before = hyperv.rig.see(vm)
    for name, value in values.items():
        certificates = hyperv.rig.lab.endpoint.certificates
        hyperv.environment[name] = str(getattr(certificates, value, value)) if value else ""
    code, out, err = hyperv.run("enable", "--hyperv", vm, "--yes", "-o", "json")
    error = json.loads(out)["error"]
    assert code == 3
    assert words in f"{error['message']} {error['evidence']}"
    assert error["cure"]
    assert "not-this-one" not in out + err
    assert hyperv.rig.see(vm) == before


def test_name_that_is_there_twice_lists_both_with_their_ids(hyperv: HyperVShell) -> None:
    vm = hyperv.rig.make_ambiguous()
    code, out, _ = hyperv.run("enable", "--hyperv", vm, "--yes", "-o", "json")
    error = json.loads(out)["error"]
    assert (code, error["kind"]) == (2, "TargetError")
    identity = str(hyperv.rig.machine(vm).id)
    assert identity in error["evidence"]
    assert hyperv.run("enable", "--hyperv", identity, "--yes", "--quiet")[0] == 3
    assert [machine.expose for machine in hyperv.rig.host.machines] == [True, False]


def test_json_is_of_the_schema(hyperv: HyperVShell) -> None:
    vm = hyperv.rig.make(guest_inner=False)
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    for command in (["check"], ["enable", "--yes"], ["disable", "--yes"]):
        _, out, _ = hyperv.run(*command, "--hyperv", vm, "-o", "json")
        validator.validate(json.loads(out))


def test_passwords_are_nowhere_but_in_the_environment(hyperv: HyperVShell) -> None:
    """Nor on a command line of the host's, which its event log keeps."""
    vm = hyperv.rig.make(guest_inner=False)
    said = ""
    for command in (["check"], ["enable", "--yes"], ["undo", "--yes"], ["enable", "--yes", "-o", "json"]):
        said += "".join(hyperv.run(*command, "--hyperv", vm)[1:])
    kept = [path.read_text(encoding="utf-8") for path in hyperv.state.rglob("*.jsonl")]
    assert len(kept) >= 2
    service, guest = hyperv.rig.lab.endpoint, hyperv.rig.machine(vm).guest
    assert guest.tried
    lines = [word for call in service.invocations for word in (call.command, *call.arguments)]
    for secret in (service.password, guest.password):
        assert secret not in said + "".join(kept) + "".join(lines)


@pytest.mark.parametrize(
    ("step", "delay"),
    [("stopping", 0.0), ("stopping", 0.4), ("stopping", 1.2), ("writing", 0.0), ("starting", 0.0)],
)
def test_ctrl_c_at_any_step_ends_in_order_and_closes_the_shell(
    hyperv: HyperVShell, step: str, delay: float
) -> None:
    """The guest takes 1.5 seconds to shut down."""
    vm = hyperv.rig.make(guest_slow=1.5)
    before = hyperv.rig.see(vm)
    process = hyperv.start("enable", "--hyperv", vm, "--yes")
    hyperv.until_it_says(process, step)
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    after = hyperv.rig.see(vm)
    if "not proven" in err:  # it was quicker than the signal
        assert (after.nested, after.running) == (True, True)
    else:
        assert same_configuration(after, before), err
