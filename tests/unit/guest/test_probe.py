"""The probe's judgement of saved machines, and of runs whose outcome is played by the test."""

import ast
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nestvirt.guest import probe
from tests.unit.guest.answers import evidence, judged_well, status
from tests.unit.guest.machines import (
    AMD,
    INTEL,
    MODULES,
    NO_SVM,
    NOT_LOADED,
    Files,
    Sparse,
    build,
    cpuinfo,
    leaf,
)

SOURCE = Path(probe.__file__)
SEV_WORDS = "Memory Encryption Features active: AMD SEV"


Step = tuple[str, Any]

RAN: list[Step] = [
    ("native_loops_per_s", 500e6),
    ("api", "12"),
    ("create", "made"),
    ("vcpu", "made"),
    ("run", "right"),
    ("nests", True),
    ("loops_per_s", 400e6),
    ("exit_ns", 40000),
]


def played(*changed: Step, upto: str = "") -> Callable[[], Iterator[Step]]:
    """A run with other results, or one that ends before a step."""
    steps = dict(RAN) | dict(changed)
    names = list(steps)
    return lambda: iter([(name, steps[name]) for name in names[: names.index(upto) if upto else None]])


def broken(cause: str, at: str) -> Callable[[], Iterator[Step]]:
    return lambda: iter([*played(upto=at)(), ("broken", (cause, "as the test plays it"))])


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
        ("hung", "loops_per_s", "guest-kvm-speed"),
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


def test_errno_of_a_refused_step(tmp_path: Path) -> None:
    def busy() -> Iterator[Step]:
        yield "api", "12"
        raise OSError(16, "Device or resource busy")

    answer = probe.examine(str(build(tmp_path, AMD)), work=busy)
    assert answer["cause"] == "kvm-busy"
    assert "Device or resource busy" in evidence(answer, "guest-kvm-create")


def test_a_hung_run_is_ended(tmp_path: Path) -> None:
    told = tmp_path / "pid"

    def hang() -> Iterator[Step]:
        yield from played(upto="run")()
        told.write_text(str(os.getpid()))
        time.sleep(600)

    answer = probe.examine(str(build(tmp_path / "root", AMD)), work=hang, deadline=0.5)
    assert (answer["verdict"], answer["cause"]) == ("off", "hung")
    assert status(answer, "guest-kvm-run") == "fail"
    with pytest.raises(ProcessLookupError):
        os.kill(int(told.read_text()), 0)


def test_a_crashed_run_claims_nothing(tmp_path: Path) -> None:
    def crash() -> Iterator[Step]:
        yield "api", "12"
        os.kill(os.getpid(), signal.SIGKILL)

    answer = probe.examine(str(build(tmp_path, AMD)), work=crash)
    assert (answer["verdict"], answer["cause"]) == ("unknown", "crashed")
    judged_well(answer)


def test_python_without_ctypes_claims_nothing(tmp_path: Path) -> None:
    def bare() -> Iterator[Step]:
        yield from played(upto="run")()
        raise ImportError("No module named '_ctypes'")

    answer = probe.examine(str(build(tmp_path, AMD)), work=bare)
    assert (answer["verdict"], answer["cause"]) == ("unknown", "not-run")
    assert "_ctypes" in evidence(answer, "guest-kvm-run")
    judged_well(answer)


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({}, "qemu"),
        ({"/sys/class/dmi/id/sys_vendor": "VMware, Inc.\n"}, "vmware"),
        ({"/sys/hypervisor/type": "xen\n"}, "xen"),
        ({"/sys/class/dmi/id/sys_vendor": None}, "unnamed"),
        ({"/sys/class/dmi/id/sys_vendor": None, "/proc/cpuinfo": cpuinfo("AuthenticAMD", "svm")}, "none"),
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
