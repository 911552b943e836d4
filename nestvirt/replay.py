"""What a run's record comes to: which VM it was, what it found and changed, how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nestvirt.model import Change, Power, Target, Vm

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Step:
    """One change of a run: what was intended, and what the hypervisor was then seen to hold.

    Attributes:
        kept: the value read back after the change; None with ``read_back`` False means that the run
            died before it could look.
    """

    change: Change
    kept: str | None = None
    read_back: bool = False


@dataclass(frozen=True)
class Run:
    """One recorded run.

    Attributes:
        power: the VM's power state that the run found, and owes back.
        outcome: ``applied``, ``put-back``, ``undone``, or ``continued`` by a later run; None while it is
            under way or after a crash.
        fleet: the run over many that it is part of; empty where it is one of its own.
        died: of what several runs have left that died one after another: their ids, oldest first.
    """

    id: str
    command: str
    time: str
    target: Target
    vm: Vm
    power: Power
    endpoint: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    outcome: str | None = None
    fleet: str = ""
    died: tuple[str, ...] = field(default=(), compare=False)

    @property
    def state(self) -> str:
        """How the run stands, in one word for people."""
        return self.outcome or "interrupted"

    def is_of(self, vm: str | None, backend: str | None = None) -> bool:
        """Whether it is a run of that VM, by its name, its id, or what the run was told; None: of any.

        An id may be qualified: 100 is ``100@UUID`` too.
        """
        names = (self.vm.name, self.vm.id, self.vm.id.partition("@")[0], self.target.name)
        backends = (None, self.target.backend, self.vm.hypervisor)
        return (vm is None or vm in names) and backend in backends

    def concerns(self, backend: str, vm: Vm) -> bool:
        """Whether it is a run on that very VM, whichever way that was named."""
        return identity(self.target.backend, self.vm) == identity(backend, vm)

    @property
    def undoable(self) -> bool:
        """True where something may still differ from what the run found."""
        owes_power = self.outcome is None and self.power is Power.RUNNING
        return owes_power or (self.outcome in (None, "applied") and bool(self.steps))


def identity(backend: str, vm: Vm) -> str:
    """What is the same for a VM whichever backend it was named to."""
    return f"{vm.hypervisor or backend}:{vm.id}"


def replay(run_id: str, lines: list[dict[str, object]]) -> Run:
    """What the lines of a record come to.

    Raises:
        ValueError: they are none of a record's, or of another version; and what else reading them raises.
    """
    begin = lines[0]
    vm, endpoint = begin["vm"], begin["endpoint"]
    if (
        begin["schema_version"] != SCHEMA_VERSION
        or not isinstance(vm, dict)
        or not isinstance(endpoint, dict)
    ):
        raise ValueError("not a record of this version")
    steps: list[Step] = []
    outcome: str | None = None
    power = Power(str(begin["power"]))
    for line in lines[1:]:
        match line:
            case {"event": "change", "setting": str(setting), "before": before, "after": after}:
                steps.append(Step(Change(setting, _text(before), _text(after))))
            case {"event": "kept", "value": value}:
                steps[-1] = Step(steps[-1].change, _text(value), read_back=True)
            case {"event": "undoing", "power": str(owed)}:
                # Where the run itself had died, it is the run's own debt that counts.
                power = power if outcome is None else Power(owed)
                outcome = None
            case {"event": "end", "outcome": str(outcome)}:
                pass
            case _:
                raise ValueError(f"unknown line: {line}")
    return Run(
        run_id,
        str(begin["command"]),
        str(begin["time"]),
        Target.parse(str(begin["target"])),
        Vm(str(vm["id"]), str(vm["name"]), _text(vm.get("hypervisor")), _text(vm.get("uuid"))),
        power,
        {str(k): str(v) for k, v in endpoint.items()},
        tuple(steps),
        outcome,
        str(begin.get("fleet") or ""),
    )


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise ValueError("not a setting's value")
