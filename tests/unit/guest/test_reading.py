"""The shell's reading of a machine, for guests without Python: never more than "not proven"."""

import grp
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from nestvirt.guest import probe
from nestvirt.guest.verify import judge_answer
from tests.lab import need
from tests.unit.guest.answers import evidence, status
from tests.unit.guest.machines import AMD, INTEL, NO_SVM, NOT_LOADED, STALE, Files, Node, build, cpuinfo

READING = Path(probe.__file__).with_name("reading.sh")

SHELLS = {"dash": ["dash"], "busybox": ["busybox", "sh"], "sh": ["sh"]}
BOTH: Files = {
    "/sys/module/kvm_amd/parameters/nested": "1\n",
    "/sys/module/kvm_intel/parameters/nested": "N\n",
}
READINGS: dict[str, tuple[Files, str]] = {
    "healthy": (AMD, "not-proven"),
    "healthy Intel": (INTEL, "not-proven"),
    "no flag": (AMD | NOT_LOADED | NO_SVM, "no-cpu-flag"),
    "a flag that only begins alike": (
        AMD | NOT_LOADED | {"/proc/cpuinfo": cpuinfo("AuthenticAMD", "svm_lock")},
        "no-cpu-flag",
    ),
    "not loaded": (AMD | NOT_LOADED, "module-not-loaded"),
    "both built in, no flag": (AMD | NOT_LOADED | NO_SVM | BOTH, "no-cpu-flag"),
    "both built in, not started": (AMD | NOT_LOADED | BOTH, "module-not-loaded"),
    "both built in, and well": (AMD | BOTH, "not-proven"),
    "no /proc/misc": (AMD | {"/proc/misc": None}, "not-proven"),
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


each_shell = pytest.mark.parametrize("shell", SHELLS.values(), ids=SHELLS)
NOBODY = 65534
GROUP = next(group for group in grp.getgrall() if group.gr_gid not in (0, NOBODY))


def read(shell: list[str], root: Path, user: int | None = None) -> tuple[dict[str, Any], int]:
    need(shutil.which(shell[0]), f"there is no {shell[0]} here")
    env = {"PATH": os.environ["PATH"], "NESTVIRT_ROOT": str(root)}
    other: dict[str, Any] = {} if user is None else {"user": user, "group": user, "extra_groups": []}
    with READING.open("rb") as script:
        done = subprocess.run(
            [*shell, "-s"], stdin=script, capture_output=True, env=env, cwd="/", check=False, **other
        )
    assert done.stderr == b""
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer, done.returncode


@each_shell
@pytest.mark.parametrize(("files", "cause"), READINGS.values(), ids=READINGS)
def test_reading(tmp_path: Path, shell: list[str], files: Files, cause: str) -> None:
    answer, code = read(shell, build(tmp_path, files))
    assert answer["cause"] == cause
    unknown = cause in ("not-proven", "unsupported-arch")
    assert (answer["verdict"], code) == (("unknown", 3) if unknown else ("off", 1))
    assert all(f["cure"] for f in answer["findings"] if f["status"] in ("fail", "warn", "unknown"))
    assert status(answer, "guest-kvm-run") == ("unknown" if unknown else "skip")
    probed = judge_answer(answer, channel="ssh", full=False)
    assert probed.proof.verdict == ("not-proven" if cause == "not-proven" else answer["verdict"])
    assert len(probed.findings) == len(answer["findings"])


@each_shell
def test_own_driver_counts_first(tmp_path: Path, shell: list[str]) -> None:
    both = AMD | BOTH | {"/sys/module/kvm_pvm/parameters/nested": "N\n"}
    answer, _ = read(shell, build(tmp_path, both))
    assert evidence(answer, "guest-module") == "loaded: kvm_amd kvm_pvm"
    assert evidence(answer, "guest-module-params") == "nested=1"


@each_shell
@pytest.mark.parametrize(
    ("mode", "gid", "cure"),
    [
        (0o600, 0, "chgrp kvm"),
        (0o660, 0, "chgrp kvm"),
        (0o660, GROUP.gr_gid, f"usermod -aG {GROUP.gr_name} USER"),
        (0o640, GROUP.gr_gid, "chgrp kvm"),
        (0o660, 4_000_000, "chgrp kvm"),
    ],
)
def test_nobody_is_sent_into_roots_group(shell: list[str], mode: int, gid: int, cure: str) -> None:
    need(os.geteuid() == 0, "only root may make device nodes and become nobody")
    with tempfile.TemporaryDirectory() as scratch:  # a place that others may enter
        root = build(Path(scratch), AMD)
        root.chmod(0o755)
        os.chown(root / "dev/kvm", 0, gid)
        (root / "dev/kvm").chmod(mode)
        answer, _ = read(shell, root, NOBODY)
    said = next(f["cure"] for f in answer["findings"] if f["check"] == "guest-device-access")
    assert answer["cause"] == "device-denied"
    assert cure in said
    assert "-aG root" not in said
