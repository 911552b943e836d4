"""What Vagrant adds to its provider's facts: would the next ``vagrant up`` take nesting back? Pure."""

from __future__ import annotations

import re
import shlex
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, replace

from nestvirt.backends.base import Facts
from nestvirt.backends.vagrant.project import Machine
from nestvirt.model import Change, Finding, Goal, Layer, Power, Status

CHECKS = {"vm-vagrantfile": "Would Vagrant take the setting back at its next start of the machine?"}
"""Check id to the question it asks."""

SETTING = "cpu"
"""The provider's setting that a Vagrantfile has a say in, too."""

_ASKS = re.compile(
    r"""^(?:[^#\n]|\#\{)*?\b"""  # a comment asks for nothing, and #{ begins none
    r"""(?P<asks>\w+\.nested\s*=\s*true\b|\w+\.cpu_mode\s*=\s*:?["']host-passthrough)""",
    re.MULTILINE,
)
_TAKES = "`vagrant up` of the stopped machine and `vagrant reload` write the CPU anew from the Vagrantfile"
_MODEL = re.compile(r"[\w.+-]+")


@dataclass(frozen=True)
class MachineFacts:
    """One machine: the provider's facts, and the text of its Vagrantfile; see Facts."""

    provider: Facts
    machine: Machine
    vagrantfile: str

    @property
    def power(self) -> Power:
        """See Facts."""
        return self.provider.power

    @property
    def busy(self) -> str:
        """See Facts."""
        return self.provider.busy

    @property
    def waiting(self) -> str:
        """See Facts."""
        return self.provider.waiting

    def has(self, change: Change) -> bool:
        """See Facts."""
        return self.provider.has(change)

    def value(self, setting: str) -> str | None:
        """See Facts."""
        return self.provider.value(setting)

    def judge(self, goal: Goal) -> tuple[Finding, ...]:
        """The provider's findings, with Vagrant's own way into the guest, and one of Vagrant; see Facts."""
        findings = tuple(self.provider.judge(goal))
        fixes = [f.fix for f in findings if isinstance(f.fix, Change)]
        cpu = Cpu.parse(self.value(SETTING))
        wanted = Cpu.parse(fixes[0].after) if fixes else cpu
        own = self._kept(cpu, wanted) if goal.nested else self._given_back(cpu)
        return (*(self._by_ssh(f) for f in findings), *own)

    def _kept(self, cpu: Cpu, wanted: Cpu) -> Iterator[Finding]:
        check, layer = "vm-vagrantfile", Layer.VM
        if cpu.of_vagrant:
            evidence = (
                "the definition has both vmx and svm, which is how vagrant-libvirt writes nested = true"
            )
            yield Finding(check, layer, Status.PASS, f"{evidence}: Vagrant asked for it at its last start")
        elif (line := self._asking()) is not None:
            evidence = f"{line}; what a program comes to shows at the next vagrant reload"
            yield Finding(check, layer, Status.SKIP, evidence)
        else:
            evidence = f"{_TAKES}, and no line of it asks for nesting: the setting may be gone then"
            cure = f"add to the end of {self.machine.project.vagrantfile}: {lines(self.machine, wanted)}"
            yield Finding(check, layer, Status.WARN, evidence, cure)

    def _given_back(self, cpu: Cpu) -> Iterator[Finding]:
        line = self._asking()
        if line is None and not cpu.of_vagrant:
            return
        why = line or "vagrant-libvirt wrote the present CPU for nested = true"
        cure = f"take that out of {self.machine.project.vagrantfile}"
        evidence = f"{_TAKES}, and may give nesting again: {why}"
        yield Finding("vm-vagrantfile", Layer.VM, Status.WARN, evidence, cure)

    def _asking(self) -> str | None:
        """The first line of the text that asks for nesting, as far as a text can be read as a program."""
        match = _ASKS.search(self.vagrantfile)
        if match is None:
            return None
        number = self.vagrantfile.count("\n", 0, match.start("asks")) + 1
        return f"line {number} of the Vagrantfile has {match['asks']}"

    def _by_ssh(self, finding: Finding) -> Finding:
        if finding.check != "vm-agent" or not finding.ill:
            return finding
        options = shlex.join(["--ssh", self.machine.name, "--ssh-config", "ssh.config"])
        ask = self.machine.project.command("ssh-config", self.machine)
        return replace(finding, cure=f"look inside with {options}, after: ({ask}) > ssh.config")


@dataclass(frozen=True)
class Cpu:
    """A libvirt CPU, as far as a Vagrantfile can say it.

    Attributes:
        of_vagrant: it has the mark of vagrant-libvirt's ``nested``: both vmx and svm, optional where new.
    """

    mode: str = "host-passthrough"
    model: str | None = None
    of_vagrant: bool = False

    @classmethod
    def parse(cls, text: str | None) -> Cpu:
        """Read the ``<cpu>`` element; what is not one is like none."""
        try:
            element = ET.fromstring(text or "")  # noqa: S314 - libvirt's own output
        except ET.ParseError:
            return cls()
        policies = {f.get("name"): f.get("policy") for f in element.iterfind("feature")}
        model = (element.findtext("model") or "").strip()
        mode = element.get("mode", "custom")
        return cls(
            "host-passthrough" if mode == "maximum" else mode,
            model if mode == "custom" and _MODEL.fullmatch(model) else None,
            {"vmx", "svm"} <= set(policies) and "optional" in (policies["vmx"], policies["svm"]),
        )


def lines(machine: Machine, cpu: Cpu) -> str:
    """What to add to a Vagrantfile, on one line; it stands alone, and counts after all that is above it."""
    settings = ["nested = true", f'cpu_mode = "{cpu.mode}"']
    settings += [f'cpu_model = "{cpu.model}"'] if cpu.model else []
    block = "vm.provider(:libvirt) { |libvirt| " + "; ".join(f"libvirt.{s}" for s in settings) + " }"
    if machine.alone:
        return f'Vagrant.configure("2") {{ |config| config.{block} }}'
    name = machine.name.replace("\\", "\\\\").replace("'", "\\'")
    return f"Vagrant.configure(\"2\") {{ |config| config.vm.define('{name}') {{ |m| m.{block} }} }}"
