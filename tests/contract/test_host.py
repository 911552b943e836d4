"""The host itself, on a real kernel: its kvm_amd, its modprobe.d, its initramfs; reached over SSH."""

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
from nestvirt.errors import AccessDenied, ConnectionFailed, TargetError
from nestvirt.journal import Journal
from nestvirt.model import Finding, Power, Report, Status, Target
from tests.contract.basis import MANNER, ON
from tests.lab.kvmhost import KvmHost

OURS = "/etc/modprobe.d/zz-nestvirt.conf"
ZERO = "options kvm_amd nested=0\n"
ON_TEXT = content("kvm_amd", nested=True)


@pytest.fixture
def host(kvm_host: KvmHost) -> Iterator[KvmHost]:
    yield kvm_host
    kvm_host.reload()


def session(host: KvmHost, journal: Journal) -> Session:
    target = Target("host", f"ssh://root@{host.name}")
    backend = backends.connect(target, {"ssh_config": str(host.ssh_config)})
    spelling = f"--host {target.name}"
    return Session(backend, target, backend.find(target.name), journal, spelling, timeout=60)


def enable(host: KvmHost, journal: Journal) -> Report:
    return engine.reach(session(host, journal), ON, MANNER)


def found(report: Report, check: str) -> Finding:
    [finding] = [f for f in report.findings if f.check == check]
    return finding


def configs(host: KvmHost) -> dict[str, str]:
    return {path: host.read(path) for path in host.sh("ls -d /etc/modprobe.d/* 2>/dev/null || true").split()}


def off_by(host: KvmHost, name: str = "kvm.conf") -> dict[str, str]:
    """A host that somebody has configured so."""
    host.write(f"/etc/modprobe.d/{name}", ZERO)
    host.sh("modprobe -r kvm_amd; modprobe kvm_amd")
    assert host.nested == "0"
    return configs(host)


def test_enabled_over_a_drop_in_that_sorts_before_proven_and_undone(host: KvmHost, journal: Journal) -> None:
    before = off_by(host, "kvm.conf")
    checked = engine.check(session(host, journal), ON)
    assert checked.first_broken is not None
    assert checked.first_broken.check == "host-nested"
    assert "/etc/modprobe.d/kvm.conf:1" in checked.first_broken.evidence

    result = enable(host, journal)
    assert result.conclusion is Status.PASS
    assert found(result, "host-kvm-offers").status is Status.PASS
    assert (host.nested, configs(host)) == ("1", {**before, OURS: ON_TEXT})
    again = enable(host, journal)
    assert (again.conclusion, again.changes, again.run) == (Status.PASS, (), None)

    undone = engine.undo(session(host, journal), journal.find(result.run), MANNER)
    assert undone.conclusion is Status.PASS
    assert (host.nested, configs(host)) == ("0", before)


def test_enabled_over_a_drop_in_that_sorts_after(host: KvmHost, journal: Journal) -> None:
    before = off_by(host, "zzz.conf")
    assert enable(host, journal).conclusion is Status.PASS
    assert (host.nested, configs(host)) == ("1", {**before, "/etc/modprobe.d/zzzz-nestvirt.conf": ON_TEXT})


def test_module_that_is_not_loaded_is_loaded(host: KvmHost, journal: Journal) -> None:
    host.sh("modprobe -r kvm_amd")
    checked = engine.check(session(host, journal), ON)
    assert checked.first_broken is not None
    assert checked.first_broken.check == "host-module"
    result = enable(host, journal)
    assert (result.conclusion, result.changes, host.nested) == (Status.PASS, (), "1")


def test_while_a_vm_runs_it_is_configured_and_not_effective(host: KvmHost, journal: Journal) -> None:
    off_by(host)
    host.start_vm("web-01")
    result = enable(host, journal)
    assert result.conclusion is Status.FAIL
    assert "web-01 (pid" in found(result, "host-users").evidence
    assert "or reboot it" in result.remains[0]
    assert (host.nested, configs(host)[OURS], host.vms()) == ("0", ON_TEXT, ["web-01"])
    host.stop_vm("web-01")
    assert enable(host, journal).conclusion is Status.PASS
    assert host.nested == "1"


def test_loaded_with_another_parameter_than_configured_is_loaded_anew(
    host: KvmHost, journal: Journal
) -> None:
    host.reload("0")
    host.write("/etc/modprobe.d/kvm.conf", "options kvm_amd nested=1\n")
    before = configs(host)
    result = enable(host, journal)
    assert (result.conclusion, result.changes, host.nested) == (Status.PASS, (), "1")
    assert configs(host) == before


def test_on_now_and_off_after_the_next_boot_is_noticed(host: KvmHost, journal: Journal) -> None:
    host.write("/etc/modprobe.d/kvm.conf", ZERO)
    checked = engine.check(session(host, journal), ON)
    assert checked.first_broken is not None
    assert checked.first_broken.check == "host-nested-next-boot"
    assert enable(host, journal).conclusion is Status.PASS
    host.restart()
    assert host.nested == "1"


def test_initramfs_that_brings_the_module_along_is_built_anew(host: KvmHost, journal: Journal) -> None:
    host.write("/etc/initramfs-tools/modules", "kvm_amd\n")
    host.write("/etc/modprobe.d/kvm.conf", ZERO)
    host.sh("update-initramfs -c -k $(uname -r)")
    host.restart(initramfs=True)
    assert host.nested == "0"
    result = enable(host, journal)
    assert result.conclusion is Status.PASS
    assert "zz-nestvirt.conf" in host.sh("lsinitramfs /boot/initrd.img-$(uname -r)")
    host.restart(initramfs=True)
    assert host.nested == "1"
    host.restart()


def test_read_only_etc_blocks(host: KvmHost, journal: Journal) -> None:
    before = off_by(host)
    with host.read_only_etc():
        result = enable(host, journal)
    assert [f.check for f in result.blockers] == ["host-writable"]
    assert (host.nested, configs(host)) == ("0", before)


def test_another_hypervisors_module_is_named(host: KvmHost, journal: Journal) -> None:
    with host.another_module("vboxdrv"):
        finding = found(engine.check(session(host, journal), ON), "host-other-hypervisor")
    assert finding.status is Status.WARN
    assert "vboxdrv (VirtualBox)" in finding.evidence


def test_after_a_power_cut_between_write_and_reload_undo_restores(
    host: KvmHost, journal: Journal, tmp_path: Path
) -> None:
    before = off_by(host)
    job = {
        "backend": "host",
        "endpoint": {"ssh_config": str(host.ssh_config)},
        "name": f"ssh://root@{host.name}",
        "step": "START",
        "state": str(tmp_path / "state"),
        "timeout": 60,
    }
    command = [sys.executable, "-m", "tests.contract.killed", json.dumps(job)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    seen = session(host, journal)
    assert seen.backend.read(seen.vm).power is Power.STOPPED  # the module was unloaded, and is owed
    engine.undo(session(host, journal), journal.find(None), MANNER)
    assert (host.nested, configs(host)) == ("0", before)


def test_host_that_is_named_wrongly_or_does_not_answer(host: KvmHost, tmp_path: Path) -> None:
    with pytest.raises(TargetError):
        backends.connect(Target("host", "pve1"), {})
    with pytest.raises(ConnectionFailed) as caught:
        backends.connect(Target("host", "ssh://root@127.0.0.1:1"), {})
    assert "ControlPath" not in caught.value.cure
    strange = tmp_path / "ssh_config"
    strange.write_text(host.ssh_config.read_text().replace("IdentityFile", "#"))
    with pytest.raises(AccessDenied):
        backends.connect(Target("host", f"ssh://root@{host.name}"), {"ssh_config": str(strange)})
