"""The command line on vSphere, with nothing but govc's environment variables."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest

from nestvirt.guest import probe
from tests.e2e.shell import VSphereShell

SCHEMA = Path(__file__).parents[2] / "docs/reference/report.schema.json"
VM = "DC0_H0_VM0"
OTHER = ":".join(["AB"] * 32)


def test_enable_from_running_is_a_clean_stop_the_change_a_start_and_a_proof(vsphere: VSphereShell) -> None:
    before = vsphere.rig.see(VM)
    code, out, _ = vsphere.run("enable", "--vsphere", VM, "--dry-run")
    assert code == 0
    assert "  nestedHVEnabled: false -> true\n" in out
    assert vsphere.rig.see(VM) == before

    vsphere.rig.lab.clear()
    code, out, err = vsphere.run("enable", "--vsphere", VM, "--yes")
    after, counts = vsphere.rig.see(VM), vsphere.rig.lab.counts()
    assert code == 0, err
    assert "the endpoint is from GOVC_URL" in err
    assert "ran guest code in the guest (by vmware-tools)" in out
    assert after.nested
    assert after.running
    assert after.boot != before.boot
    assert after.others == before.others
    assert (counts["ShutdownGuest"], counts["ReconfigVM_Task"], counts["PowerOnMultiVM_Task"]) == (1, 1, 1)
    assert "PowerOffVM_Task" not in counts
    assert counts["Login"] == counts["Logout"] == 1

    code, _, err = vsphere.run("undo", "--vsphere", VM, "--yes")
    assert code == 0, err
    assert vsphere.rig.see(VM).stored == before.stored
    assert vsphere.rig.lab.leftovers(VM) == []


def test_real_probe_is_what_verifies_it(vsphere: VSphereShell) -> None:
    """The guest is this machine here, so that the probe run by hand on it is the oracle."""
    asked = subprocess.run([sys.executable, "-I", probe.__file__], capture_output=True, check=False)
    vsphere.rig.lab.switch(VM, real_python=True)
    _, out, err = vsphere.run("enable", "--vsphere", VM, "--yes", "-o", "json")
    report = json.loads(out)
    assert report["changes"], err
    assert report["proof"]["verdict"] == json.loads(asked.stdout)["verdict"]
    assert vsphere.rig.see(VM).nested
    assert vsphere.rig.lab.leftovers(VM) == []


def test_enable_from_off_leaves_it_off_and_unproven(vsphere: VSphereShell) -> None:
    vsphere.rig.lab.power(VM, "off")
    code, _, err = vsphere.run("enable", "--vsphere", VM, "--yes", "--quiet")
    assert code == 3, err
    assert vsphere.rig.see(VM).nested
    assert not vsphere.rig.see(VM).running


def test_undo_finds_its_endpoint_in_the_record_and_the_password_in_the_environment(
    vsphere: VSphereShell,
) -> None:
    before = vsphere.rig.see(VM)
    assert vsphere.run("enable", "--vsphere", VM, "--yes", "--quiet")[0] == 0
    for name in ("GOVC_URL", "GOVC_USERNAME", "GOVC_TLS_CA_CERTS"):
        del vsphere.environment[name]
    code, _, err = vsphere.run("undo", "--yes", "--quiet")
    assert code == 0, err
    assert vsphere.rig.see(VM).stored == before.stored


WRONG = {
    "thumbprint": ({"GOVC_TLS_CA_CERTS": "", "GOVC_THUMBPRINT": OTHER}, "fingerprint"),
    "CA": ({"GOVC_TLS_CA_CERTS": "other_ca_file"}, "certificate"),
    "password": ({"GOVC_PASSWORD": "not-this-one"}, "refused the password"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_with_its_cure_and_nothing_is_touched(vsphere: VSphereShell, what: str) -> None:
    values, words = WRONG[what]
    before = vsphere.rig.see(VM)
    for name, value in values.items():
        vsphere.environment[name] = getattr(vsphere.rig.lab, value, value) if value else ""
    code, out, err = vsphere.run("enable", "--vsphere", VM, "--yes", "-o", "json")
    error = json.loads(out)["error"]
    assert code == 3
    assert words in f"{error['message']} {error['evidence']}"
    assert error["cure"]
    assert "not-this-one" not in out + err
    assert vsphere.rig.see(VM) == before


def test_vm_of_a_host_that_is_silent_may_run_there_and_is_left_alone(vsphere: VSphereShell) -> None:
    vsphere.rig.lab.lose("DC0_H0")
    before = vsphere.rig.see(VM)
    code, out, _ = vsphere.run("enable", "--vsphere", VM, "--yes", "--quiet")
    shown = " ".join(out.split())
    assert code == 1
    assert "FAIL vm-connected its host DC0_H0 is notResponding" in shown
    assert "do this: connect DC0_H0 again" in shown
    assert vsphere.rig.see(VM) == before


def test_name_that_is_there_twice_lists_both_with_their_paths(vsphere: VSphereShell) -> None:
    vsphere.rig.lab.make(VM, folder="test")
    code, out, _ = vsphere.run("enable", "--vsphere", VM, "--yes", "-o", "json")
    error = json.loads(out)["error"]
    assert (code, error["kind"]) == (2, "TargetError")
    assert f"/DC0/vm/{VM}" in error["evidence"]
    assert f"/DC0/vm/test/{VM}" in error["evidence"]
    code, _, err = vsphere.run("enable", "--vsphere", f"/DC0/vm/test/{VM}", "--yes", "--quiet")
    assert code == 0, err


def test_json_is_of_the_schema(vsphere: VSphereShell) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    for command in (["check"], ["enable", "--yes"], ["disable", "--yes"]):
        _, out, _ = vsphere.run(*command, "--vsphere", VM, "-o", "json")
        validator.validate(json.loads(out))


def test_passwords_are_nowhere_but_in_the_environment(vsphere: VSphereShell) -> None:
    said = ""
    for command in (["check"], ["enable", "--yes"], ["undo", "--yes"], ["enable", "--yes", "-o", "json"]):
        said += "".join(vsphere.run(*command, "--vsphere", VM)[1:])
    kept = [path.read_text(encoding="utf-8") for path in vsphere.state.rglob("*.jsonl")]
    assert len(kept) >= 2
    for secret in (vsphere.rig.lab.password, vsphere.rig.lab.guest_password):
        assert secret not in said + "".join(kept)
