"""The types that every part of nestvirt speaks. Frozen data: no I/O, no decisions about order."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum

from nestvirt.errors import Error, TargetError
from nestvirt.printable import printable

PROOF = "guest-kvm-run"
"""Check id of the one finding that proves nesting: guest code ran through /dev/kvm."""

POWER_RIGHT = "vm-power-permission"
"""Check id of the one finding that stands against a power cycle only, and not against a change."""


HARDWARE_VERSION = "config.version"
"""VMware's hardware version of a VM."""

SAVED_STATE = "SavedState"
"""Hyper-V's saved state of a VM."""

LASTING = {
    HARDWARE_VERSION: "it cannot be lowered",
    "Version": "it cannot be lowered",
    SAVED_STATE: "what was discarded is gone",
}
"""The settings that go in one direction only, and why nobody can take them back."""


class Layer(StrEnum):
    """Where in the chain a finding was made, outermost first."""

    HOST = "host"
    VM = "vm"
    GUEST = "guest"
    CLUSTER = "cluster"


class Status(StrEnum):
    """What a check found. UNKNOWN means that it could not be read; it never stands for a default."""

    PASS = "pass"  # noqa: S105 - not a password
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"
    SKIP = "skip"


class Power(StrEnum):
    """A VM's power state."""

    RUNNING = "running"
    STOPPED = "stopped"
    SUSPENDED = "suspended"


@dataclass(frozen=True)
class Target:
    """A VM or host of one backend, as the user names it: ``libvirt:web-01``, ``libvirt@lab:web-01``."""

    backend: str
    name: str
    profile: str | None = None

    _FORM = re.compile(r"(?P<backend>[a-z]+)(@(?P<profile>[\w.-]+))?:(?P<name>.+)", re.DOTALL)

    def __post_init__(self) -> None:
        if self.profile is not None and not re.fullmatch(r"[\w.-]+", self.profile):
            raise TargetError(
                f"{self.profile!r} cannot be the name of a profile",
                evidence="a target with it could not be read back from the journal",
                cure="name it with letters, digits, and . _ - only",
            )

    def __str__(self) -> str:
        profile = f"@{self.profile}" if self.profile else ""
        return f"{self.backend}{profile}:{self.name}"

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read a target back from its written form.

        Raises:
            TargetError: the text is not of the form ``backend[@profile]:name``.
        """
        match = cls._FORM.fullmatch(text)
        if match is None:
            raise TargetError(
                f"{text!r} is not a target",
                evidence="a target is written backend[@profile]:name",
                cure="for example: libvirt:web-01",
            )
        return cls(match["backend"], match["name"], match["profile"])


@dataclass(frozen=True)
class Vm:
    """A VM as its hypervisor identifies it.

    Attributes:
        id: the identity that does not change when the VM is renamed (libvirt: the UUID).
        name: what its users call it.
        hypervisor: the backend of which that is the identity, where the target's only hands over to it.
        uuid: what tells it from another VM that has its id later, where the id is but a place (VMware: the
            file's path); None where it has none yet.
    """

    id: str
    name: str
    hypervisor: str | None = None
    uuid: str | None = field(default=None, compare=False)

    def may_be(self, earlier: Vm) -> bool:
        """Whether it may be the one that had the same id before."""
        return earlier.uuid in (None, self.uuid)


@dataclass(frozen=True)
class Goal:
    """What the user wants of a VM.

    Attributes:
        nested: True to have nesting, False to have none.
        cpu: the CPU mode or model to use, in the backend's own words; None for its best choice.
        former: the change by which nestvirt once gave it nesting, for disable to put back what was there.
        upgrade: the VMware hardware version to raise the VM to where it is too old; None for never.
        discard_saved_state: Hyper-V: whether the saved state of a VM may be lost.
        mac_spoofing: Hyper-V: whether the VM's adapters are to let MAC addresses of VMs inside through.
        upgrade_version: Hyper-V: whether to raise a configuration version that is too old.
    """

    nested: bool = True
    cpu: str | None = None
    former: Change | None = None
    upgrade: str | None = None
    discard_saved_state: bool = False
    mac_spoofing: bool = False
    upgrade_version: bool = False


@dataclass(frozen=True)
class Change:
    """One setting, in the hypervisor's own words. None stands for a setting that is not there."""

    setting: str
    before: str | None
    after: str | None

    @property
    def module(self) -> str | None:
        """The kernel module to be loaded anew for it: a file in /sys says what it was loaded with."""
        found = re.match(r"/sys/module/(\w+)/", self.setting)
        return found[1] if found else None

    @property
    def lasts(self) -> bool:
        """Whether nobody can take it back; see LASTING."""
        return self.setting in LASTING

    @property
    def stays(self) -> str:
        """What is left of one that lasts, for people."""
        return f"{self.setting}: {self.after} stays" if self.after is not None else f"{self.setting} is gone"

    @property
    def deed(self) -> str:
        """What making it is, as an order."""
        if self.module:
            return f"load {self.module} anew"
        if self.setting == SAVED_STATE:
            return "discard the saved state"
        return (
            f"{'remove' if self.after is None and self.setting.startswith('/') else 'write'} {self.setting}"
        )


@dataclass(frozen=True)
class ColdBoot:
    """The setting is right already, but only a power cycle makes it effective.

    Attributes:
        received: from the value that it runs with to the one that it will get; None where that is not known.
    """

    received: Change | None = None


@dataclass(frozen=True)
class Finding:
    """One question that was asked, and its answer.

    Attributes:
        check: stable id, ``layer-subject[-aspect]``; it is also the anchor in docs/runbooks.
        evidence: what was read, and where.
        cure: the one thing to do now, for people; empty where nothing is ill. Where there is a fix, the
            engine writes the cure: the command that lets nestvirt do it.
        fix: what nestvirt itself would do; the plan is made of these.
        subject: of what it was asked, where a report is about many: a node, or ``node/RuntimeClass``.
            Empty where that is the report's target itself.
    """

    check: str
    layer: Layer
    status: Status
    evidence: str
    cure: str = ""
    fix: Change | ColdBoot | None = None
    subject: str = ""

    @property
    def ill(self) -> bool:
        """True where something is wrong, or could not be read."""
        return self.status in (Status.FAIL, Status.WARN, Status.UNKNOWN)


@dataclass(frozen=True)
class Plan:
    """What has to be done, what stands against it, and what to know before it is done.

    Attributes:
        received: what a power cycle alone would bring; see ColdBoot.
        would: all that is done, the power cycle too, in the words of a dry run; who is asked is told it.
    """

    changes: tuple[Change, ...]
    cold_boot: bool
    blockers: tuple[Finding, ...]
    warnings: tuple[Finding, ...] = ()
    received: tuple[Change, ...] = ()
    would: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """True where there is nothing to do."""
        return not self.changes and not self.cold_boot


@dataclass(frozen=True)
class Proof:
    """What the probe concluded inside a guest, or on this machine.

    Attributes:
        verdict: works, works-emulated, off, unknown, or not-proven (flags were read, nothing was run).
        cause: the first broken link where the verdict is not works.
        channel: the way into the guest that was used ("local" for this machine).
        numbers: measured figures by name with their unit as suffix, such as ``exit_ns`` and ``loops_per_s``.
    """

    verdict: str
    cause: str | None
    channel: str
    numbers: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """All that one run has to say about one target.

    Attributes:
        run: the journal's id of the run that made the changes, or that was undone.
        remains: what is left to do, for people.
        goal: what was wanted of the VM; None for an undo, and for a cluster.
        blockers: the findings for whose sake nothing was done.
        planned: nothing was touched: the changes are what a run would make.
        summary: what it comes to where all is well, in a few words; for a cluster, which has no proof of its
            own: "kata-qemu runs on 3 nodes".
        cycled: the VM was power-cycled, or started; of a host, its kvm module was loaded anew. Where it is
            planned: would be.
    """

    target: str
    findings: tuple[Finding, ...]
    changes: tuple[Change, ...] = ()
    proof: Proof | None = None
    run: str | None = None
    remains: tuple[str, ...] = ()
    goal: Goal | None = Goal()
    blockers: tuple[Finding, ...] = ()
    planned: bool = False
    summary: str = ""
    cycled: bool = False

    @property
    def first_broken(self) -> Finding | None:
        """The first failed check along the chain, or what blocked the run: the one to cure first."""
        if self.blockers:
            return self.blockers[0]
        order = list(Layer)
        failed = [f for f in self.findings if f.status is Status.FAIL]
        return min(failed, key=lambda f: order.index(f.layer), default=None)

    @property
    def conclusion(self) -> Status:
        """FAIL where something failed, PASS where the goal was seen to be met, else UNKNOWN.

        A host that could not be read does not matter once guest code has been seen to run.
        """
        if self.first_broken is not None:
            return Status.FAIL
        wants_proof = self.goal is not None and self.goal.nested
        if wants_proof and any(f.check == PROOF and f.status is Status.PASS for f in self.findings):
            return Status.PASS
        return Status.UNKNOWN if any(f.status is Status.UNKNOWN for f in self.findings) else Status.PASS


class Ending(StrEnum):
    """How one target of many ended, as a table says it."""

    PASS = "pass"  # noqa: S105 - not a password
    PLAN = "plan"
    FAIL = "fail"
    UNKNOWN = "unknown"
    NOT_BEGUN = "not-begun"


@dataclass(frozen=True)
class Row:
    """One target of a run over many, and what came of it.

    Attributes:
        target: as it is written: ``libvirt@lab:web-01``.
        outcome: its report; the error in its place; None where it was not begun in this run.
        seconds: how long it took.
        earlier: how it ended in the run that this one goes on with, where it was not begun anew for that.
        note: why it was not begun, or what else is to be known of it; for people.
        name: what its users call the VM; empty where it was not found.
    """

    target: str
    outcome: Report | Error | None = None
    seconds: float = 0.0
    earlier: Ending | None = None
    note: str = ""
    name: str = ""

    @property
    def label(self) -> str:
        """What is shown of it to people: the target, and the name where the target does not end in that."""
        target, name = printable(self.target, 200), printable(self.name, 100)
        named = any(target.removesuffix(".vmx").endswith(f"{mark}{name}") for mark in ":/#@")
        return f"{target} ({name})" if name and not named else target

    @property
    def ending(self) -> Ending:
        """An error is a failure, unless it says only that it could not be found out."""
        if isinstance(self.outcome, Report):
            return Ending.PLAN if self.outcome.planned else Ending(self.outcome.conclusion.value)
        if isinstance(self.outcome, Error):
            return Ending.FAIL if self.outcome.exit_code in (1, 2, 70) else Ending.UNKNOWN
        return self.earlier or Ending.NOT_BEGUN

    @property
    def changed(self) -> bool:
        """Whether this run has changed a setting of it; an error may come after that."""
        if isinstance(self.outcome, Error):
            return self.outcome.changed
        return isinstance(self.outcome, Report) and bool(self.outcome.changes) and not self.outcome.planned


@dataclass(frozen=True)
class Fleet:
    """All that one run has to say about many targets, in the order in which they were named.

    Attributes:
        command: check, enable, disable or undo.
        run: the fleet run's own id, for ``--resume`` and undo; None where nothing was begun. Of an undo, the
            run that is taken back.
        seconds: the wall time of all.
        stopped: why the run ended before all were done; empty where it did not.
        down: how many a run, this one or one before it, has shut down and may have left off.
    """

    rows: tuple[Row, ...]
    command: str = "check"
    run: str | None = None
    seconds: float = 0.0
    stopped: str = ""
    down: int = 0

    @property
    def endings(self) -> dict[Ending, int]:
        """How many ended in each way."""
        endings = [row.ending for row in self.rows]
        return {ending: endings.count(ending) for ending in Ending}
