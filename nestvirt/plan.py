"""Findings to plan: what has to be done, and what stands against it. Pure."""

from collections.abc import Sequence

from nestvirt.model import Change, ColdBoot, Finding, Layer, Plan, Status


def make_plan(findings: Sequence[Finding]) -> Plan:
    """Turn findings into a plan.

    A finding whose fix is a Change is a step of the plan; several findings may share one Change.
    A failed finding on the host or the VM without a fix is a blocker: what is planned would have
    no effect, or would do harm, until a person has cured it.

    Args:
        findings: what the facts said of themselves, in chain order.
    """
    changes = tuple(dict.fromkeys(f.fix for f in findings if isinstance(f.fix, Change)))
    blockers = tuple(
        f for f in findings if f.status is Status.FAIL and f.fix is None and f.layer in (Layer.HOST, Layer.VM)
    )
    cold = [f.fix for f in findings if isinstance(f.fix, ColdBoot)]
    warnings = tuple(
        f for f in findings if f.status is Status.WARN and f.fix is None and f.layer in (Layer.HOST, Layer.VM)
    )
    received = tuple(fix.received for fix in cold if fix.received is not None)
    return Plan(changes, bool(cold), blockers, warnings, received)
