"""What a guest answers to nestvirt's probe: made once, for every peer whose guests are not real."""

from __future__ import annotations

import json

from nestvirt.guest.verify import CHECKS

WORKS, NO_FLAG, BROKEN = "works", "no-flag", "broken"
"""How nesting is inside: guest code runs; the CPU shows no flag; the flag is there, and no VM can be run."""

_OFF = {
    NO_FLAG: ("no-cpu-flag", {"guest-cpu-flag": ("fail", "no vmx or svm in /proc/cpuinfo", "enable it")}),
    BROKEN: ("kvm-vcpu-failed", {"guest-kvm-vcpu": ("fail", "KVM_CREATE_VCPU: EIO", "use another CPU type")}),
}


def probe_answer(inside: str, **numbers: float) -> str:
    """The JSON that the probe prints in such a guest."""
    cause, wrong = _OFF.get(inside, (None, {}))
    usual = ("pass", "as said", "") if inside == WORKS else ("skip", "as said", "")
    answers = {check: wrong.get(check, usual) for check in CHECKS}
    return _dumped("works" if inside == WORKS else "off", cause, answers, numbers)


def reading_answer(inside: str) -> str:
    """The JSON that the shell's reading prints there: it runs nothing, and so proves nothing."""
    if inside == NO_FLAG:
        answers = {
            "guest-cpu-flag": ("fail", "no vmx or svm in /proc/cpuinfo", "enable it"),
            "guest-kvm-run": ("skip", "not asked: an earlier link is broken", ""),
        }
        return _dumped("off", "no-cpu-flag", answers, {})
    answers = {
        "guest-cpu-flag": ("pass", "svm in /proc/cpuinfo", ""),
        "guest-device": ("pass", "/dev/kvm is character device 10:232", ""),
        "guest-kvm-run": ("unknown", "nothing looks broken, but no guest code was run", "install python3"),
    }
    return _dumped("unknown", "not-proven", answers, {})


def _dumped(
    verdict: str, cause: str | None, answers: dict[str, tuple[str, str, str]], numbers: dict[str, float]
) -> str:
    findings = [
        {"check": check, "status": status, "evidence": evidence, "cure": cure}
        for check, (status, evidence, cure) in answers.items()
    ]
    fields = {"schema_version": 1, "verdict": verdict, "cause": cause, "summary": "", "numbers": numbers}
    return json.dumps(fields | {"findings": findings})
