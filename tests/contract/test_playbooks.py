"""The playbooks, run by the real ansible-core against real sshds, a real KVM host, and a played cluster."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from nestvirt.guest import probe
from tests.contract import kata_runs
from tests.contract.ansible_runs import PLAYBOOKS, ROOT, Ansible
from tests.lab.kvmhost import KvmHost
from tests.lab.sshd import Sshd
from tests.peers.kubelet import Cluster
from tests.peers.memory_fleet import MemoryFleet

CHANGED, SAME, FAILED = (1, 0), (0, 0), (0, 1)
LIAR = r"""#!/bin/sh
echo 'a motd that somebody prints'
echo '{"schema_version": 1, "verdict": "off", "cause": null, "findings": [],' \
  '"summary": "\u001b[2J{{ 6 * 7 }} is a lie"}'
exit 1
"""
PLAYS = ("check.yml", "enable.yml", "guest_probe.yml", "kvm_host.yml", "kata.yml")


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    with Sshd() as server:
        yield server


@pytest.fixture
def fleet(tmp_path: Path) -> MemoryFleet:
    return MemoryFleet(tmp_path)


def by_ssh(config: Path, name: str) -> dict[str, Any]:
    return {"ansible_host": name, "ansible_ssh_common_args": f"-F {config}"}


@pytest.fixture
def control(sshd: Sshd) -> dict[str, Any]:
    """A machine with nestvirt that Ansible logs in to."""
    return {"control": {"jump": by_ssh(sshd.config, sshd.host)}}


@pytest.fixture
def ansible(fleet: MemoryFleet) -> Ansible:
    """Its nestvirt, on the machine called jump, knows the in-memory hypervisor."""
    program = fleet.folder / "nestvirt"
    words = shlex.join([sys.executable, "-m", "tests.peers.memory_cli"])
    program.write_text(f'#!/bin/sh\ncd {shlex.quote(str(ROOT))} && exec {words} "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    of_user = fleet.environment()
    return Ansible(
        fleet.folder,
        nestvirt_control="jump",
        nestvirt_executable=str(program),
        nestvirt_environment={name: of_user[name] for name in ("NESTVIRT_STATE_DIR", "NESTVIRT_CONFIG")},
        nestvirt_secrets={"NESTVIRT_MEMORY_PATH": str(fleet.path)},
    )


def valid(report: Any, name: str = "fleet") -> Any:
    schema = json.loads((ROOT / f"docs/reference/{name}.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(report)
    return report


# --- what they are


def test_ansible_lint_finds_nothing_by_its_strictest_profile(tmp_path: Path) -> None:
    words = ("-c", str(PLAYBOOKS / ".ansible-lint"), "--nocolor", *map(str, sorted(PLAYBOOKS.glob("*.yml"))))
    done = Ansible(tmp_path).run("ansible-lint", *words)
    assert done.code == 0, done.text
    assert "Profile 'production' was required, and it passed" in done.text


def test_each_playbook_finds_its_hosts_in_the_example(tmp_path: Path) -> None:
    words = ("-i", str(PLAYBOOKS / "inventory/example.yml"), *(str(PLAYBOOKS / name) for name in PLAYS))
    done = Ansible(tmp_path).run("ansible-playbook", "--list-hosts", *words)
    assert done.code == 0, done.text
    plays = done.text.split("playbook: ")[1:]
    counts = {Path(play.split()[0]).name: int(play.split("hosts (")[1].split(")")[0]) for play in plays}
    assert counts == {
        "check.yml": 4,
        "enable.yml": 4,
        "guest_probe.yml": 2,
        "kvm_host.yml": 2,
        "kata.yml": 1,
    }
    assert sorted(PLAYS) == sorted(path.name for path in PLAYBOOKS.glob("*.yml"))


# --- check and enable


def test_check_fails_for_those_alone_that_do_not_nest(
    ansible: Ansible, fleet: MemoryFleet, control: dict[str, Any]
) -> None:
    fleet.add("good", nested="on", live="on", tags=["a"])
    fleet.add("bad", tags=["a"])
    before = fleet.path.read_bytes()
    hosts = {
        "good": {"nestvirt_targets": ["memory:good"]},
        "all-a": {"nestvirt_targets": ["memory: tag=a"]},
        "typo": {"nestvirt_targets": ["memory:good", "--nope"]},
        "away": {"nestvirt_targets": ["memory:good"], "nestvirt_executable": "no-such-nestvirt"},
    }
    done = ansible.play("check.yml", control | {"nestvirt": hosts}, "-vvvv")
    assert [done.of(name) for name in hosts] == [SAME, FAILED, FAILED, FAILED]
    assert fleet.path.read_bytes() == before
    [good, bad] = valid(ansible.report("all-a", "check"))["fleet"]
    assert (good["ending"], bad["ending"]) == ("pass", "fail")
    for told in ("memory:id-bad: vm-cpu: nested is None; do this: ", "No such option", "no-such-nestvirt"):
        assert told in done.text
    assert str(fleet.state) in done.text
    assert str(fleet.path) not in done.text  # it stands for a secret


def test_enable_says_changed_only_where_it_changes(
    ansible: Ansible, fleet: MemoryFleet, control: dict[str, Any]
) -> None:
    """Check mode foretells what the run then does; the second run changes nothing."""
    fleet.add("off")
    fleet.add("pending", nested="on", live="off")
    fleet.add("on", nested="on", live="on")
    fleet.add("asleep", power="suspended")
    for name in ("site-1", "site-2"):
        fleet.add(name, tags=["site"])
    names = ("off", "pending", "on", "asleep")
    hosts: dict[str, dict[str, object]] = {name: {"nestvirt_targets": [f"memory:{name}"]} for name in names}
    hosts["site"] = {"nestvirt_targets": "memory: tag=site", "nestvirt_enable_options": ["--batch", 2]}
    inventory = control | {"nestvirt": hosts}
    before = fleet.path.read_bytes()

    told = ansible.play("enable.yml", inventory, "--check", "--diff")
    expected = [CHANGED, CHANGED, SAME, FAILED, CHANGED]
    assert [told.of(name) for name in hosts] == expected
    assert fleet.path.read_bytes() == before
    assert "--- before: memory:off: nested\n+++ after: memory:off: nested\n@@ -0,0 +1 @@\n+on\n" in told.text
    assert "it would change no setting and power-cycle" in told.text
    assert re.search(r"memory:id-site-1: .*power-cycle the VM\n--- before: memory:id-site-2", told.text)

    done = ansible.play("enable.yml", inventory, "--diff")
    assert [done.of(name) for name in hosts] == expected
    assert [fleet.vms()[name]["live"] for name in ("off", "pending", "on", "site-1", "site-2")] == ["on"] * 5
    assert {vm["name"]: vm.get("boots", 0) for vm in fleet.vms().values()}["on"] == 0
    assert "+on\n" in done.text
    assert "memory:asleep: vm-suspended: it is suspended; do this: resume it" in done.text
    assert valid(ansible.report("site", "enable"))["summary"]["changed"] == 2

    before = fleet.path.read_bytes()
    again = ansible.play("enable.yml", inventory, "--diff")
    assert [again.of(name) for name in hosts] == [SAME, SAME, SAME, FAILED, SAME]
    assert fleet.path.read_bytes() == before
    assert "+on\n" not in again.text


def test_one_after_another_stops_at_the_first_that_fails(
    ansible: Ansible, fleet: MemoryFleet, control: dict[str, Any]
) -> None:
    hosts = {}
    for name in ("a", "b", "c"):
        fleet.add(name, fragile=name == "b")
        hosts[name] = {"nestvirt_targets": [f"memory:{name}"]}
    done = ansible.play("enable.yml", control | {"nestvirt": hosts}, "-e", "nestvirt_serial=1")
    assert (done.of("a"), done.of("b"), done.hosts) == (CHANGED, FAILED, {"a", "b"})
    assert "everything was put back as it was; off in between: b" in done.text
    assert [fleet.vms()[name].get("nested") for name in "abc"] == ["on", None, None]
    assert "PowerError" in done.text

    back = ansible.play("enable.yml", control | {"nestvirt": hosts}, "-e", "nestvirt_goal=disable")
    assert [back.of(name) for name in "abc"] == [CHANGED, SAME, SAME]
    assert fleet.vms()["a"].get("nested") is None


# --- the probe in guests


def test_the_probe_tells_over_ssh_what_it_tells_here(sshd: Sshd, tmp_path: Path) -> None:
    host, saved = by_ssh(sshd.config, sshd.host), tmp_path / "a saved machine"
    saved.mkdir()
    liar = tmp_path / "liar"
    liar.write_text(LIAR, encoding="utf-8")
    liar.chmod(0o755)
    hosts = {
        "live": host,
        "saved": {
            **host,
            "nestvirt_probe_options": ["--root", shlex.quote(str(saved))],
            "nestvirt_accepted": [0, 1, 3],
        },
        "liar": {**host, "nestvirt_guest_python": str(liar)},
        "no-python": {**host, "nestvirt_guest_python": "/nowhere/python3"},
    }
    ansible = Ansible(tmp_path)
    done = ansible.play("guest_probe.yml", {"nestvirt_guests": hosts}, "--check", "--diff")
    here = probe.examine()["verdict"]
    assert valid(ansible.report("live", "probe"), "probe")["verdict"] == here
    assert done.of("live") == (SAME if here == "works" else FAILED)
    assert done.of("saved") == SAME
    assert ansible.report("saved", "probe")["verdict"] == probe.examine(str(saved))["verdict"]
    assert (done.of("no-python"), done.of("liar")) == (FAILED, FAILED)
    assert "[2J{{ 6 * 7 }} is a lie" in done.text
    assert "\x1b" not in done.text


# --- a KVM host


@pytest.fixture
def host(kvm_host: KvmHost) -> Iterator[KvmHost]:
    """One whose VMs cannot nest, left to others as it was."""
    kvm_host.reload("0")
    yield kvm_host
    kvm_host.reload()


def test_a_kvm_host_is_changed_once_and_guest_code_runs_there(host: KvmHost, tmp_path: Path) -> None:
    environment = {
        "NESTVIRT_HOST_SSH_CONFIG": str(host.ssh_config),
        "NESTVIRT_STATE_DIR": str(tmp_path / "state"),
    }
    ansible = Ansible(tmp_path, nestvirt_environment=environment, nestvirt_executable=kata_runs.NESTVIRT)
    node = {**by_ssh(host.ssh_config, host.name), "ansible_user": "root"}
    inventory = {"kvm_hosts": {"node1": node}, "nestvirt_guests": {"node1": node}}
    file = "/etc/modprobe.d/zz-nestvirt.conf"

    told = ansible.play("kvm_host.yml", inventory, "--check", "--diff")
    assert (told.of("node1"), host.nested) == (CHANGED, "0")
    assert "+options kvm_amd nested=1" in told.text
    assert f"+++ after: host:ssh://root@kvm-host: {file}" in told.text
    done = ansible.play("kvm_host.yml", inventory)
    assert (done.of("node1"), host.nested) == (CHANGED, "1")
    again = ansible.play("kvm_host.yml", inventory)
    assert (again.of("node1"), host.nested) == (SAME, "1")
    host.sh(f"test -e {file}")

    proven = ansible.play("guest_probe.yml", inventory)
    assert proven.of("node1") == SAME, proven.text
    assert valid(ansible.report("node1", "probe"), "probe")["verdict"] == "works"


# --- Kata


def test_kata_is_installed_once_and_proven_each_time(cluster: Cluster, tmp_path: Path) -> None:
    cluster.add("worker-1")
    path = kata_runs.environment(cluster)["PATH"]
    ansible = Ansible(tmp_path, nestvirt_environment={"PATH": path}, nestvirt_executable=kata_runs.NESTVIRT)
    lab = {
        "nestvirt_cluster_options": list(cluster.options),
        "nestvirt_kata_config": kata_runs.config(tmp_path),
        "nestvirt_kata_options": ["--chart", str(cluster.plane.chart_file("3.25.0"))],
    }
    before = kata_runs.everything(cluster)
    told = ansible.play("kata.yml", {"kata_clusters": {"lab": lab}}, "--check", "--diff")
    assert told.of("lab") == CHANGED, told.text
    assert "RuntimeClass" in told.text
    assert kata_runs.everything(cluster) == before
    done = ansible.play("kata.yml", {"kata_clusters": {"lab": lab}})
    assert done.of("lab") == CHANGED, done.text
    again = ansible.play("kata.yml", {"kata_clusters": {"lab": lab}}, "--diff")
    assert again.of("lab") == SAME
    report = valid(ansible.report("lab", "kata-install"), "report")
    refused = ansible.play("kata.yml", {"kata_clusters": {"lab": lab}}, "-e", "nestvirt_goal=uninstall")
    assert "argv begins with 'kata-uninstall'" in refused.text
    started = ansible.play(
        "kata.yml", {"kata_clusters": {"lab": lab}}, "--check", "-e", "nestvirt_goal=check"
    )
    assert (started.of("lab"), "skipped=1" in started.text) == (SAME, True)
    assert "cluster-pod-kata" in {f["check"] for f in report["findings"] if f["status"] == "pass"}
