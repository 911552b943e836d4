"""The shell's reading of a machine, for guests without Python: never more than "not proven"."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from nestvirt.guest import probe
from tests.lab import need
from tests.unit.guest.answers import status
from tests.unit.guest.machines import AMD, INTEL, NO_SVM, NOT_LOADED, STALE, Files, Node, build, cpuinfo

READING = Path(probe.__file__).with_name("reading.sh")

SHELLS = {"dash": ["dash"], "busybox": ["busybox", "sh"], "sh": ["sh"]}
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


@pytest.mark.parametrize("shell", SHELLS.values(), ids=SHELLS)
@pytest.mark.parametrize(("files", "cause"), READINGS.values(), ids=READINGS)
def test_reading(tmp_path: Path, shell: list[str], files: Files, cause: str) -> None:
    need(shutil.which(shell[0]), f"there is no {shell[0]} here")
    env = {"PATH": os.environ["PATH"], "NESTVIRT_ROOT": str(build(tmp_path, files))}
    with READING.open("rb") as script:
        done = subprocess.run([*shell, "-s"], stdin=script, capture_output=True, env=env, check=False)
    answer = json.loads(done.stdout)
    assert (answer["cause"], done.stderr) == (cause, b"")
    unknown = cause in ("not-proven", "unsupported-arch")
    assert (answer["verdict"], done.returncode) == (("unknown", 3) if unknown else ("off", 1))
    assert all(f["cure"] for f in answer["findings"] if f["status"] in ("fail", "warn", "unknown"))
    assert status(answer, "guest-kvm-run") == ("unknown" if unknown else "skip")
