"""Findings become a plan."""

from __future__ import annotations

import pytest

from nestvirt.model import Change, ColdBoot, Finding, Layer, Status
from nestvirt.plan import make_plan

CPU, BOOT = Change("cpu", "a", "b"), Change("boot", None, "c")


def finding(check: str, status: Status, fix: Change | ColdBoot | None = None) -> Finding:
    return Finding(check, Layer(check.partition("-")[0]), status, "seen", "do it", fix)


FAIL, WARN, UNKNOWN, PASS, SKIP = Status.FAIL, Status.WARN, Status.UNKNOWN, Status.PASS, Status.SKIP


@pytest.mark.parametrize(
    ("findings", "changes", "cold_boot", "blockers"),
    [
        pytest.param([], (), False, [], id="nothing"),
        pytest.param([finding("vm-cpu", PASS), finding("vm-x", SKIP)], (), False, [], id="all well"),
        pytest.param([finding("vm-cpu", FAIL, CPU)], (CPU,), False, [], id="a change"),
        pytest.param(
            [finding("vm-cpu", FAIL, CPU), finding("vm-x", FAIL, BOOT), finding("vm-y", FAIL, CPU)],
            (CPU, BOOT),
            False,
            [],
            id="in order, and once",
        ),
        pytest.param([finding("vm-cpu", WARN, CPU)], (CPU,), False, [], id="a warning can be cured, too"),
        pytest.param([finding("vm-cpu-pending", FAIL, ColdBoot())], (), True, [], id="a power cycle"),
        pytest.param([finding("host-nested", FAIL)], (), False, ["host-nested"], id="the host blocks"),
        pytest.param(
            [finding("vm-cpu", FAIL, CPU), finding("vm-type", FAIL)],
            (CPU,),
            False,
            ["vm-type"],
            id="the VM blocks, and the change is still told",
        ),
        pytest.param(
            [finding("vm-agent", WARN), finding("host-nested", UNKNOWN)],
            (),
            False,
            [],
            id="these block nothing",
        ),
        pytest.param(
            [finding("guest-device", FAIL), finding("cluster-x", FAIL)],
            (),
            False,
            [],
            id="nor does what is inside",
        ),
    ],
)
def test_plan(
    findings: list[Finding], changes: tuple[Change, ...], cold_boot: bool, blockers: list[str]
) -> None:
    plan = make_plan(findings)
    assert (plan.changes, plan.cold_boot, [f.check for f in plan.blockers]) == (changes, cold_boot, blockers)
    assert plan.empty is (not changes and not cold_boot)
