"""The probe's findings on saved machines, and on runs whose outcome is played by the test."""

import ast
import grp
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nestvirt.guest import probe
from tests.unit.guest.answers import evidence, judged_well, status
from tests.unit.guest.machines import (
    AMD,
    INTEL,
    KERNEL,
    MODULES,
    NO_SVM,
    NOT_LOADED,
    Files,
    Sparse,
    build,
    cpuinfo,
    leaf,
)
from tests.unit.guest.runs import Step, broken, played

SOURCE = Path(probe.__file__)


def test_what_ran_works(tmp_path: Path) -> None:
    answer = probe.examine(str(build(tmp_path, AMD)), work=played())
    assert (answer["verdict"], answer["cause"]) == ("works", None)
    assert "400.0 M loops/s" in answer["summary"]
    assert {f["check"]: f["status"] for f in answer["findings"] if f["status"] in ("fail", "warn")} == {}
    numbers = answer["numbers"]
    assert (numbers["exit_ns"], numbers["loops_per_s"], numbers["native_loops_per_s"]) == (
        40000,
        400e6,
        500e6,
    )
    judged_well(answer)


def test_what_ran_outranks_a_missing_flag(tmp_path: Path) -> None:
    answer = probe.examine(str(build(tmp_path, AMD | NO_SVM | {"/dev/sev-guest": ""})), work=played())
    assert (answer["verdict"], answer["cause"]) == ("works", None)
    assert status(answer, "guest-cpu-flag") == status(answer, "guest-confidential") == "warn"
    judged_well(answer)


@pytest.mark.parametrize(
    ("native", "guest", "verdict"),
    [
        (4000e6, 0.8e6, "works-emulated"),
        (500e6, 400e6, "works"),
        (4.0e6, 1.0e6, "works"),  # a slow machine, whose guests are as slow
        (0, 0.8e6, "works-emulated"),  # nothing to compare with
        (0, 180e6, "works"),
    ],
)
def test_speed_tells_emulation(tmp_path: Path, native: float, guest: float, verdict: str) -> None:
    rates = played(("native_loops_per_s", native), ("loops_per_s", guest))
    answer = probe.examine(str(build(tmp_path, AMD)), work=rates)
    assert answer["verdict"] == verdict
    assert answer["cause"] == ("emulated" if verdict == "works-emulated" else None)
    judged_well(answer)


@pytest.mark.parametrize(
    ("files", "run", "check", "verdict"),
    [
        ({}, played(("exit_ns", 2000000)), "guest-kvm-exit-latency", "works"),
        ({"/sys/module/kvm_amd/parameters/npt": "0\n"}, played(), "guest-paging", "works"),
        (
            {f"{MODULES}": "kvm/kvm-amd.ko:\nkernel/drivers/vhost/vhost_net.ko:\n"},
            played(),
            "guest-vhost",
            "works",
        ),
        ({"/.dockerenv": ""}, played(), "guest-container", "works"),
    ],
)
def test_warning_does_not_change_the_verdict(
    tmp_path: Path, files: Files, run: Callable[[], Iterator[Step]], check: str, verdict: str
) -> None:
    answer = probe.examine(str(build(tmp_path, AMD | files)), work=run)
    assert answer["verdict"] == verdict
    assert [f["check"] for f in answer["findings"] if f["status"] == "warn"] == [check]
    judged_well(answer)


@pytest.mark.parametrize(
    ("files", "check", "wanted"),
    [
        (NOT_LOADED | NO_SVM, "guest-firmware", "skip"),
        (NOT_LOADED, "guest-firmware", "unknown"),
        ({}, "guest-firmware", "pass"),
        ({"/sys/module/kvm_amd/parameters/npt": "1\n"}, "guest-paging", "pass"),
        ({"/sys/module/kvm_amd/parameters/npt": None}, "guest-paging", "skip"),
        ({"/sys/module/kvm_amd/parameters/npt": "N\n"}, "guest-paging", "warn"),
        ({"/dev/vhost-net": "", "/dev/vhost-vsock": "", "/dev/net/tun": ""}, "guest-vhost", "pass"),
        ({}, "guest-vhost", "skip"),
        ({}, "guest-module-params", "pass"),
        (NOT_LOADED, "guest-module-params", "skip"),
        (NOT_LOADED, "guest-device", "skip"),
        (NOT_LOADED, "guest-kvm-run", "skip"),
        ({}, "guest-kvm-create", "skip"),
        ({}, "guest-kvm-run", "unknown"),
    ],
)
def test_single_findings(tmp_path: Path, files: Files, check: str, wanted: str) -> None:
    assert status(probe.examine(str(build(tmp_path, AMD | files))), check) == wanted


def test_nesting_is_told_apart(tmp_path: Path) -> None:
    root = str(build(tmp_path, AMD))
    assert status(probe.examine(root, work=played()), "guest-nesting") == "pass"
    without = probe.examine(root, work=played(("nests", False)))
    assert (status(without, "guest-nesting"), without["verdict"]) == ("skip", "works")
    assert "theirs cannot" in evidence(without, "guest-nesting")


@pytest.mark.parametrize(
    ("cause", "step", "check"),
    [
        ("kvm-api", "api", "guest-kvm-api"),
        ("kvm-busy", "create", "guest-kvm-create"),
        ("kvm-refused", "vcpu", "guest-kvm-vcpu"),
        ("entry-failed", "run", "guest-kvm-run"),
        ("wrong-result", "run", "guest-kvm-run"),
        ("hung", "run", "guest-kvm-run"),
        ("entry-failed", "loops_per_s", "guest-kvm-speed"),
    ],
)
def test_the_step_that_broke_bears_the_cause(tmp_path: Path, cause: str, step: str, check: str) -> None:
    root = build(tmp_path, AMD | {"/sys/module/vboxdrv/refcnt": "1\n"})
    answer = probe.examine(str(root), work=broken(cause, step))
    assert (answer["verdict"], answer["cause"]) == ("off", cause)
    assert [f["check"] for f in answer["findings"] if f["status"] == "fail"] == [check]
    if cause == "kvm-busy":
        assert "vboxdrv" in evidence(answer, check)
    judged_well(answer)


BARE: Files = {"/proc/cpuinfo": cpuinfo("AuthenticAMD", "svm")}  # not one that was given a hypervisor


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({}, "qemu"),
        ({"/sys/class/dmi/id/sys_vendor": "VMware, Inc.\n"}, "vmware"),
        ({"/sys/hypervisor/type": "xen\n"}, "xen"),
        ({"/sys/class/dmi/id/sys_vendor": None}, "unnamed"),
        ({"/sys/class/dmi/id/sys_vendor": None, "/proc/cpuinfo": cpuinfo("AuthenticAMD", "svm")}, "none"),
        (BARE | {"/sys/class/dmi/id/sys_vendor": "Microsoft Corporation\n"}, "none"),
        (BARE | {"/sys/hypervisor/type": "xen\n"}, "xen"),
        ({"/proc/cpuinfo": "vendor_id\t: AuthenticAMD\n"}, "unknown"),
        (
            {"/dev/cpu/0/cpuid": Sparse(**{"1": leaf(1 << 31), "40000000": b"\0\0\0\x40Microsoft Hv"})},
            "microsoft",
        ),
    ],
)
def test_hypervisor_is_named(tmp_path: Path, files: Files, name: str) -> None:
    answer = probe.examine(str(build(tmp_path, AMD | files)))
    assert answer["machine"]["hypervisor"] == name
    assert name in evidence(answer, "guest-hypervisor")


def test_of_another_architecture_no_hypervisor_is_claimed(tmp_path: Path) -> None:
    answer = probe.examine(str(build(tmp_path, {"/proc/cpuinfo": "CPU implementer\t: 0x41\n"})))
    assert answer["machine"]["hypervisor"] == "unknown"


def test_own_driver_counts_first(tmp_path: Path) -> None:
    """A kernel with both drivers built in."""
    both = AMD | {"/sys/module/kvm_intel/parameters/nested": "N\n", "/sys/module/kvm_pvm/uevent": ""}
    answer = probe.examine(str(build(tmp_path, both)))
    assert evidence(answer, "guest-module") == "loaded: kvm_amd, kvm_pvm"
    assert evidence(answer, "guest-module-params") == "nested=1, npt=Y"


@pytest.mark.parametrize("log", ["", "6,1,2,-;kvm: no hardware support\n"])
def test_evidence_ends_in_no_stray_stop(tmp_path: Path, log: str) -> None:
    answer = probe.examine(str(build(tmp_path, AMD | NOT_LOADED | NO_SVM | {"/dev/kmsg": log})))
    words = " and CPUID. kvm: no hardware support" if log else " and CPUID"
    assert evidence(answer, "guest-cpu-flag") == "no svm in /proc/cpuinfo" + words


def test_a_flag_is_not_hidden_where_cpuinfo_cannot_be_read(tmp_path: Path) -> None:
    unread: Files = {"/proc/cpuinfo": "vendor_id\t: AuthenticAMD\n"}
    has: Files = {"/dev/cpu/0/cpuid": Sparse(**{"80000001": leaf(1 << 2)})}
    answer = probe.examine(str(build(tmp_path, AMD | NOT_LOADED | unread | has)))
    assert evidence(answer, "guest-cpu-flag") == "svm in CPUID"
    assert (status(answer, "guest-firmware"), answer["cause"]) == ("unknown", "module-not-loaded")


def test_a_container_is_not_told_to_install_modules(tmp_path: Path) -> None:
    files = AMD | NOT_LOADED | {MODULES: None, "/.dockerenv": ""}
    answer = probe.examine(str(build(tmp_path, files)))
    assert (answer["verdict"], answer["cause"]) == ("off", "container")
    assert status(answer, "guest-module") == "unknown"
    assert f"the modules of kernel {KERNEL} are not on this disk" in evidence(answer, "guest-module")
    judged_well(answer)


def test_a_containers_cure_is_one_sentence(tmp_path: Path) -> None:
    answer = probe.examine(str(build(tmp_path, AMD | {"/.dockerenv": ""})))
    cure = next(f["cure"] for f in answer["findings"] if f["check"] == "guest-container")
    assert cure == "if /dev/kvm does not open here, start the container with --device /dev/kvm"


GROUP = next(group for group in grp.getgrall() if group.gr_gid)
ADMISSIONS = {
    "root's alone": (0o600, 0, "chgrp kvm"),
    "open to root's group": (0o660, 0, "chgrp kvm"),
    "open to a group": (0o660, GROUP.gr_gid, f"usermod -aG {GROUP.gr_name} USER"),
    "closed to its group": (0o600, GROUP.gr_gid, "chgrp kvm"),
    "a group may read it": (0o640, GROUP.gr_gid, "chgrp kvm"),
    "a group without a name": (0o660, 4_000_000_000, "chgrp kvm"),
}


@pytest.mark.parametrize(("mode", "gid", "cure"), ADMISSIONS.values(), ids=ADMISSIONS)
def test_who_is_kept_out_is_not_sent_into_roots_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, gid: int, cure: str
) -> None:
    def denied(machine: Any) -> tuple[str, str]:
        machine.mode, machine.group = mode, gid
        return "denied", "/dev/kvm: Permission denied"

    monkeypatch.setattr(probe._Machine, "find_node", denied)
    root = str(build(tmp_path, AMD))
    for uid in (0, 1000):
        monkeypatch.setattr(os, "getuid", lambda uid=uid: uid)
        answer = probe.examine(root)
        said = next(f["cure"] for f in answer["findings"] if f["check"] == "guest-device-access")
        assert answer["cause"] == "device-denied"
        assert (cure if uid else "--device /dev/kvm") in said
        assert "-aG root" not in said
        judged_well(answer)


def test_the_machines_words_are_bounded_and_clean(tmp_path: Path) -> None:
    words = b"3,1,2,-;kvm: disabled by bios \x1b[31m\x07\xff" + b"A" * 100000 + b"\n"
    flood = b"6,1,2,-;" + b"x" * (5 << 20) + b"\n"
    answer = probe.examine(str(build(tmp_path, INTEL | NOT_LOADED | {"/dev/kmsg": words + flood})))
    assert answer["cause"] == "firmware-locked"
    said = evidence(answer, "guest-firmware")
    assert len(said) <= 300
    assert said.isprintable()
    assert len(json.dumps(answer)) < 20000


def test_cures_are_clean_too(tmp_path: Path) -> None:
    name: Files = {"/proc/sys/kernel/osrelease": "6.1\x1b[2J" + "A" * 9000}
    cure = probe.examine(str(build(tmp_path, AMD | NOT_LOADED | name)))["findings"][5]["cure"]
    assert "kvm_amd" in cure
    assert cure.isprintable()
    assert len(cure) <= 300


def test_a_pipe_among_the_files_does_not_block(tmp_path: Path) -> None:
    root = build(tmp_path, AMD | NOT_LOADED | {"/proc/cmdline": None})
    os.mkfifo(root / "proc/cmdline")
    assert probe.examine(str(root))["cause"] == "module-not-loaded"


def test_links_do_not_lead_out_of_a_saved_machine(tmp_path: Path) -> None:
    (tmp_path / "elsewhere/kvm_amd").mkdir(parents=True)
    root = build(tmp_path / "root", AMD | NOT_LOADED | {"/sys/class/x": ""})
    (root / "sys/module").symlink_to(tmp_path / "elsewhere")
    assert probe.examine(str(root))["cause"] == "module-not-loaded"


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    off = str(build(tmp_path, AMD | NOT_LOADED))
    assert probe.main(["--root", off]) == 1
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out)["cause"] == "module-not-loaded"
    assert probe.main(["--root", off, "--pretty"]) == 1
    assert json.loads(capsys.readouterr().out)["verdict"] == "off"
    assert probe.main(["--root", str(tmp_path / "nowhere")]) == 2
    assert probe.main(["--what"]) == 2
    said = capsys.readouterr()
    assert (said.out, "usage" in said.err) == ("", True)


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert probe.main(["--root", str(build(tmp_path, INTEL))]) == 3
    assert json.loads(capsys.readouterr().out)["cause"] == "not-run"


def test_stands_alone() -> None:
    """Sent over standard input to a Python that knows nothing of this project."""
    with SOURCE.open("rb") as source:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-"], stdin=source, capture_output=True, cwd="/", check=False
        )
    answer = json.loads(done.stdout)
    assert done.stderr == b""
    assert done.returncode == {"works": 0, "works-emulated": 1, "off": 1, "unknown": 3}[answer["verdict"]]
    judged_well(answer)


def test_imports_only_the_standard_library() -> None:
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    imported = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names
    assert "subprocess" not in imported


def test_grammar_of_python_3_6() -> None:
    ast.parse(SOURCE.read_text(encoding="utf-8"), feature_version=(3, 6))
    with pytest.raises(SyntaxError):
        ast.parse("if (n := 1): pass", feature_version=(3, 6))
