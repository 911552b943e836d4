"""Run the probe and judge what it says. A guest may lie: its answer is bounded and read strictly."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from nestvirt.errors import GuestUnreachable, TargetError
from nestvirt.guest import files
from nestvirt.guest.channel import NOT_FOUND, Channel, Completed, FileReader, RunRefused
from nestvirt.model import PROOF, Finding, Layer, Proof, Status
from nestvirt.printable import printable

SCHEMA_VERSION = 1
ANSWER_LIMIT = 256 * 1024
MOST_NUMBERS = 32
PYTHONS = ("python3", "/usr/libexec/platform-python")  # the second is RHEL 8's own, outside PATH
VERDICTS = ("works", "works-emulated", "off", "unknown")
CHECKS = {
    "guest-hypervisor": "Which hypervisor is underneath?",
    "guest-confidential": "Is this a confidential guest (SEV, TDX), which cannot nest?",
    "guest-container": "Is this a container, which has only the devices it was given?",
    "guest-cpu-flag": "Does the CPU show vmx or svm?",
    "guest-firmware": "Has the firmware locked virtualization?",
    "guest-module": "Is the right kvm module loaded?",
    "guest-module-params": "What do the module's parameters say?",
    "guest-device": "Is /dev/kvm the real device?",
    "guest-device-access": "Who may open /dev/kvm?",
    "guest-kvm-api": "Does KVM speak API version 12?",
    "guest-kvm-create": "Does KVM create a VM?",
    "guest-kvm-vcpu": "Does KVM create a virtual CPU?",
    "guest-kvm-run": "Does guest code run, and compute rightly? This is the proof.",
    "guest-kvm-speed": "Is guest code run by the CPU, or emulated?",
    "guest-kvm-exit-latency": "How long does an exit to the host take?",
    "guest-paging": "Is second-level paging (EPT, NPT) in effect?",
    "guest-nesting": "Can this machine's own VMs nest in turn?",
    "guest-kvm-users": "Do VMs run here already?",
    "guest-vhost": "Are vhost, vsock and tun there?",
}
"""Check id to the question that the probe asks; its answer has every one of them."""

_SPEED, _LATENCY = "guest-kvm-speed", "guest-kvm-exit-latency"
_RAN = ("guest-kvm-api", "guest-kvm-create", "guest-kvm-vcpu", PROOF, _SPEED)

_WORD = re.compile(r"[a-z0-9-]{1,40}")
_NUMBER = re.compile(r"[a-z0-9_]{1,40}")
_HERE = Path(__file__).parent
_T = TypeVar("_T")


@dataclass(frozen=True)
class Probed:
    """A probe's answer, in nestvirt's own types."""

    proof: Proof
    findings: tuple[Finding, ...]


NOBODY = "none"
"""The channel of a proof where there was no way in."""

NO_GUEST = Probed(Proof("unknown", None, NOBODY), ())
"""Where there is no guest to look into: a host, which is read itself."""


def probe_source() -> str:
    """The standalone probe, as it is shipped to guests."""
    return (_HERE / "probe.py").read_text(encoding="utf-8")


def saved_machine(root: str | None) -> str:
    """The directory that stands for /; this machine's own where none is named.

    Raises:
        TargetError: it is no directory.
    """
    if root is not None and not (root and Path(root).is_dir()):
        raise TargetError(
            f"{printable(root, 200)!r} is not a saved machine",
            evidence="there is no such directory",
            cure="name the directory that holds its /proc, /sys and /dev",
        )
    return root or "/"


def probe_here(*, root: str = "/", load_modules: bool = False) -> Probed:
    """Run the probe in this process, on this machine or on a saved one.

    Args:
        root: directory that stands for /; with another than / nothing is run through KVM.
        load_modules: load the CPU's kvm module first, where it is not loaded.
    """
    from nestvirt.guest import probe  # imported when used: it is a program of its own

    return judge_answer(probe.examine(root=root, load_modules=load_modules), channel="local")


def probe_guest(channel: Channel, *, timeout: float, load_modules: bool = False) -> Probed:
    """Run the probe in a guest; where it has no Python, read flags and device with its shell instead.

    Args:
        channel: the way in.
        timeout: seconds for each program that is run there.
        load_modules: let the probe load the guest's kvm module.
    """
    options = ["--load-modules"] if load_modules else []
    attempts = [([python, "-I", "-", *options], "probe.py") for python in PYTHONS] + [
        (["sh", "-s"], "reading.sh")
    ]
    done = Completed(NOT_FOUND, b"", b"")
    try:
        for argv, script in attempts:
            done = channel.run(argv, stdin=(_HERE / script).read_bytes(), timeout=timeout)
            if done.code != NOT_FOUND:
                break
        return judge_answer(_parse(done), channel=channel.name, full=script == "probe.py")
    except RunRefused as error:
        if isinstance(channel, FileReader):
            return _read_files(channel, channel.name, error)
        return _unproven(channel.name, f"{error.message}: {error.evidence}", error.cure)
    except GuestUnreachable as error:
        return _unproven(channel.name, f"{error.message}: {error.evidence}", error.cure)


def _read_files(reader: FileReader, name: str, refusal: RunRefused) -> Probed:
    """What a guest's files say, where it runs no programs for us: "off" perhaps, but never "works"."""
    try:
        cause, findings = files.examine(reader)
    except GuestUnreachable as error:
        return _unproven(name, f"{refusal.message}; and {error.message}: {error.evidence}", refusal.cure)
    if cause is None:
        why = f"flag and device seen, not proven: no guest code was run; {refusal.message}"
        return Probed(
            Proof("not-proven", "not-proven", name), (*findings, _unproven_finding(why, refusal.cure))
        )
    skipped = Finding(PROOF, Layer.GUEST, Status.SKIP, "not asked: an earlier link is broken")
    return Probed(Proof("off", cause, name), (*findings, skipped))


def not_reached(why: str, cure: str, channel: str = NOBODY) -> Probed:
    """What is said of a guest that nobody could ask, or that answered no sense: nothing is proven."""
    return _unproven(channel, why, cure)


def read_probe(done: Completed, *, channel: str) -> Probed:
    """Read the answer of a probe that was run by other hands.

    Raises:
        GuestUnreachable: it is none.
    """
    return judge_answer(_parse(done), channel=channel)


def _parse(done: Completed) -> object:
    if done.truncated or len(done.stdout) > ANSWER_LIMIT:
        raise _nonsense(f"it answered with more than {ANSWER_LIMIT // 1024} KiB")
    if done.code == NOT_FOUND:
        raise GuestUnreachable(
            "the guest has neither Python nor a shell",
            evidence="python3 and sh were not found there",
            cure="install python3 in the guest",
        )
    try:
        return json.loads(done.stdout.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        said = printable((done.stdout or done.stderr).decode(errors="replace"), 200)
        raise _nonsense(f"exit code {done.code}, and its answer is no JSON: {said!r}") from error


def _refuse_constant(name: str) -> float:
    raise ValueError(name)


def _nonsense(evidence: str) -> GuestUnreachable:
    return GuestUnreachable(
        "the guest's answer is not the probe's",
        evidence=evidence,
        cure="look into the guest by hand: nestvirt probe --print | ssh GUEST python3 -I -",
    )


def judge_answer(answer: object, *, channel: str, full: bool = True) -> Probed:
    """Read a probe's answer strictly.

    Args:
        answer: what it said.
        channel: how it was asked.
        full: False for the shell's reading, which makes some of the checks, runs nothing and proves nothing.

    Returns:
        Its findings and verdict; one UNKNOWN finding where it is not a probe's answer, or contradicts itself.
    """
    try:
        return _read_answer(answer, channel, full)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        why = _nonsense(f"unexpected field: {printable(str(error), 100)}")
        return _unproven(channel, f"{why.message}: {why.evidence}", why.cure)


def _read_answer(answer: object, channel: str, full: bool) -> Probed:
    fields = _checked(answer, dict)
    if fields["schema_version"] != SCHEMA_VERSION:
        raise ValueError("schema_version")
    verdict = fields["verdict"]
    cause = fields["cause"]
    if verdict not in VERDICTS or not (cause is None or _matches(_WORD, cause)):
        raise ValueError("verdict")
    findings = tuple(_finding(item) for item in _checked(fields["findings"], list))
    said = {f.check: f.status for f in findings}
    if len(said) < len(findings):
        raise ValueError("a check is answered twice")
    if PROOF not in said or (full and said.keys() != CHECKS.keys()):
        raise ValueError("a check is not answered")
    if not _agree(verdict, cause, said, full):
        raise ValueError("the verdict contradicts the findings")
    if verdict == "unknown" and said[PROOF] is not Status.UNKNOWN:
        # Guest code may have been seen to run, but what followed it broke off: that proves nothing yet.
        summary = f"verdict unknown: {printable(str(fields['summary']), 300)}"
        cure = next((f.cure for f in findings if f.status is Status.UNKNOWN), "")
        findings = tuple(_unproven_finding(summary, cure) if f.check == PROOF else f for f in findings)
    if verdict == "unknown" and cause == "not-proven":
        verdict = cause
    return Probed(Proof(verdict, cause, channel, _numbers(fields["numbers"])), findings)


def _agree(verdict: str, cause: str | None, said: dict[str, Status], full: bool) -> bool:
    """Whether verdict and cause follow from the findings, and from more than one of them where VMs run."""
    failed = Status.FAIL in said.values()
    proven = said[PROOF] is Status.PASS
    open_end = Status.UNKNOWN in (said.get(_SPEED), said.get(_LATENCY))
    if proven and not full:
        return False
    if cause == "no-cpu-flag" and (proven or said.get("guest-cpu-flag") is not Status.FAIL):
        return False
    match verdict:
        case "works":
            ran = all(said.get(check) is Status.PASS for check in _RAN)
            return ran and not failed and not open_end and cause is None
        case "works-emulated":
            return proven and said.get(_SPEED) is Status.FAIL
        case "off":
            return failed
        case _:
            return not failed and (open_end or not proven)


def _checked(value: object, kind: type[_T]) -> _T:
    if not isinstance(value, kind):
        raise TypeError(f"not a {kind.__name__}")
    return value


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _finding(item: object) -> Finding:
    fields = _checked(item, dict)
    if fields["check"] not in CHECKS:
        raise ValueError("check")
    return Finding(
        fields["check"],
        Layer.GUEST,
        Status(fields["status"]),
        printable(_checked(fields["evidence"], str)),
        printable(_checked(fields["cure"] or "", str)),
    )


def _numbers(items: object) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for name, value in _checked(items, dict).items():
        if not _matches(_NUMBER, name) or isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError("numbers")
        if not math.isfinite(value) or value < 0:
            raise ValueError("numbers")
        numbers[name] = value
    if len(numbers) > MOST_NUMBERS:
        raise ValueError("numbers")
    return numbers


def _unproven_finding(evidence: str, cure: str = "") -> Finding:
    return Finding(PROOF, Layer.GUEST, Status.UNKNOWN, evidence, cure)


def _unproven(channel: str, evidence: str, cure: str) -> Probed:
    finding = _unproven_finding(printable(evidence), printable(cure))
    return Probed(Proof("unknown", "guest-unreachable", channel), (finding,))
