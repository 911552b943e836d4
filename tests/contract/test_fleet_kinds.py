"""Five kinds of hypervisors in one run: libvirt, Proxmox, vSphere, Hyper-V, one in memory; one is down."""

from __future__ import annotations

import contextlib
import json
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from nestvirt import backends
from nestvirt.backends.base import Listed, Listing
from nestvirt.model import Target
from tests.contract.rig import Rig
from tests.lab.libvirtd import LibvirtLab
from tests.peers.hyperv_rig import HyperVRig
from tests.peers.libvirt_rig import LibvirtRig
from tests.peers.memory_fleet import COMMAND, MemoryFleet
from tests.peers.proxmox_rig import ProxmoxRig
from tests.peers.vmrun_rig import VmrunRig
from tests.peers.vsphere import VSphere
from tests.peers.vsphere_rig import VSphereRig

TIMEOUT = 300


@pytest.fixture
def libvirt_rig(libvirt_lab: LibvirtLab) -> Iterator[LibvirtRig]:
    rig = LibvirtRig(libvirt_lab)
    yield rig
    rig.remove_all()


@pytest.fixture
def vsphere_rig(vcenter: VSphere) -> VSphereRig:
    return VSphereRig(vcenter)


def profile(name: str, rig: Rig, **others: str) -> str:
    """A profile of the configuration file, and what its secrets are in is that file alone."""
    values = {"backend": rig.backend, **rig.endpoint, **others}
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join([f"[profiles.{name}]", *lines, ""])


def listed(rig: Rig) -> dict[str, Listed]:
    """All VMs of a peer as the backend lists them, by their name."""
    backend = backends.connect(Target(rig.backend, "*"), rig.endpoint)
    try:
        assert isinstance(backend, Listing)
        return {one.vm.name: one for one in backend.listed()}
    finally:
        backend.close()


class TestListing:
    """What each backend lists is what its ``find`` finds, and what the oracle sees."""

    def agree(self, rig: Rig, names: Mapping[str, str]) -> dict[str, Listed]:
        """Each VM stands as it was made, and is found again by the name that it is listed with."""
        found = listed(rig)
        assert {name: found[name].nesting for name in names} == dict(names)
        backend = backends.connect(Target(rig.backend, "*"), rig.endpoint)
        for name in names:
            assert backend.find(found[name].name) == found[name].vm
            assert (found[name].power == "running") is rig.see(name).running
        backend.close()
        return found

    def test_libvirt(self, libvirt_rig: LibvirtRig) -> None:
        rig = libvirt_rig
        on, off, pending = rig.make(nested=True), rig.make(running=False), rig.make(agent="none")
        rig.edit(pending, nested=True)
        self.agree(rig, {on: "on", off: "off", pending: "pending"})

    def test_proxmox(self, rig: ProxmoxRig) -> None:
        on, off, pending = rig.make(nested=True), rig.make(running=False), rig.make(tags="k8s;prod")
        rig.edit(pending, nested=True)
        found = self.agree(rig, {on: "on", off: "off", pending: "pending"})
        assert found[pending].labels["tag"] == ("k8s", "prod")
        assert found[pending].labels["node"] == ("pve1",)

    def test_proxmox_paused_and_suspended(self, rig: ProxmoxRig) -> None:
        paused, saved = rig.make(nested=True), rig.make(nested=True)
        rig.vm(paused).pause()
        rig.vm(saved).hibernate()
        found = listed(rig)
        assert (found[paused].power, found[paused].nesting) == ("suspended", "on")
        assert found[saved].power == "stopped"
        assert found[saved].note.startswith("suspended")

    def test_hyperv(self, hyperv: HyperVRig) -> None:
        rig = hyperv
        on, off = rig.make(nested=True), rig.make(running=False)
        found = self.agree(rig, {on: "on", off: "off"})
        assert found[on].labels["host"] == (rig.host.name,)

    def test_vmx(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        with contextlib.closing(VmrunRig(tmp_path / "vmware")) as rig:
            on, off = rig.make(nested=True), rig.make(running=False)
            elsewhere = tmp_path / "elsewhere/own.vmx"
            elsewhere.parent.mkdir()
            elsewhere.write_bytes(Path(on).read_bytes())
            library = tmp_path / ".vmware/inventory.vmls"
            library.parent.mkdir()
            library.write_text(f'vmlist1.config = "{elsewhere}"\nvmlist2.config = "{tmp_path}/gone.vmx"\n')
            backend = backends.connect(Target("vmx", "*"), rig.endpoint)
            assert isinstance(backend, Listing)
            found = {one.name: (one.nesting, str(one.power)) for one in backend.listed()}
            expected = {on: ("on", "running"), off: ("off", "stopped"), str(elsewhere): ("on", "stopped")}
            assert found == expected
            assert all(backend.find(one.name) == one.vm for one in backend.listed())

    def test_vsphere(self, vsphere_rig: VSphereRig) -> None:
        rig = vsphere_rig
        on = rig.lab.make(nested=True, folder="k8s")
        off = rig.lab.make(running=False)
        found = self.agree(rig, {on: "on", off: "off"})
        assert found[on].labels["folder"] == ("/DC0/vm/k8s", f"/DC0/vm/k8s/{on}")
        assert found[on].labels["cluster"] == ("DC0_C0",)
        assert found[on].labels["host"] == ("DC0_C0_H0",)
        assert found[off].labels["folder"][0] == "/DC0/vm"

    def test_vsphere_two_of_one_name_are_listed_with_their_ids(self, vsphere_rig: VSphereRig) -> None:
        rig = vsphere_rig
        rig.lab.make("twin", running=False, folder="a")
        rig.lab.make("twin", running=False, folder="b")
        backend = backends.connect(Target("vsphere", "*"), rig.endpoint)
        assert isinstance(backend, Listing)
        twins = [one for one in backend.listed() if one.vm.name == "twin"]
        assert len({one.name for one in twins}) == 2
        assert all(backend.find(one.name) == one.vm for one in twins)
        backend.close()

    def test_vsphere_reads_many_at_once_just_as_it_reads_one(self, vsphere_rig: VSphereRig) -> None:
        rig = vsphere_rig
        names = [rig.lab.make(nested=n % 2 == 0, folder="k8s" if n else "") for n in range(4)]
        rig.lab.snapshot(names[0], "before", memory=True)
        many = backends.connect(Target("vsphere", "*"), rig.endpoint)
        one = backends.connect(Target("vsphere", "*"), rig.endpoint)
        assert isinstance(many, Listing)
        vms = [found.vm for found in many.listed() if found.vm.name in names]
        many.foresee(vms)  # type: ignore[attr-defined]
        rig.lab.clear()
        assert [many.read(vm) for vm in vms] == [one.read(one.find(vm.name)) for vm in vms]
        assert rig.lab.counts()["RetrievePropertiesEx"] == 2 * len(vms)  # of the one alone: a name, and it
        many.close()
        one.close()


class Everything:
    """The peers, each a profile of one user, and a fifth profile that leads nowhere."""

    def __init__(self, folder: Path, **rigs: Any) -> None:
        self.memory, self.rigs = MemoryFleet(folder), rigs
        config = "".join(profile(name, rig) for name, rig in self.rigs.items())
        proxmox = rigs["proxmox"]
        config += profile("gone", proxmox, endpoint=proxmox.dead_endpoint["endpoint"])
        path = folder / "config.toml"
        path.write_text(config, encoding="utf-8")
        path.chmod(0o600)

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *args],
            env=self.memory.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )


@pytest.fixture
def everything(
    tmp_path: Path, libvirt_rig: LibvirtRig, rig: ProxmoxRig, vsphere_rig: VSphereRig, hyperv: HyperVRig
) -> Everything:
    return Everything(tmp_path, libvirt=libvirt_rig, proxmox=rig, vsphere=vsphere_rig, hyperv=hyperv)


def test_five_kinds_in_one_run_one_down_two_blocked(everything: Everything) -> None:
    """The right table, the right exit code, and JUnit that says the same."""
    libvirt, proxmox, vsphere, hyperv = everything.rigs.values()
    good = {
        f"libvirt@libvirt:{(in_libvirt := libvirt.make())}": (libvirt, in_libvirt),
        f"proxmox@proxmox:{(in_proxmox := proxmox.make())}": (proxmox, in_proxmox),
        f"vsphere@vsphere:{(in_vsphere := vsphere.make())}": (vsphere, in_vsphere),
        f"hyperv@hyperv:{(in_hyperv := hyperv.make())}": (hyperv, in_hyperv),
    }
    everything.memory.add("good")
    blocked = dict.fromkeys(
        [f"proxmox@proxmox:{(paused := proxmox.make())}", "memory:asleep"], "vm-suspended"
    )
    proxmox.suspend(paused)
    everything.memory.add("asleep", power="suspended")
    names = [*good, "memory:good", *blocked, "proxmox@gone:100"]
    listed = json.loads(everything.run("list", *names, "-o", "json").stdout)
    stands = {vm["name"]: vm["nesting"] for vm in listed["vms"]}
    assert {stands[name] for _, name in good.values()} == {"off"}
    assert [failed["endpoint"] for failed in listed["errors"]] == ["proxmox@gone"]
    done = everything.run("enable", *names, "--yes", "-o", "json", "--timeout", "60")
    rows = {row["target"]: row for row in json.loads(done.stdout)["fleet"]}
    assert list(rows) == names
    assert {name: rows[name]["ending"] for name in good} == dict.fromkeys(good, "pass"), rows
    assert rows["memory:good"]["ending"] == "pass"
    assert {name: rows[name]["report"]["first_broken"] for name in blocked} == blocked
    assert rows["proxmox@gone:100"]["error"]["kind"] == "ConnectionFailed"
    assert rows["proxmox@gone:100"]["ending"] == "unknown"
    assert done.returncode == 1
    assert all(rig.see(name).nested and rig.see(name).running for rig, name in good.values())
    assert everything.rigs["proxmox"].token not in done.stdout + done.stderr

    checked = everything.run("check", *names, "-o", "junit")
    suites = ET.fromstring(checked.stdout).findall("testsuite")  # noqa: S314 - our own
    ill = {s.get("name") for s in suites if int(s.get("failures", 0)) + int(s.get("errors", 0))}
    assert len(suites) == len(names)
    assert {name for name in names if any(name in str(suite) for suite in ill)} == {
        *blocked,
        "proxmox@gone:100",
    }
    again = everything.run("list", *good, "-o", "json")
    assert all(vm["nesting"] == "on" and vm["proven"] for vm in json.loads(again.stdout)["vms"])


def taken_back(everything: Everything, done: subprocess.CompletedProcess[str]) -> None:
    """Undo a whole run, of which there is the report."""
    run = json.loads(done.stdout)["run"]
    undone = everything.run("undo", run, "--yes", "--timeout", "100", "-o", "json")
    assert undone.returncode == 0, undone.stdout + undone.stderr


@pytest.mark.parametrize("kind", ["libvirt", "proxmox", "vsphere", "hyperv"])
def test_many_of_one_hypervisor_share_one_connection(everything: Everything, kind: str) -> None:
    """All at once, and each is enabled, proven, and disabled again as if it were alone."""
    rig = everything.rigs[kind]
    names = [rig.make() for _ in range(2 if kind == "libvirt" else 5)]
    before = {name: rig.see(name) for name in names}
    targets = [f"{kind}@{kind}:{name}" for name in names]
    if kind == "vsphere":
        rig.lab.clear()
    done = everything.run("enable", *targets, "--yes", "--parallel", "8", "--timeout", "100", "-o", "json")
    rows = json.loads(done.stdout)["fleet"]
    assert [row["ending"] for row in rows] == ["pass"] * len(names), done.stdout + done.stderr
    for name in names:
        seen = rig.see(name)
        assert (seen.nested, seen.running) == (True, True)
        assert seen.others == before[name].others
        assert seen.boot != before[name].boot
    if kind == "vsphere":
        assert rig.lab.counts()["Login"] == 1
    if kind == "hyperv":  # VMs run inside by now
        return
    if kind == "libvirt":  # VMs that boot for real take their time
        taken_back(everything, done)
        assert all(rig.see(name).stored == before[name].stored for name in names)
        return
    boots = [rig.see(name).boot for name in names]
    assert everything.run("enable", *targets, "--yes").returncode == 0
    assert [rig.see(name).boot for name in names] == boots
    disabled = everything.run("disable", *targets, "--yes", "--timeout", "100", "-o", "json")
    assert disabled.returncode == 0, disabled.stdout + disabled.stderr
    assert all(rig.see(name).stored == before[name].stored for name in names)
    taken_back(everything, disabled)
    assert all(rig.see(name).nested for name in names)
    taken_back(everything, done)
    assert all(rig.see(name).stored == before[name].stored for name in names)


def test_a_vm_that_only_vsphere_knows_by_its_further_name_is_worked_on_once(everything: Everything) -> None:
    rig = everything.rigs["vsphere"]
    names = [rig.make() for _ in range(4)]
    moref = listed(rig)[names[1]].vm.id.rpartition("#")[2]
    targets = [f"vsphere@vsphere:{name}" for name in (*names, moref)]
    done = everything.run("enable", *targets, "--yes", "--timeout", "100", "-o", "json")
    rows = json.loads(done.stdout)["fleet"]
    assert [(row["target"], row["ending"]) for row in rows] == [(target, "pass") for target in targets], rows
    assert [row["changed"] for row in rows] == [True] * 4 + [False]
    assert rows[-1]["note"] == f"the same VM as {targets[1]}"
    assert all(rig.see(name).nested and rig.see(name).running for name in names)
