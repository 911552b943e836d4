"""Vagrant: finds the machine of a project, and hands over to the backend of its provider.

Vagrant is no hypervisor. A Vagrantfile is a program, so that it is not edited: the report says what to add.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Self

from nestvirt import backends
from nestvirt.backends.base import Backend, Facts, Kind, Place
from nestvirt.backends.vagrant.facts import CHECKS, MachineFacts
from nestvirt.backends.vagrant.project import Machine, Project
from nestvirt.backends.vagrant.status import machines_of
from nestvirt.errors import Error, TargetError
from nestvirt.guest.channel import Channel, Examiner
from nestvirt.model import Change, Target, Vm

__all__ = ["CHECKS", "VagrantBackend"]

HYPERVISOR = "libvirt"
"""The provider whose machines can be changed, and the backend that does it: both have the same name."""

_ADD = 'Vagrant.configure("2") { |config| config.vm.provider('
OTHERS = {
    "hyperv": ("Hyper-V", f"{_ADD}:hyperv) {{ |v| v.enable_virtualization_extensions = true }} }}"),
    "virtualbox": (
        "VirtualBox",
        f'{_ADD}:virtualbox) {{ |v| v.customize ["modifyvm", :id, "--nested-hw-virt", "on"] }} }}',
    ),
    **dict.fromkeys(
        ("vmware_desktop", "vmware_fusion", "vmware_workstation"),
        (
            "VMware Workstation and Fusion",
            f'{_ADD}:vmware_desktop) {{ |v| v.vmx["vhv.enable"] = "TRUE" }} }}',
        ),
    ),
}
"""Providers that nestvirt cannot change yet: their name for people, and what a Vagrantfile can say itself."""


class VagrantBackend:
    """The provider's own backend, and what Vagrant adds to it; see Backend."""

    kind = Kind(parallel=1, apart=True)

    def __init__(self, hypervisor: Backend) -> None:
        self._hypervisor = hypervisor
        self.kind = replace(hypervisor.kind, parallel=1, apart=True)
        self._machines: dict[str, Machine] = {}
        self.endpoint: Mapping[str, str] = hypervisor.endpoint

    @classmethod
    def connect(cls, target: Target, endpoint: Mapping[str, str]) -> Self:
        """Connect to the libvirt that has the machines; see Backend."""
        try:
            return cls(backends.connect(Target(HYPERVISOR, target.name), endpoint))
        except Error:
            _refuse_other_provider(target.name, endpoint)  # of which libvirt's absence tells nothing
            raise

    def find(self, name: str) -> Vm:
        """By ``FOLDER``, ``FOLDER#MACHINE``, or the provider's identity, as records have it; see Backend.

        The last needs no Vagrant, so that a run can be undone when the project is gone.
        """
        if not Project.is_named_by(name):
            return replace(self._hypervisor.find(name), hypervisor=HYPERVISOR)
        project = Project.named(name)
        machine = project.chosen(machines_of(project, self.endpoint))
        _refuse_provider(project, machine)
        identity = project.identity(machine)
        try:
            found = self._hypervisor.find(identity)
        except TargetError as error:
            raise TargetError(
                f"the VM of Vagrant's machine {machine.name} is not there",
                evidence=f"{project.identity_file(machine)} says {identity}; {error.message}",
                cure="if the Vagrantfile names another libvirt, give --connect URI; if the VM was deleted: "
                + project.command("up", machine),
            ) from error
        self._machines[found.id] = machine
        return replace(found, hypervisor=HYPERVISOR)

    def host_of(self, vm: Vm) -> Place:
        """See Backend."""
        return self._hypervisor.host_of(vm)

    def read(self, vm: Vm) -> Facts:
        """The provider's facts, and the Vagrantfile's text; see Backend."""
        facts = self._hypervisor.read(vm)
        machine = self._machines.get(vm.id)
        if machine is None:
            return facts
        return MachineFacts(facts, machine, machine.project.text())

    def apply(self, vm: Vm, change: Change) -> None:
        """See Backend."""
        self._hypervisor.apply(vm, change)

    def stop(self, vm: Vm, *, timeout: float) -> None:
        """By the provider: Vagrant itself would write the CPU anew at the next start; see Backend."""
        self._hypervisor.stop(vm, timeout=timeout)

    def power_off(self, vm: Vm) -> None:
        """See Backend."""
        self._hypervisor.power_off(vm)

    def start(self, vm: Vm, *, timeout: float) -> None:
        """By the provider, as ``vagrant up`` would write the CPU anew; see Backend."""
        self._hypervisor.start(vm, timeout=timeout)

    def channel(self, vm: Vm) -> Channel | Examiner | None:
        """See Backend."""
        return self._hypervisor.channel(vm)

    def close(self) -> None:
        """See Backend."""
        self._hypervisor.close()


def _refuse_other_provider(name: str, endpoint: Mapping[str, str]) -> None:
    if not Project.is_named_by(name):
        return
    try:
        project = Project.named(name)
        machine = project.chosen(machines_of(project, endpoint))
    except Error:
        return  # what the caller has is the one to tell
    _refuse_provider(project, machine)


def _refuse_provider(project: Project, machine: Machine) -> None:
    if machine.provider == HYPERVISOR:
        return
    title, line = OTHERS.get(machine.provider, (machine.provider, ""))
    by_hand = f"let the Vagrantfile do it: add to the end of {project.vagrantfile}: {line} and then: "
    raise TargetError(
        f"nestvirt cannot change VMs of {title} yet",
        evidence=f"vagrant status: the provider of {machine.name} is {machine.provider}",
        cure=by_hand + project.command("reload", machine)
        if line
        else "see the provider's documentation for nested virtualization; "
        "nestvirt check inside the guest tells whether it works",
    )
