"""What was read about a libvirt domain and its host. Frozen, and without a way back to libvirt."""

from __future__ import annotations

import shlex
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from nestvirt.backends.libvirt import cpu_xml
from nestvirt.backends.libvirt.cpu_xml import Cpu
from nestvirt.model import Change, Power

VENDOR_FEATURE = {"AMD": "svm", "Hygon": "svm", "Intel": "vmx"}
"""A CPU's vendor, in libvirt's words, to the flag that means nesting there."""
MODULE = {"svm": "kvm_amd", "vmx": "kvm_intel"}


def virsh(uri: str, *words: str) -> str:
    """A virsh command for a shell, whatever is in the URI and the VM's name."""
    return shlex.join(["virsh", "-c", uri, *words])


def agent_state(domain: str | None) -> str | None:
    """The QEMU guest agent's channel in a domain's XML: connected, disconnected, or None for no channel."""
    if domain is None:
        return None
    for target in ET.fromstring(domain).iterfind("devices/channel/target"):  # noqa: S314 - libvirt's own output
        if target.get("name") == "org.qemu.guest_agent.0":
            return target.get("state", "disconnected")
    return None


@dataclass(frozen=True)
class Platform:
    """The kind of machine that a domain asks for, by which libvirt tells its capabilities."""

    virt_type: str = "kvm"
    arch: str = "x86_64"
    machine: str | None = None
    emulator: str | None = None

    @classmethod
    def parse(cls, domain: str) -> Self:
        """Read it from a domain's XML."""
        root = ET.fromstring(domain)  # noqa: S314 - libvirt's own output
        kind = root.find("os/type")
        attributes = {} if kind is None else kind.attrib
        return cls(
            root.get("type", cls.virt_type),
            attributes.get("arch", cls.arch),
            attributes.get("machine"),
            root.findtext("devices/emulator"),
        )

    @property
    def emulated(self) -> bool:
        """True where QEMU interprets the guest's instructions (TCG) instead of KVM."""
        return self.virt_type == "qemu"


@dataclass(frozen=True)
class HostModel:
    """libvirt's host-model; without anything where libvirt does not tell it.

    Attributes:
        listed: the features that it lists, and whether each is on: those that differ from its base model's.
        expanded: all features that are on, the base model's too; None where libvirt did not tell.
    """

    listed: Mapping[str, bool] = field(default_factory=dict)
    expanded: frozenset[str] | None = None

    def has(self, feature: str) -> bool | None:
        """Does the host offer a feature? None: it cannot be told."""
        if feature in self.listed or self.expanded is None:
            return self.listed.get(feature)
        return feature in self.expanded


@dataclass(frozen=True)
class HostFacts:
    """The host, as far as libvirt and, for a local one, /sys show it. None: could not be read.

    Attributes:
        vendor: the CPU's vendor in libvirt's words: AMD, Intel.
        kvm: whether libvirt offers KVM for the domain's architecture.
        nested: the kvm module's own ``nested`` parameter, as it prints it.
        nested_source: where that was read.
        models: named models to their vendor: under KVM those that libvirt calls usable, under TCG all.
    """

    vendor: str | None
    kvm: bool
    nested: str | None
    nested_source: str
    host_model: HostModel
    models: Mapping[str, str] | None


@dataclass(frozen=True)
class Domain:
    """One domain.

    Attributes:
        uri: of the libvirt that has it.
        inactive: the persistent definition's XML, without secrets; None for a transient domain.
        live: the running domain's XML, or None.
        model_features: what libvirt expands the definition's named model to, or None.
        pm_suspended: it is suspended by its guest's power management, not paused.
    """

    uri: str
    name: str
    power: Power
    inactive: str | None
    live: str | None
    host: HostFacts
    managed_save: bool
    memory_snapshots: tuple[str, ...]
    model_features: frozenset[str] | None = None
    pm_suspended: bool = False

    busy = ""  # see Facts: a VM can always be power-cycled
    waiting = ""  # and nothing else is shut down for it

    def has(self, change: Change) -> bool:
        """See Facts: libvirt expands what it runs, so that the texts cannot be compared."""
        return False

    def value(self, setting: str) -> str | None:
        """See Facts. The one setting is ``cpu``, the element's exact text."""
        if setting != "cpu":
            raise ValueError(f"libvirt has no setting {setting!r}")
        return cpu_xml.split(self.inactive)[1] if self.inactive is not None else None

    @property
    def platform(self) -> Platform:
        """By the definition, or by the live XML where there is no definition."""
        return Platform.parse(self.inactive or self.live or "<domain/>")

    @property
    def emulated(self) -> bool:
        """See Platform."""
        return self.platform.emulated

    @property
    def feature(self) -> str | None:
        """The CPU flag that means nesting here: vmx or svm; None where the vendor is unknown."""
        return "svm" if self.emulated else VENDOR_FEATURE.get(self.host.vendor or "")

    @property
    def cpu(self) -> Cpu:
        """The configured CPU."""
        return Cpu.parse(self.value("cpu"))

    def shows(self, cpu: Cpu) -> bool | None:
        """Does that CPU show the guest the feature? None: it cannot be told from here."""
        if self.feature is None:
            return None
        stated = cpu.states(self.feature)
        if stated is not None:
            return stated
        model = self.host.host_model
        if cpu.policy(self.feature) == "optional":
            return model.has(self.feature)
        if cpu.mode == "host-model" and self.feature in model.listed:
            return model.listed[self.feature]
        implied = self.implies(cpu)
        # Under KVM, QEMU drops svm from every named model unless it is asked for by name (kvm_default_props
        # in target/i386/kvm/kvm-cpu.c), and libvirt names only what differs from the model.
        return None if implied and not self.emulated else implied

    def implies(self, cpu: Cpu) -> bool | None:
        """Has the model behind that CPU the feature, whatever QEMU makes of it? None: it cannot be told."""
        if self.feature is None:
            return None
        if cpu.mode == "host-model":
            return self.host.host_model.has(self.feature)
        if cpu.mode == "custom" and cpu.model == self.cpu.model and self.model_features is not None:
            return self.feature in self.model_features
        return None if cpu.mode else False
