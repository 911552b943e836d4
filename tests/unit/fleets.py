"""A fleet with every kind of row, and hostile words for all that others can write."""

from __future__ import annotations

from dataclasses import replace

from nestvirt.errors import ConnectionFailed, TargetError
from nestvirt.model import PROOF, Change, Ending, Finding, Fleet, Layer, Proof, Report, Row, Status

HOSTILE = "</script><img src=x onerror=alert(1)>'\"&|=\x1b[2J\x00\u202e\u2028\ud800\ufffe]]>\r\n"
RUN = "20260131-101500-1a2b3c"
FLEET_RUN = "20260131-100000-abcdef"
CPU = Change("cpu", "<cpu mode='custom'>\n  <model>EPYC</model>\n</cpu>", "<cpu mode='host-passthrough'/>")


def found(words: str, said: str = "", cure: str = "mend it", subject: str = "") -> Finding:
    """A finding, written as "check status"."""
    check, status = words.split()
    ill = status in ("warn", "fail", "unknown")
    layer = Layer(check.partition("-")[0])
    return Finding(
        check, layer, Status(status), said or f"{check} was seen", cure if ill else "", subject=subject
    )


def proof(exit_ns: float = 9500.0) -> Proof:
    return Proof("works", None, "ssh", {"exit_ns": exit_ns, "loops_per_s": 4e8, "kvm_users": 1})


def proven(target: str, *further: str) -> Report:
    findings = ("host-nested pass", "vm-cpu pass", "guest-device pass", f"{PROOF} pass", *further)
    return Report(target, tuple(map(found, findings)), (CPU,), proof(), RUN)


def failing(target: str, check: str = "vm-cpu") -> Report:
    return Report(target, (found("host-nested pass"), found(f"{check} fail", "no svm")))


def blocked(target: str) -> Report:
    lock = found("vm-lock fail", "locked: backup", "wait for the backup")
    return Report(target, (lock,), blockers=(lock,))


def planned(target: str) -> Report:
    would = "dry run, nothing was touched; it would write cpu and power-cycle the VM"
    return Report(target, (found("vm-cpu fail"),), (CPU,), remains=(would,), planned=True)


DOWN = ConnectionFailed("vc1 does not answer", evidence="connection refused", cure="start it")
ROWS = {
    "proven": Row("libvirt:web-01", proven("libvirt:web-01"), 12.25),
    "failing": Row("proxmox@lab:100", failing("proxmox@lab:100"), 0.5, name="worker-3"),
    "blocked": Row("proxmox@lab:101", blocked("proxmox@lab:101"), 0.25),
    "planned": Row("vsphere:web-02", planned("vsphere:web-02"), 0.75),
    "down": Row("vsphere@east:web-03", DOWN, 5.0),
    "no such": Row("libvirt:web-99", TargetError("there is no web-99", cure="name another"), 0.125),
    "earlier": Row("libvirt:web-04", earlier=Ending.PASS, note=f"proven in run {FLEET_RUN}"),
    "not begun": Row("libvirt:web-05", note="3 had failed before"),
}
FLEET = Fleet(tuple(ROWS.values()), "enable", FLEET_RUN, 17.5, "3 have failed, as --max-failures says")


def fleet(*names: str) -> Fleet:
    """Some of the rows."""
    return Fleet(tuple(ROWS[name] for name in names))


def hostile(said: str = HOSTILE) -> Fleet:
    """Wherever a hypervisor, a guest or a file of targets can put words."""
    findings = tuple(found(f"guest-{status} {status}", said, said, said) for status in Status)
    changes = (Change(said or "x", said, said + "x"), Change("cpu", said + "\n" + said, None))
    report = Report(said or "x", findings, changes, proof(), RUN, (said,), summary=said)
    error = ConnectionFailed(said, evidence=said, cure=said)
    rows = (Row(said or "x", report, 1.0, note=said), Row(said or "x", error), Row(said or "x", note=said))
    return Fleet(tuple(replace(row, name=f"{said}?") for row in rows), "check", FLEET_RUN, 1.0, said)
