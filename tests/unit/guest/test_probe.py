"""The probe's judgement of saved machines, and of runs whose outcome is played by the test."""

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nestvirt.guest import probe
from tests.unit.guest.machines import (
    AMD,
    BUILTIN,
    INTEL,
    MODULES,
    NO_SVM,
    NO_VMX,
    NOT_LOADED,
    STALE,
    Files,
    Node,
    Sparse,
    build,
    cpuinfo,
    leaf,
    msr,
)

SOURCE = Path(probe.__file__)
READING = SOURCE.with_name("reading.sh")
SEV_WORDS = "Memory Encryption Features active: AMD SEV"

MACHINES: dict[str, tuple[Files, str | None]] = {
    "healthy AMD": (AMD, "not-run"),
    "healthy Intel": (INTEL, "not-run"),
    "AMD without svm": (AMD | NOT_LOADED | NO_SVM, "no-cpu-flag"),
    "Intel without vmx": (INTEL | NOT_LOADED | NO_VMX, "no-cpu-flag"),
    "svm on an Intel CPU": (
        INTEL | NOT_LOADED | {"/proc/cpuinfo": cpuinfo("GenuineIntel", "svm")},
        "no-cpu-flag",
    ),
    "another KVM that needs no flag": (
        AMD
        | NOT_LOADED
        | NO_SVM
        | {"/sys/module/kvm_pvm/uevent": "", "/dev/kvm": Node(), "/proc/misc": "232 kvm\n"},
        "not-run",
    ),
    "module not loaded": (AMD | NOT_LOADED, "module-not-loaded"),
    "only the other vendor's module on disk": (AMD | NOT_LOADED | {MODULES: INTEL[MODULES]}, "module-absent"),
    "module absent": (AMD | NOT_LOADED | {MODULES: None}, "module-absent"),
    "module absent, stale node": (AMD | STALE | {MODULES: None}, "module-absent"),
    "module built in, but did not start": (
        AMD | NOT_LOADED | {MODULES: None, BUILTIN: "kernel/arch/x86/kvm/kvm-amd.ko\n"},
        "module-not-loaded",
    ),
    "module blacklisted": (
        AMD | NOT_LOADED | {"/etc/modprobe.d/no-kvm.conf": "# why\nblacklist kvm-amd\n"},
        "module-blacklisted",
    ),
    "module blacklisted, stale node": (
        AMD | STALE | {"/usr/lib/modprobe.d/no-kvm.conf": "blacklist kvm_amd\n"},
        "module-blacklisted",
    ),
    "blacklisting masked by an empty file": (
        AMD | NOT_LOADED | {"/lib/modprobe.d/k.conf": "blacklist kvm_amd\n", "/etc/modprobe.d/k.conf": ""},
        "module-not-loaded",
    ),
    "the other vendor's module blacklisted": (
        AMD | NOT_LOADED | {"/etc/modprobe.d/k.conf": "blacklist kvm_intel\n"},
        "module-not-loaded",
    ),
    "module barred by install": (
        INTEL | NOT_LOADED | {"/etc/modprobe.d/k.conf": "install kvm_intel /bin/false\n"},
        "module-blacklisted",
    ),
    "kvm itself barred by install": (
        INTEL | NOT_LOADED | {"/etc/modprobe.d/k.conf": "install kvm /usr/bin/true\n"},
        "module-blacklisted",
    ),
    "module installed by a command": (
        INTEL | NOT_LOADED | {"/etc/modprobe.d/k.conf": "install kvm_intel /sbin/modprobe -i kvm_intel\n"},
        "module-not-loaded",
    ),
    "module_blacklist=": (
        AMD | NOT_LOADED | {"/proc/cmdline": "module_blacklist=floppy,kvm_amd\n"},
        "module-blacklisted",
    ),
    "modprobe.blacklist=": (
        AMD | NOT_LOADED | {"/proc/cmdline": "modprobe.blacklist=kvm-amd\n"},
        "module-blacklisted",
    ),
    "blacklisted but loaded": (AMD | {"/etc/modprobe.d/k.conf": "blacklist kvm_amd\n"}, "not-run"),
    "stale node": (AMD | STALE, "device-stale"),
    "node without driver, no /proc/misc": (AMD | STALE | {"/proc/misc": None}, "device-stale"),
    "node is a regular file": (AMD | {"/dev/kvm": ""}, "device-stale"),
    "node has another number": (AMD | {"/dev/kvm": Node(10, 233)}, "device-stale"),
    "no node": (AMD | {"/dev/kvm": None}, "device-missing"),
    "no node in Docker": (AMD | {"/dev/kvm": None, "/.dockerenv": ""}, "container"),
    "no node in Podman": (AMD | {"/dev/kvm": None, "/run/.containerenv": ""}, "container"),
    "no node in LXC": (AMD | {"/dev/kvm": None, "/proc/1/environ": "HOME=/\0container=lxc\0"}, "container"),
    "no node in a pod": (AMD | {"/dev/kvm": None, "/proc/1/cgroup": "0::/kubepods.slice/x\n"}, "container"),
    "container without a module": (AMD | NOT_LOADED | {"/.dockerenv": ""}, "module-not-loaded"),
    "SEV device": (AMD | {"/dev/sev-guest": ""}, "confidential-guest"),
    "SEV in the log": (
        AMD | NOT_LOADED | NO_SVM | {"/dev/kmsg": f"6,1,2,-;{SEV_WORDS} SEV-SNP\n"},
        "confidential-guest",
    ),
    "a host that encrypts its memory": (
        AMD | {"/dev/kmsg": "6,1,2,-;Memory Encryption Features active: AMD SME\n"},
        "not-run",
    ),
    "TDX flag": (
        INTEL | NOT_LOADED | {"/proc/cpuinfo": cpuinfo("GenuineIntel", "tdx_guest")},
        "confidential-guest",
    ),
    "SVM locked off in its MSR": (
        AMD | NOT_LOADED | {"/dev/cpu/0/msr": Sparse(c0010114=msr(0x10))},
        "firmware-locked",
    ),
    "SVM lock bit alone": (
        AMD | NOT_LOADED | {"/dev/cpu/0/msr": Sparse(c0010114=msr(0x8))},
        "module-not-loaded",
    ),
    "VMX locked off in its MSR": (
        INTEL | NOT_LOADED | {"/dev/cpu/0/msr": Sparse(**{"3a": msr(1)})},
        "firmware-locked",
    ),
    "VMX locked on in its MSR": (
        INTEL | NOT_LOADED | {"/dev/cpu/0/msr": Sparse(**{"3a": msr(5)})},
        "module-not-loaded",
    ),
    "VMX not locked": (
        INTEL | NOT_LOADED | {"/dev/cpu/0/msr": Sparse(**{"3a": msr(0)})},
        "module-not-loaded",
    ),
    "the log says disabled by bios": (
        INTEL | NOT_LOADED | {"/dev/kmsg": "3,1,2,-;kvm: support for 'kvm_intel' disabled by bios\n"},
        "firmware-locked",
    ),
    "the newer log says disabled by BIOS": (
        INTEL | NOT_LOADED | {"/dev/kmsg": "3,1,2,-;x86/cpu: VMX (outside TXT) disabled by BIOS\n"},
        "firmware-locked",
    ),
    "the log speaks of something else": (
        INTEL | NOT_LOADED | {"/dev/kmsg": "3,1,2,-;x86/cpu: SGX disabled by BIOS.\n"},
        "module-not-loaded",
    ),
    "CPUID has vmx, cpuinfo not": (
        INTEL | NOT_LOADED | NO_VMX | {"/dev/cpu/0/cpuid": Sparse(**{"1": leaf(1 << 5)})},
        "firmware-locked",
    ),
    "CPUID has svm, cpuinfo not": (
        AMD | NOT_LOADED | NO_SVM | {"/dev/cpu/0/cpuid": Sparse(**{"80000001": leaf(1 << 2)})},
        "firmware-locked",
    ),
    "another architecture": (
        {"/proc/cpuinfo": "processor\t: 0\nCPU implementer\t: 0x41\n"},
        "unsupported-arch",
    ),
    "nothing at all": ({}, "unsupported-arch"),
    "garbage in cpuinfo": ({"/proc/cpuinfo": bytes(range(256)) * 64}, "unsupported-arch"),
}
UNKNOWN = ("not-run", "unsupported-arch")


@pytest.mark.parametrize(("files", "cause"), MACHINES.values(), ids=MACHINES)
def test_saved_machine(tmp_path: Path, files: Files, cause: str | None) -> None:
    answer = probe.examine(str(build(tmp_path, files)))
    assert (answer["cause"], answer["verdict"]) == (cause, "unknown" if cause in UNKNOWN else "off")
    judged_well(answer)


def judged_well(answer: dict[str, Any]) -> None:
    """What holds for every answer: the first failure gives the cause, and all that is ill has a cure."""
    findings = answer["findings"]
    assert len({f["check"] for f in findings}) == len(findings) == 19
    failed = [f["cause"] for f in findings if f["status"] == "fail"]
    assert not failed or answer["cause"] == failed[0]
    for finding in findings:
        assert finding["check"].startswith("guest-")
        assert finding["evidence"]
        assert bool(finding["cure"]) == (finding["status"] in ("warn", "fail", "unknown")), finding
        assert "{" not in finding["cure"]


def status(answer: dict[str, Any], check: str) -> str:
    return str(next(f["status"] for f in answer["findings"] if f["check"] == check))


def evidence(answer: dict[str, Any], check: str) -> str:
    return str(next(f["evidence"] for f in answer["findings"] if f["check"] == check))


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


SHELLS = [
    pytest.param(argv, marks=pytest.mark.skipif(shutil.which(argv[0]) is None, reason=f"no {argv[0]} here"))
    for argv in (["dash"], ["busybox", "sh"], ["sh"])
]
READINGS: dict[str, tuple[Files, str]] = {
    "healthy": (AMD, "not-proven"),
    "healthy Intel": (INTEL, "not-proven"),
    "no flag": (AMD | NOT_LOADED | NO_SVM, "no-cpu-flag"),
    "a flag that only begins alike": (
        AMD | NOT_LOADED | {"/proc/cpuinfo": cpuinfo("AuthenticAMD", "svm_lock")},
        "no-cpu-flag",
    ),
    "not loaded": (AMD | NOT_LOADED, "module-not-loaded"),
    "stale": (AMD | STALE, "module-not-loaded"),
    "no node": (AMD | {"/dev/kvm": None}, "device-missing"),
    "regular file": (AMD | {"/dev/kvm": "x"}, "device-stale"),
    "other number": (AMD | {"/dev/kvm": Node(10, 200)}, "device-stale"),
    "another architecture": ({"/proc/cpuinfo": "CPU implementer\t: 0x41\n"}, "unsupported-arch"),
    "garbage": ({"/proc/cpuinfo": bytes(range(1, 256)) * 9}, "unsupported-arch"),
    "hostile words": (
        AMD | NOT_LOADED | {"/proc/sys/kernel/osrelease": '6.1"\\\x1b, "verdict": "works\n'},
        "module-not-loaded",
    ),
}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(("files", "cause"), READINGS.values(), ids=READINGS)
def test_reading(tmp_path: Path, shell: list[str], files: Files, cause: str) -> None:
    env = {"PATH": os.environ["PATH"], "NESTVIRT_ROOT": str(build(tmp_path, files))}
    with READING.open("rb") as script:
        done = subprocess.run([*shell, "-s"], stdin=script, capture_output=True, env=env, check=False)
    answer = json.loads(done.stdout)
    assert (answer["cause"], done.stderr) == (cause, b"")
    unknown = cause in ("not-proven", "unsupported-arch")
    assert (answer["verdict"], done.returncode) == (("unknown", 3) if unknown else ("off", 1))
    assert all(f["cure"] for f in answer["findings"] if f["status"] in ("fail", "warn", "unknown"))
    assert status(answer, "guest-kvm-run") == ("unknown" if unknown else "skip")
