"""What the tests ask of a probe's answer."""

from typing import Any


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
