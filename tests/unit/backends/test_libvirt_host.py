# ruff: noqa: N802 - the names are libvirt's own
"""What is asked about a host, and what its answers are taken for."""

from __future__ import annotations

from pathlib import Path

import pytest

from nestvirt.backends.libvirt import host
from nestvirt.backends.libvirt.domain import HostFacts, HostModel, Platform
from tests.unit.backends.domains import domain
from tests.unit.backends.fakes import FakeLibvirt, FakeLibvirtError

CAPABILITIES = """<capabilities><host><cpu><vendor>{vendor}</vendor></cpu></host>
<guest><arch name='x86_64'><domain type='qemu'/><domain type='kvm'/></arch></guest></capabilities>"""
# As libvirt 9 prints it: what differs from EPYC, which contains svm.
MODES = """<domainCapabilities><cpu>
  <mode name='host-passthrough' supported='yes'/>
  <mode name='host-model' supported='{supported}'><model fallback='forbid'>EPYC</model><vendor>AMD</vendor>
    <maxphysaddr mode='passthrough' limit='48'/>
    <feature policy='require' name='npt'/><feature policy='disable' name='vme'/></mode>
  <mode name='custom' supported='yes'><model usable='yes' vendor='AMD'>EPYC</model>
    <model usable='no' vendor='Intel'>Nehalem</model></mode>
</cpu></domainCapabilities>"""
EXPANDED = """<cpu mode='custom' match='exact'><model>EPYC</model><feature policy='require' name='svm'/>
<feature policy='require' name='npt'/><feature policy='disable' name='vme'/></cpu>"""


class Host:
    """A connection to one."""

    def __init__(
        self,
        vendor: str = "AMD",
        uri: str = "qemu:///system",
        supported: str = "yes",
        expanded: str | None = EXPANDED,
    ) -> None:
        self._vendor, self._uri, self._supported, self._expanded = vendor, uri, supported, expanded
        self.asked: list[str] = []

    def getURI(self) -> str:
        return self._uri

    def getCapabilities(self) -> str:
        return CAPABILITIES.format(vendor=self._vendor)

    def getDomainCapabilities(self, *platform: str | int) -> str:
        assert platform == ("/usr/bin/qemu-system-x86_64", "x86_64", "pc-q35-7.2", "kvm", 0)
        return MODES.format(supported=self._supported)

    def baselineHypervisorCPU(
        self, emulator: str, arch: str, machine: str, kind: str, cpus: list[str], flags: int
    ) -> str:
        assert (emulator, arch, machine, kind, flags) == (
            "/usr/bin/qemu-system-x86_64",
            "x86_64",
            "pc-q35-7.2",
            "kvm",
            1,
        )
        self.asked += cpus
        if self._expanded is None:
            raise FakeLibvirtError("this function is not supported by the connection driver")
        return self._expanded


def read(connection: Host) -> HostFacts:
    return host.read_host(FakeLibvirt(), connection, Platform.parse(domain()))


def test_host_model_is_expanded_with_what_its_base_model_has() -> None:
    connection = Host()
    model = read(connection).host_model
    assert model == HostModel({"npt": True, "vme": False}, frozenset({"svm", "npt"}))
    assert (model.has("svm"), model.has("vme"), model.has("vmx")) == (True, False, False)
    (cpu,) = connection.asked
    assert cpu.startswith('<cpu mode="custom" match="exact"><model fallback="forbid">EPYC</model>')
    assert "maxphysaddr" not in cpu


def test_host_model_that_is_not_expanded_leaves_open_what_it_does_not_list() -> None:
    model = read(Host(expanded=None)).host_model
    assert (model.has("npt"), model.has("vme"), model.has("svm")) == (True, False, None)


def test_host_model_that_is_not_supported_says_nothing() -> None:
    connection = Host(supported="no")
    assert read(connection).host_model == HostModel()
    assert connection.asked == []


def test_usable_models_only() -> None:
    assert read(Host()).models == {"EPYC": "AMD"}


@pytest.mark.parametrize(
    ("vendor", "uri", "nested"),
    [
        pytest.param("AMD", "qemu:///system", "1", id="AMD"),
        pytest.param("Hygon", "qemu:///system", "1", id="Hygon"),
        pytest.param("Intel", "qemu:///system", "N", id="Intel"),
        pytest.param("VIA", "qemu:///system", None, id="another vendor"),
        pytest.param("AMD", "qemu+ssh://node1/system", None, id="remote"),
    ],
)
def test_with_both_modules_built_in_the_cpus_own_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vendor: str, uri: str, nested: str | None
) -> None:
    for module, value in (("kvm_intel", "N"), ("kvm_amd", "1")):
        (tmp_path / module / "parameters").mkdir(parents=True)
        (tmp_path / module / "parameters/nested").write_text(f"{value}\n")
    monkeypatch.setattr(host, "_SYS_MODULE", tmp_path)
    assert read(Host(vendor, uri)).nested == nested


def test_platform_of_a_domain() -> None:
    assert Platform.parse("<domain/>") == Platform("kvm", "x86_64", None, None)
    assert Platform.parse(domain(kind="qemu", arch="i686")) == Platform(
        "qemu", "i686", "pc-q35-7.2", "/usr/bin/qemu-system-x86_64"
    )
