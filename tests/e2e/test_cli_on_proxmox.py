"""The command line on Proxmox, with nothing but environment variables."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]

from tests.e2e.shell import ProxmoxShell

SCHEMA = Path(__file__).parents[2] / "docs/reference/report.schema.json"


def number(shell: ProxmoxShell, name: str) -> str:
    return str(shell.rig.vm(name).vmid)


def test_enable_changes_that_line_only_and_undo_brings_it_back(proxmox: ProxmoxShell) -> None:
    name = proxmox.rig.make()
    vmid = number(proxmox, name)
    before = proxmox.rig.see(name)

    code, out, _ = proxmox.run("enable", "--proxmox", vmid, "--dry-run")
    assert code == 0
    assert "  cpu: x86-64-v2-AES -> host\n" in out
    assert proxmox.rig.see(name) == before

    code, out, err = proxmox.run("enable", "--proxmox", vmid, "--yes")
    after = proxmox.rig.see(name)
    assert code == 0, err
    assert "the endpoint is from PROXMOX_VE_ENDPOINT" in err
    assert after.nested
    assert after.boot != before.boot
    assert after.others == before.others

    code, _, err = proxmox.run("undo", "--proxmox", vmid, "--yes")
    assert code == 0, err
    assert proxmox.rig.see(name).stored == before.stored


def test_disable_of_what_was_never_set_leaves_it_not_set(proxmox: ProxmoxShell) -> None:
    name = proxmox.rig.make(cpu=None)
    before = proxmox.rig.see(name)
    assert proxmox.run("enable", "--proxmox", name, "--yes", "--quiet")[0] == 0
    code, out, err = proxmox.run("disable", "--proxmox", name, "--yes", "--quiet")
    assert code == 0, err
    assert "cpu: host -> (not set)" in out
    assert proxmox.rig.see(name).stored == before.stored


def test_json_is_of_the_schema(proxmox: ProxmoxShell) -> None:
    name = proxmox.rig.make()
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    for command in (["check"], ["enable", "--yes"], ["disable", "--yes"]):
        _, out, _ = proxmox.run(*command, "--proxmox", name, "-o", "json")
        validator.validate(json.loads(out))
    code, out, _ = proxmox.run("check", "--proxmox", "99", "-o", "json")
    validator.validate(json.loads(out))
    assert (code, json.loads(out)["error"]["kind"]) == (2, "TargetError")


def test_the_token_is_nowhere_but_in_the_environment(proxmox: ProxmoxShell) -> None:
    name = proxmox.rig.make()
    secret = proxmox.rig.token.partition("=")[2]
    said = ""
    for command in (["check"], ["enable", "--yes"], ["undo", "--yes"], ["enable", "--yes", "-o", "json"]):
        said += "".join(proxmox.run(*command, "--proxmox", name)[1:])
    proxmox.environment["PROXMOX_VE_API_TOKEN"] = f"ops@pve!other={secret}"
    said += "".join(proxmox.run("check", "--proxmox", name)[1:])
    proxmox.environment["PROXMOX_VE_API_TOKEN"] = secret
    said += "".join(proxmox.run("check", "--proxmox", name)[1:])
    kept = [path.read_text(encoding="utf-8") for path in proxmox.state.rglob("*.jsonl")]
    assert len(kept) >= 2
    assert "refused the credentials" in said
    assert secret not in said + "".join(kept)


def test_undo_finds_its_endpoint_in_the_record_and_the_token_in_the_environment(
    proxmox: ProxmoxShell,
) -> None:
    name = proxmox.rig.make()
    before = proxmox.rig.see(name)
    assert proxmox.run("enable", "--proxmox", name, "--yes", "--quiet")[0] == 0
    del proxmox.environment["PROXMOX_VE_ENDPOINT"]
    code, _, err = proxmox.run("undo", "--yes", "--quiet")
    assert code == 0, err
    assert proxmox.rig.see(name).stored == before.stored


def test_missing_right_is_named_with_the_line_that_grants_it(proxmox: ProxmoxShell) -> None:
    name = proxmox.rig.make()
    token = proxmox.rig.pve.add_token("eve@pve!look", "VM.Audit", "VM.PowerMgmt")
    proxmox.environment["PROXMOX_VE_API_TOKEN"] = token
    before = proxmox.rig.see(name)
    code, out, _ = proxmox.run("enable", "--proxmox", name, "--yes", "--quiet")
    assert code == 1
    assert "eve@pve!look lacks VM.Config.CPU" in out
    assert "pveum role modify ROLE --privs VM.Config.CPU" in out.replace("\n", " ")
    assert proxmox.rig.see(name) == before
