"""The chain of one report, drawn: a column a machine, a link a question, and where it breaks. Pure.

Each column, and each arrow, is a picture of its own, so that a narrow window can stack them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from nestvirt.model import PROOF, Finding, Layer, Report, Status
from nestvirt.report_html.markup import Markup, el, join

WIDTH, GAP, ROW, TOP = 212, 34, 38, 50


class Link(NamedTuple):
    """One link: its words, and the checks that ask whether it holds."""

    words: str
    checks: tuple[str, ...]


class Column(NamedTuple):
    """One machine of the chain.

    Attributes:
        others: whether what is of no link, and ill, is shown here: in one column of a layer.
    """

    title: str
    layer: Layer
    links: tuple[Link, ...]
    others: bool = True


COLUMNS = (
    Column(
        "Host",
        Layer.HOST,
        (
            Link("CPU virtualizes", ("host-cpu", "host-nested-hv")),
            Link("hypervisor loaded", ("host-module", "host-kvm", "host-other-hypervisor", "host-vmmon")),
            Link("nesting allowed", ("host-nested", "host-nested-next-boot", "host-initramfs")),
            Link("KVM offers it", ("host-kvm-offers", "host-users")),
        ),
    ),
    Column(
        "VM",
        Layer.VM,
        (
            Link("fit to nest", ("vm-arch", "vm-type", "vm-hardware-version", "vm-nested-hv")),
            Link("setting is on", ("vm-cpu", "vm-cpu-feature", "vm-cpu-choice")),
            Link("in effect", ("vm-cpu-pending", "vm-managed-save")),
        ),
    ),
    Column(
        "Guest",
        Layer.GUEST,
        (
            Link("CPU flag", ("guest-cpu-flag", "guest-firmware", "guest-confidential")),
            Link("kvm module", ("guest-module",)),
            Link("/dev/kvm", ("guest-device", "guest-device-access")),
            Link("KVM makes a VM", ("guest-kvm-api", "guest-kvm-create", "guest-kvm-vcpu")),
        ),
    ),
    Column(
        "VM in the guest",
        Layer.GUEST,
        (
            Link("guest code ran", (PROOF,)),
            Link("at CPU speed", ("guest-kvm-speed", "guest-kvm-exit-latency")),
        ),
        others=False,
    ),
)
LOCAL = ("This machine", "VM in it")
CLUSTER = (
    Column(
        "Cluster",
        Layer.CLUSTER,
        (
            Link("API answers", ("cluster-api",)),
            Link("distribution", ("cluster-distribution",)),
            Link("release", ("cluster-release", "cluster-shims")),
        ),
        others=False,
    ),
    Column(
        "Nodes",
        Layer.CLUSTER,
        (
            Link("ready", ("cluster-node-ready",)),
            Link("KVM runs code", ("cluster-node-kvm",)),
            Link("vhost", ("cluster-node-vhost",)),
            Link("containerd", ("cluster-node-containerd", "cluster-node-snapshotter")),
        ),
    ),
    Column(
        "Kata",
        Layer.CLUSTER,
        (
            Link("deployed", ("cluster-daemonset", "cluster-node-label", "cluster-node-files")),
            Link("RuntimeClasses", ("cluster-runtimeclass",)),
            Link("handlers", ("cluster-handler",)),
        ),
        others=False,
    ),
    Column(
        "Pods",
        Layer.CLUSTER,
        (
            Link("standard pod", ("cluster-pod-standard",)),
            Link("pod in a VM", ("cluster-pod-kata",)),
        ),
        others=False,
    ),
)

_WORST = (Status.SKIP, Status.PASS, Status.WARN, Status.UNKNOWN, Status.FAIL)
_SIGNS = {
    Status.PASS: "M-4.5 .5 L-1.5 3.5 L4.5 -3.5",
    Status.FAIL: "M-3.5 -3.5 L3.5 3.5 M3.5 -3.5 L-3.5 3.5",
    Status.WARN: "M0 -5 V1 M0 4 V5",
    Status.UNKNOWN: "M-3 -2.5 A3 3 0 1 1 1 .5 Q0 1 0 2 M0 4.5 V5",
    Status.SKIP: "M-4 0 H4",
}
_DOTS = "M-4 0 V.1 M0 0 V.1 M4 0 V.1"


class Drawn(NamedTuple):
    """A link with its answer; no status where nothing asked.

    Attributes:
        later: it fails and is drawn before the first broken link, but is not what to cure first: a run would
            have changed it, or it was found out later.
    """

    words: str
    status: Status | None
    said: str
    broken: bool
    later: bool = False

    @property
    def state(self) -> str:
        """Its state in a word."""
        return "later" if self.later else self.status or "none"


def chain(report: Report) -> Markup:
    """The picture; nothing where nothing was asked."""
    columns = _marked([(column, _links(column, report)) for column in _columns(report)])
    if not columns:
        return Markup()
    height = TOP + ROW * max(len(links) for _, links in columns) + 8
    parts, cut = [], False
    for number, (column, links) in enumerate(columns):
        parts += [_arrow(cut)] if number else []
        parts.append(_column(column.title, links, height))
        cut = cut or any(link.broken for link in links)
    said = f"The chain of {report.target}: {_words(columns)}"
    return el("div", *parts, of={"class": "chain", "role": "img", "aria-label": said})


def _marked(columns: Sequence[tuple[Column, Sequence[Drawn]]]) -> list[tuple[Column, Sequence[Drawn]]]:
    """The same, where the first link that is drawn as failed is the first broken one."""
    if not any(link.broken for _, links in columns for link in links):
        return list(columns)
    passed = False
    marked: list[tuple[Column, Sequence[Drawn]]] = []
    for column, links in columns:
        drawn = []
        for link in links:
            passed = passed or link.broken
            drawn.append(link._replace(later=link.status is Status.FAIL and not passed))
        marked.append((column, drawn))
    return marked


def _columns(report: Report) -> list[Column]:
    """From the first machine that was asked to the last; of a VM, to the end of the chain."""
    layers = {finding.layer for finding in report.findings}
    if Layer.CLUSTER in layers:
        return list(CLUSTER)
    first = next((n for n, column in enumerate(COLUMNS) if column.layer in layers), None)
    if first is None:
        return []
    wants = report.goal is not None and report.goal.nested
    further = Layer.GUEST in layers or (wants and Layer.VM in layers)
    if report.proof is not None and report.proof.channel == "local":
        return [column._replace(title=title) for column, title in zip(COLUMNS[2:], LOCAL, strict=True)]
    last = len(COLUMNS) if further else 1 + max(n for n, c in enumerate(COLUMNS) if c.layer in layers)
    return list(COLUMNS[first:last])


def _links(column: Column, report: Report) -> list[Drawn]:
    """Its links; and what else is ill on that machine, by the check's own name."""
    broken = report.first_broken
    drawn = [
        _drawn(link.words, [f for f in report.findings if f.check in link.checks], broken)
        for link in column.links
    ]
    known = {check for each in (*COLUMNS, *CLUSTER) for link in each.links for check in link.checks}
    if not column.others:
        return drawn
    others = [f for f in report.findings if f.layer is column.layer and f.check not in known]
    ill = [f for f in others if f.status in (Status.FAIL, Status.UNKNOWN) or f == broken]
    names = dict.fromkeys(f.check for f in ill)
    return drawn + [_drawn(check, [f for f in ill if f.check == check], broken) for check in names]


def _drawn(words: str, findings: Sequence[Finding], broken: Finding | None) -> Drawn:
    if not findings:
        return Drawn(words, None, f"{words}: not asked", False)
    worst = max(findings, key=lambda finding: _WORST.index(finding.status))
    said = f"{worst.check}: {worst.status} - {worst.evidence}"
    return Drawn(
        words, worst.status, said, broken is not None and broken.check in {f.check for f in findings}
    )


_HEARD = {"none": "not asked", "later": "fail, but not the first to cure"}


def _words(columns: Sequence[tuple[Column, Sequence[Drawn]]]) -> str:
    """The picture for those who do not see it."""
    of = (
        f"{column.title}: "
        + ", ".join(f"{link.words} {_HEARD.get(link.state, link.state)}" for link in links)
        for column, links in columns
    )
    return "; ".join(of)


def _picture(kind: str, width: int, height: int, *parts: Markup) -> Markup:
    box = f"0 0 {width} {height}"
    return el("svg", *parts, of={"class": kind, "viewBox": box, "width": width, "height": height})


def _column(title: str, links: Sequence[Drawn], height: int) -> Markup:
    frame = el(
        "rect", of={"class": "frame", "x": 1, "y": 1, "width": WIDTH - 2, "height": height - 2, "rx": 10}
    )
    return _picture(
        "machine",
        WIDTH,
        height,
        frame,
        el("text", title, of={"class": "machine-name", "x": 14, "y": 29}),
        *(_pill(link, TOP + ROW * number) for number, link in enumerate(links)),
    )


def _pill(link: Drawn, y: int) -> Markup:
    kind = f"link {link.state}{' broken' if link.broken else ''}"
    own = "own" if "-" in link.words else None  # a check's id
    sign = _DOTS if link.later else _SIGNS[link.status or Status.SKIP]
    dot = join(
        el("circle", of={"class": "dot", "cx": 16, "cy": 15, "r": 9}),
        el(
            "path",
            of={"class": "sign", "d": sign, "transform": "translate(16 15)"},
        ),
    )
    return el(
        "g",
        el("title", link.said),
        el("rect", of={"class": "pill", "width": WIDTH - 20, "height": 30, "rx": 7}),
        dot,
        el("text", link.words, of={"x": 32, "y": 20, "class": own}),
        of={"class": kind, "transform": f"translate(10 {y})"},
    )


def _arrow(cut: bool) -> Markup:
    """From one machine to the next; cut off behind the first broken link."""
    middle = TOP + ROW // 2
    shaft = el("path", of={"class": "shaft", "d": f"M4 {middle} H{GAP - 5}"})
    end = f"M{GAP - 11} {middle - 6} L{GAP - 4} {middle} L{GAP - 11} {middle + 6}"
    head = el("path", of={"class": "head", "d": end})
    return _picture("arrow cut" if cut else "arrow", GAP, middle + 10, shaft, head)
