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

DROP_IN = "/etc/modprobe.d/zz-nestvirt.conf"
PARAMETER = "/sys/module/kvm_amd/parameters/nested"
TIMEOUT = 240


@pytest.fixture
def host(kvm_host: KvmHost) -> Iterator[KvmHost]:
    """A host that somebody has forbidden nesting, with one VM that runs."""
    kvm_host.write("/etc/modprobe.d/kvm.conf", "options kvm_amd nested=0\n")
    kvm_host.sh("modprobe -r kvm_amd; modprobe kvm_amd")
    kvm_host.libvirt.ensure()
    kvm_host.libvirt.define("web-01")
    kvm_host.libvirt.start("web-01")
    kvm_host.libvirt.wait_agent("web-01")
    yield kvm_host
    kvm_host.reload()


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "state")


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
    alone = engine.reach(session(journal, endpoint(host)), ON, MANNER)
    assert [f.check for f in alone.blockers] == ["host-nested"]
    assert "nestvirt enable --libvirt web-01 --with-host" in alone.blockers[0].cure

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


def test_another_vm_stands_in_the_way_until_it_is_drained(host: KvmHost, journal: Journal) -> None:
    where = {"ssh_config": str(host.ssh_config)}
    target = Target("host", f"ssh://root@{host.name}")
    with pytest.raises(TargetError, match="no running VM called"):
        backends.connect(target, {**where, "drain": "db-01"}).find(target.name)

    backend = backends.connect(target, {**where, "drain": "web-01"})
    drained = Session(backend, target, backend.find(target.name), journal, "--host", timeout=TIMEOUT)
    done = engine.reach(drained, ON, MANNER)
    assert (done.conclusion, host.nested) == (Status.PASS, "1")
    assert host.libvirt.virsh("domstate", "web-01").strip() == "running"


def test_after_a_power_cut_between_the_drained_vm_and_its_start_undo_starts_it(
    host: KvmHost, journal: Journal, tmp_path: Path
) -> None:
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
