"""``make bench``: speed as ratios, both sides measured in turn in one run. Figures are medians.

Absolute times depend on the machine and on what else it does; a ratio of neighbours hardly does.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import fleet
from benchmarks.ansible import AnsibleBench
from benchmarks.enable import EnableBench
from benchmarks.hyperv import HyperVBench
from benchmarks.kata import MANY, KataBench
from benchmarks.peak import taken
from benchmarks.proxmox import ProxmoxBench
from benchmarks.vsphere import VSphereBench

NESTVIRT = str(Path(sys.executable).with_name("nestvirt"))
PROBE = str(Path(__file__).parents[1] / "nestvirt" / "guest" / "probe.py")
VALIDATE = ["virt-host-validate", "qemu"]
RUNS = 15
PEAK_MIB = 60


@dataclass(frozen=True)
class Ratio:
    """One comparison, and what it should stay below."""

    name: str
    ours: list[float]
    theirs: list[float]
    aim: float

    def line(self) -> str:
        """One row of the table: the median of the ratios of neighbouring runs."""
        ratio = statistics.median(a / b for a, b in zip(self.ours, self.theirs, strict=True))
        ours, theirs = (f"{statistics.median(side) * 1000:.0f} ms" for side in (self.ours, self.theirs))
        verdict = "ok" if ratio <= self.aim else "MISSED"
        return f"{self.name:<58} {ours:>9} / {theirs:>9} = {ratio:5.2f}x  aim {self.aim:.2f}x  {verdict}"


def in_turn(
    ours: Callable[[], float], theirs: Callable[[], float], runs: int
) -> tuple[list[float], list[float]]:
    """Seconds of both sides, A B A B, after one of each that is not counted."""
    pairs = [(ours(), theirs()) for _ in range(runs + 1)][1:]
    return [a for a, _ in pairs], [b for _, b in pairs]


def timed(command: Sequence[str]) -> Callable[[], float]:
    """A function that runs a command and returns its seconds."""

    def run() -> float:
        start = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        return time.perf_counter() - start

    return run


def main() -> int:
    """Measure and print."""
    python = sys.executable
    commands = [
        ("nestvirt --version / python -c pass", [NESTVIRT, "--version"], [python, "-c", "pass"], 5.0),
        ("probe.py / virt-host-validate qemu", [python, "-I", PROBE], VALIDATE, 8.0),
        ("nestvirt check / virt-host-validate qemu", [NESTVIRT, "check"], VALIDATE, 12.0),
    ]
    for name, ours, theirs, aim in commands:
        print(Ratio(name, *in_turn(timed(ours), timed(theirs), RUNS), aim).line(), flush=True)
    with tempfile.TemporaryDirectory() as state, EnableBench(NESTVIRT, Path(state)) as bench:
        ours_s, theirs_s = in_turn(bench.by_nestvirt, bench.by_virsh, 5)
    print(Ratio("nestvirt enable / the same by virsh and the agent", ours_s, theirs_s, 1.05).line())
    with tempfile.TemporaryDirectory() as state, ProxmoxBench(NESTVIRT, Path(state)) as proxmox:
        for count in proxmox.counts():
            print(count.line(), flush=True)
        ours_s, theirs_s = in_turn(proxmox.by_nestvirt, proxmox.by_requests, RUNS)
    print(Ratio("Proxmox: facts by nestvirt / the same bare requests", ours_s, theirs_s, 1.5).line())
    with tempfile.TemporaryDirectory() as state, HyperVBench(NESTVIRT, Path(state)) as hyperv:
        for count in hyperv.counts():
            print(count.line(), flush=True)
        ours_s, theirs_s = in_turn(hyperv.by_nestvirt, hyperv.by_pywinrm, RUNS)
    print(Ratio("Hyper-V: facts by nestvirt / the same script by pywinrm", ours_s, theirs_s, 2.0).line())
    with tempfile.TemporaryDirectory() as folder, KataBench(NESTVIRT, Path(folder)) as kata:
        for count in kata.counts():
            print(count.line(), flush=True)
        many_s, one_s = in_turn(lambda: kata.preflight(MANY), lambda: kata.preflight(1), 3)
    print(Ratio(f"Kata: preflight of {MANY} nodes / of one", many_s, one_s, 3.0).line(), flush=True)
    with VSphereBench() as vsphere:
        for figure in vsphere.figures():
            print(figure.line(), flush=True)
        ours_s, theirs_s = in_turn(vsphere.find_by_nestvirt, vsphere.find_by_loop, 3)
        print(Ratio("vSphere: one of 10000 VMs / a loop by pyvmomi", ours_s, theirs_s, 0.2).line())
        # Half a minute for the loop: once will do.
        ours_s, theirs_s = [vsphere.list_by_nestvirt()], [vsphere.list_by_loop()]
        print(Ratio("vSphere: states of 10000 VMs / a loop by pyvmomi", ours_s, theirs_s, 0.1).line())
    with tempfile.TemporaryDirectory() as folder, AnsibleBench(Path(folder)) as ansible:
        ours_s, theirs_s = in_turn(ansible.by_nestvirt, ansible.by_ansible, 1)
    print(Ratio("the probe in 50 guests over SSH / by Ansible", ours_s, theirs_s, 1.0).line(), flush=True)
    for line in fleet.figures():
        print(line.line(), flush=True)
    _, peak = taken([NESTVIRT, "check"])
    verdict = "ok" if peak <= PEAK_MIB else "MISSED"
    print(f"{'peak memory of nestvirt check':<58} {peak:>6.1f} MiB  aim {PEAK_MIB} MiB  {verdict}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
