"""The host backend on Intel: a real kvm_intel, on the VMX of Bochs. It is slow: test_host.py has the rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nestvirt import engine
from nestvirt.backends.host import HostBackend, HostFacts
from nestvirt.backends.host.facts import content
from nestvirt.engine import Session
from nestvirt.journal import Journal
from nestvirt.model import Finding, Report, Status, Target
from tests.contract.basis import MANNER, ON
from tests.lab import LabError, need
from tests.lab.bochshost import BochsHost

DROP_IN = "/etc/modprobe.d/kvm.conf"
ZERO = "options kvm_intel nested=0\n"
OURS = "/etc/modprobe.d/zz-nestvirt.conf"


@pytest.fixture(scope="module")
def host() -> Iterator[BochsHost]:
    try:
        host = BochsHost()
    except (LabError, OSError) as error:
        need(error, "the lab's Intel host cannot be brought up")
        raise
    with host:
        yield host


def connected(host: BochsHost, tmp_path: Path) -> Session:
    backend = HostBackend(host.channel, {}, lambda: None)
    target = Target("host", "local")
    return Session(backend, target, backend.find("local"), Journal(tmp_path / "state"), "--host local")


def found(report: Report, check: str) -> Finding:
    [finding] = [f for f in report.findings if f.check == check]
    return finding


def configs(host: BochsHost) -> str:
    """The files of modprobe.d, each line with the name of its file."""
    return host.sh("cd /etc/modprobe.d && grep -r '' . | sort || true")


def test_nests_by_the_kernels_default(host: BochsHost, tmp_path: Path) -> None:
    session = connected(host, tmp_path)
    facts = session.backend.read(session.vm)
    assert isinstance(facts, HostFacts)
    assert (facts.vendor, facts.module, facts.paging) == ("intel", "kvm_intel", "Y")  # paging: its ept
    [nested] = [finding for finding in facts.judge(ON) if finding.check == "host-nested"]
    assert nested.status is Status.PASS
    assert "/sys/module/kvm_intel/parameters/nested is Y" in nested.evidence


def test_enabled_over_a_drop_in_proven_and_undone(host: BochsHost, tmp_path: Path) -> None:
    host.sh(f"cat >{DROP_IN}; modprobe -r kvm_intel; modprobe kvm_intel", ZERO.encode())
    before = configs(host)
    assert host.nested == "N"
    session = connected(host, tmp_path)
    checked = engine.check(session, ON)
    assert checked.first_broken is not None
    assert checked.first_broken.check == "host-nested"
    assert f"{DROP_IN}:1" in checked.first_broken.evidence

    result = engine.reach(session, ON, MANNER)
    assert result.conclusion is Status.PASS
    assert found(result, "host-kvm-offers").status is Status.PASS
    assert (host.nested, host.sh(f"cat {OURS}")) == ("Y", content("kvm_intel", nested=True))

    undone = engine.undo(session, session.journal.find(result.run), MANNER)
    assert undone.conclusion is Status.PASS
    assert (host.nested, configs(host)) == ("N", before)
