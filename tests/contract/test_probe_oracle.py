"""The probe on the machine that runs the tests, against a C program that asks the same of /dev/kvm."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from nestvirt.guest import probe
from tests.lab import need

ORACLE_SOURCE = Path(__file__).parents[1] / "peers" / "kvmoracle.c"
VERDICTS = {"runs": "works", "emulated": "works-emulated", "none": "off"}
STEPS = {
    "open": ("guest-module", "guest-device"),
    "create": ("guest-kvm-create",),
    "vcpu": ("guest-kvm-vcpu",),
}


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need(shutil.which("gcc"), "the oracle needs gcc")
    program = tmp_path_factory.mktemp("oracle") / "kvmoracle"
    subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, ORACLE_SOURCE], check=True)
    return program


def ask(oracle: Path, *numbers: int) -> dict[str, Any]:
    done = subprocess.run([oracle, *map(str, numbers)], capture_output=True, timeout=60, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def status(answer: dict[str, Any], check: str) -> str:
    return str(next(f["status"] for f in answer["findings"] if f["check"] == check))


def test_verdicts_agree(oracle: Path) -> None:
    said, answer = ask(oracle), probe.examine()
    assert answer["verdict"] == VERDICTS[said["class"]]
    if said["class"] == "none":
        assert "loops_per_s" not in answer["numbers"]
        failed = [f["check"] for f in answer["findings"] if f["status"] == "fail"]
        assert failed
        assert said["step"] == "open" or failed[-1] in STEPS[said["step"]]
    else:
        assert status(answer, "guest-kvm-run") == "pass"
        assert status(answer, "guest-kvm-speed") == ("pass" if said["class"] == "runs" else "fail")


def test_numbers_are_of_one_kind(oracle: Path) -> None:
    """Both measure the same loop and the same kind of exit; ten times apart would be two different things."""
    said, numbers = ask(oracle), probe.examine()["numbers"]
    if said["class"] == "none":
        assert not {"loops_per_s", "exit_ns"} & numbers.keys()
        return
    for name in ("loops_per_s", "native_loops_per_s", "exit_ns"):
        assert 0.1 < numbers[name] / said[name] < 10, name


@pytest.mark.parametrize(("loops", "factor"), [(1000, 7), (4321, 987654321)])
def test_the_oracle_computes(oracle: Path, loops: int, factor: int) -> None:
    said = ask(oracle, loops, factor)
    if said["class"] == "none":
        assert said["step"] in STEPS or said["step"] == "open"
        return
    assert said["product"] == loops * factor % 2**32
