"""The whole chain on real kernels: a host that forbids nesting, its libvirt, a VM, and the VM's guest."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nestvirt import backends, engine
from nestvirt.backends.host.facts import content
from nestvirt.engine import Session
from nestvirt.errors import TargetError
from nestvirt.journal import Journal
from nestvirt.model import PROOF, Report, Status, Target
from tests.contract.basis import MANNER, ON
from tests.lab.kvmhost import KvmHost
from tests.peers.proxmox_rig import ProxmoxRig

DROP_IN = "/etc/modprobe.d/zz-nestvirt.conf"
PARAMETER = "/sys/module/kvm_amd/parameters/nested"
TIMEOUT = 240


@pytest.fixture
def idle_host(kvm_host: KvmHost) -> Iterator[KvmHost]:
    """A host that somebody has forbidden nesting."""
    kvm_host.write("/etc/modprobe.d/kvm.conf", "options kvm_amd nested=0\n")
    kvm_host.sh("modprobe -r kvm_amd; modprobe kvm_amd")
    yield kvm_host
    kvm_host.sh(f"hostname {kvm_host.name}")
    kvm_host.reload()


@pytest.fixture
def host(idle_host: KvmHost) -> KvmHost:
    """The same, with one VM that runs."""
    idle_host.libvirt.ensure()
    idle_host.libvirt.define("web-01")
    idle_host.libvirt.start("web-01")
    idle_host.libvirt.wait_agent("web-01")
    return idle_host


def endpoint(host: KvmHost, **further: str) -> dict[str, str]:
    return {"uri": host.libvirt_uri, "host_ssh_config": str(host.ssh_config), **further}


def session(journal: Journal, where: dict[str, str]) -> Session:
    target = Target("libvirt", "web-01")
    backend = backends.connect(target, where)
    return Session(backend, target, backend.find("web-01"), journal, "--libvirt web-01", timeout=TIMEOUT)


def status(report: Report) -> dict[str, Status]:
    return {finding.check: finding.status for finding in report.findings}


def test_one_command_from_a_host_that_forbids_it_to_guest_code_in_the_guests_guest(
    host: KvmHost, journal: Journal
) -> None:
    alone = engine.check(session(journal, endpoint(host)), ON)
    assert alone.first_broken is not None
    assert alone.first_broken.check == "host-nested"
    assert "nestvirt enable --libvirt web-01 --with-host" in alone.first_broken.cure
    assert status(alone)["guest-cpu-flag"] is Status.FAIL

    together = endpoint(host, with_host=f"ssh://root@{host.name}")
    done = engine.reach(session(journal, together), ON, MANNER)
    assert [change.setting for change in done.changes] == [PARAMETER, DROP_IN]
    assert status(done)[PROOF] is Status.PASS
    assert done.conclusion is Status.PASS
    assert (host.nested, host.read(DROP_IN)) == ("1", content("kvm_amd", nested=True))

    run = journal.find(None)
    recorded = {**run.endpoint}  # as undo connects
    assert engine.undo(session(journal, recorded), run, MANNER).conclusion is Status.PASS
    assert (host.nested, host.sh("ls /etc/modprobe.d").split()) == ("0", ["kvm.conf"])
    assert host.libvirt.virsh("domstate", "web-01").strip() == "running"


def draining(host: KvmHost, journal: Journal, name: str) -> Session:
    target = Target("host", f"ssh://root@{host.name}")
    backend = backends.connect(target, {"ssh_config": str(host.ssh_config), "drain": name})
    return Session(backend, target, backend.find(target.name), journal, "--host", timeout=TIMEOUT)


def test_a_vm_in_the_way_is_drained_by_name_and_after_a_power_cut_undo_starts_it(
    host: KvmHost, journal: Journal, tmp_path: Path
) -> None:
    with pytest.raises(TargetError, match="no running VM called"):
        draining(host, journal, "db-01")
    job = {
        "backend": "host",
        "endpoint": {"ssh_config": str(host.ssh_config), "drain": "web-01"},
        "name": f"ssh://root@{host.name}",
        "step": "APPLY",
        "state": str(tmp_path / "state"),
        "timeout": TIMEOUT,
    }
    command = [sys.executable, "-m", "tests.contract.killed", json.dumps(job)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert host.libvirt.virsh("domstate", "web-01").strip() == "shut off"

    run = journal.find(None)
    backend = backends.connect(run.target, run.endpoint)
    again = Session(backend, run.target, backend.find(run.vm.id), journal, "--host", timeout=TIMEOUT)
    engine.undo(again, run, MANNER)
    assert (host.nested, host.sh("ls /etc/modprobe.d").split()) == ("0", ["kvm.conf"])
    assert host.libvirt.virsh("domstate", "web-01").strip() == "running"

    host.libvirt.wait_agent("web-01")
    done_at_last = engine.reach(draining(host, journal, "web-01"), ON, MANNER)
    assert (done_at_last.conclusion, host.nested) == (Status.PASS, "1")
    assert host.libvirt.virsh("domstate", "web-01").strip() == "running"


def test_a_proxmox_vm_and_its_node(idle_host: KvmHost, rig: ProxmoxRig, journal: Journal) -> None:
    """The node's API is the simulator's, its kernel is real."""
    rig.pve.add("web-01", running=True, cpu="x86-64-v2-AES")
    before = rig.see("web-01")
    target = Target("proxmox", "web-01")
    below = {"with_host": f"ssh://root@{idle_host.name}", "host_ssh_config": str(idle_host.ssh_config)}
    with pytest.raises(TargetError, match="not on the host"):
        backends.connect(target, {**rig.endpoint, **below}).find("web-01")

    idle_host.sh("hostname pve1")
    backend = backends.connect(target, {**rig.endpoint, **below})
    now = Session(backend, target, backend.find("web-01"), journal, "--proxmox web-01", timeout=TIMEOUT)
    done = engine.reach(now, ON, MANNER)
    assert [change.setting for change in done.changes] == [PARAMETER, DROP_IN, "cpu"]
    assert (done.conclusion, idle_host.nested) == (Status.PASS, "1")
    engine.undo(now, journal.find(None), MANNER)
    after = rig.see("web-01")
    assert (idle_host.nested, after.stored, after.running) == ("0", before.stored, True)
