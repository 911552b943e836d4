"""Peers that are brought up once for all tests that ask for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nestvirt.backends import base
from tests.lab import LabError, need
from tests.lab.k8s import ControlPlane
from tests.lab.kdc import Kdc
from tests.lab.kvmhost import KvmHost
from tests.lab.libvirtd import LibvirtLab
from tests.peers import kubelet_run
from tests.peers.hyperv_rig import HyperVLab
from tests.peers.kubelet import Cluster, Kubelets
from tests.peers.vsphere import VSphere
from tests.peers.winrm.pki import Certificates
from tests.peers.winrm.server import OPS

AT_ONCE = 0.02
"""Seconds until it is looked a second time at a peer that does everything at once."""


@pytest.fixture(scope="session")
def libvirt_lab() -> Iterator[LibvirtLab]:
    """An isolated libvirtd with guests that really boot."""
    try:
        lab = LibvirtLab()
    except (LabError, OSError) as error:
        need(error, "the lab's libvirtd cannot be brought up")
        raise
    with lab:
        yield lab


@pytest.fixture(scope="session")
def kvm_host() -> Iterator[KvmHost]:
    """A real KVM host, reached over SSH. Tests share it: bring it into a known state with reload()."""
    try:
        host = KvmHost()
    except (LabError, OSError) as error:
        need(error, "the lab's KVM host cannot be brought up")
        raise
    with host:
        yield host


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """A real Kubernetes control plane without nodes, and a registry with the stub charts. Tests share it.

    ``.kubeconfig``, ``.context`` ("lab"), ``.kubectl``, ``.helm3``, ``.helm4``, ``.path("4")`` (a folder with
    kubectl and that helm, for a PATH), ``.chart_file("3.25.0")``, ``.stop_api()``, ``.start_api()``,
    ``.requests()`` (what kubectl and helm asked since ``.forget_requests()``).
    """
    try:
        plane = ControlPlane()
    except (LabError, OSError) as error:
        need(error, "the lab's control plane cannot be brought up")
        raise
    with plane:
        yield plane


@pytest.fixture(scope="session")
def chart_url(control_plane: ControlPlane) -> str:
    """The stub charts 3.24.0, 3.25.0 and 4.1.0 in a real registry (plain HTTP): oci://127.0.0.1:PORT/…"""
    control_plane.push_charts("3.24.0", "3.25.0", "4.1.0")
    return control_plane.chart_url


@pytest.fixture(scope="session")
def kubelets(control_plane: ControlPlane) -> Iterator[Kubelets]:
    """Played kubelets, without nodes; tests ask for ``cluster``."""
    kubelet_run.need_root()
    with Kubelets(control_plane) as played:
        yield played


@pytest.fixture
def cluster(kubelets: Kubelets) -> Iterator[Cluster]:
    """A cluster without nodes, releases and RuntimeClasses; whatever is made in it is removed afterwards.

    ``cluster.add("worker-1", Machine(kvm="no-device"))`` adds a node; ``.node("worker-1").root`` is its /, a
    folder. ``cluster.ill(Ill.IMAGE_PULL, node=…, runtime_class=…)`` lets things go wrong, ``.heal()`` not any
    more. ``.install("3.25.0", ("qemu",))`` installs a stub chart. ``.kubectl(…)``, ``.objects("pods")``.
    """
    made = Cluster(kubelets)
    yield made
    made.clear()
    failures, kubelets.failures[:] = list(kubelets.failures), []
    assert failures == []


@pytest.fixture(scope="session")
def vcenter_process() -> Iterator[VSphere]:
    """A vCenter, of which each test gets a clean one: ask for vcenter."""
    yield from _vsphere(esx=False)


@pytest.fixture(scope="session")
def esxi_process() -> Iterator[VSphere]:
    """An ESXi host; ask for esxi."""
    yield from _vsphere(esx=True)


@pytest.fixture
def vcenter(vcenter_process: VSphere, monkeypatch: pytest.MonkeyPatch) -> VSphere:
    """A vCenter with govmomi's usual inventory: a host DC0_H0, a cluster DC0_C0 of three, four VMs."""
    monkeypatch.setattr(base, "FIRST_PAUSE", AT_ONCE)
    vcenter_process.reset()
    return vcenter_process


@pytest.fixture
def esxi(esxi_process: VSphere, monkeypatch: pytest.MonkeyPatch) -> VSphere:
    """An ESXi host without a vCenter, with two VMs."""
    monkeypatch.setattr(base, "FIRST_PAUSE", AT_ONCE)
    esxi_process.reset()
    return esxi_process


@pytest.fixture(scope="session")
def certificates() -> Iterator[Certificates]:
    """What a Windows host shows over HTTPS, and what somebody can log in to it with."""
    with Certificates() as made:
        yield made


@pytest.fixture
def hyperv_lab(certificates: Certificates) -> Iterator[HyperVLab]:
    """A Hyper-V host of its own for each test: ``.host`` is its state, ``.endpoint`` its WinRM service.

    A test with a script that this PowerShell does not know, or that does what nobody should do to a host,
    fails at its end; one that means to takes it out of ``.host.wrongs``.
    """
    with HyperVLab(certificates) as lab:
        yield lab
        assert lab.wrongs() == []


@pytest.fixture(scope="session")
def kdc_process() -> Iterator[Kdc]:
    """A Kerberos realm; ask for kdc."""
    try:
        lab = Kdc({OPS.principal: OPS.password})
    except (LabError, OSError) as error:
        need(error, "the lab's KDC cannot be brought up")
        raise
    with lab:
        yield lab


@pytest.fixture
def kdc(kdc_process: Kdc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kdc]:
    """A Kerberos realm that this process belongs to, without a ticket: ``kdc.login(OPS.principal)``.

    ``.stop()`` and ``.start(ahead=600)`` are made good afterwards.
    """
    for name, value in kdc_process.environment(tmp_path / "tickets").items():
        monkeypatch.setenv(name, value)
    yield kdc_process
    kdc_process.stop()
    kdc_process.start()


def _vsphere(*, esx: bool) -> Iterator[VSphere]:
    try:
        lab = VSphere(esx=esx)
    except (LabError, OSError) as error:
        need(error, "the vSphere peer cannot be brought up")
        raise
    with lab:
        yield lab
