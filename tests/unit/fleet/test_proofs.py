"""When a VM was last proven."""

from __future__ import annotations

import json
from pathlib import Path

from nestvirt.fleet.proofs import Proofs
from nestvirt.model import PROOF, Finding, Layer, Proof, Report, Status, Vm

A, B = Vm("u-a", "a"), Vm("u-b", "b")


def report(status: Status) -> Report:
    proof = Proof("works", None, "agent", {"exit_ns": 1234.5})
    return Report("libvirt:a", (Finding(PROOF, Layer.GUEST, status, "seen"),), proof=proof)


def test_a_proof_is_kept_for_its_vm_alone(tmp_path: Path) -> None:
    proofs = Proofs(tmp_path)
    proofs.keep("libvirt", A, report(Status.PASS))
    found = proofs.last("libvirt", A)
    assert found is not None
    assert found.exit_ns == 1234.5
    assert found.time.endswith("+00:00")
    assert proofs.last("libvirt", B) is None
    assert proofs.last("proxmox", A) is None


def test_it_is_the_vms_whichever_backend_it_was_named_to(tmp_path: Path) -> None:
    proofs = Proofs(tmp_path)
    proofs.keep("vagrant", Vm("u-a", "a", "libvirt"), report(Status.PASS))
    assert proofs.last("libvirt", A) is not None


def test_what_proves_nothing_leaves_no_trace(tmp_path: Path) -> None:
    for status in (Status.FAIL, Status.UNKNOWN, Status.SKIP):
        Proofs(tmp_path).keep("libvirt", A, report(status))
    assert list(tmp_path.iterdir()) == []


def test_a_failure_later_does_not_take_the_proof_away(tmp_path: Path) -> None:
    proofs = Proofs(tmp_path)
    proofs.keep("libvirt", A, report(Status.PASS))
    proofs.keep("libvirt", A, report(Status.FAIL))
    assert proofs.last("libvirt", A) is not None


def test_a_folder_that_cannot_be_written_or_a_broken_file_is_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    Proofs(tmp_path / "file").keep("libvirt", A, report(Status.PASS))
    assert Proofs(tmp_path / "file").last("libvirt", A) is None
    proofs = Proofs(tmp_path)
    proofs.keep("libvirt", A, report(Status.PASS))
    for path in (tmp_path / "proofs").iterdir():
        path.write_text("[]")
    assert proofs.last("libvirt", A) is None


def test_another_vm_at_the_place_of_one_that_is_gone_is_not_proven(tmp_path: Path) -> None:
    proofs = Proofs(tmp_path)
    proofs.keep("vmx", Vm("/vms/a.vmx", "a", uuid="56 4d"), report(Status.PASS))
    assert proofs.last("vmx", Vm("/vms/a.vmx", "renamed", uuid="56 4d")) is not None
    assert proofs.last("vmx", Vm("/vms/a.vmx", "a", uuid="00 01")) is None
    assert proofs.last("vmx", Vm("/vms/a.vmx", "never started")) is None


def test_a_proof_from_before_uuids_were_kept_counts(tmp_path: Path) -> None:
    proofs, vm = Proofs(tmp_path), Vm("/vms/a.vmx", "a", uuid="56 4d")
    proofs.keep("vmx", vm, report(Status.PASS))
    [path] = (tmp_path / "proofs").iterdir()
    told = json.loads(path.read_text())
    del told["uuid"]
    path.write_text(json.dumps(told))
    assert proofs.last("vmx", vm) is not None
