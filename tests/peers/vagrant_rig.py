"""Vagrant as a peer: real ``vagrant up`` on the lab's libvirtd, and projects whose Vagrant only recites."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from tests.contract.rig import Rig, Seen
from tests.lab import LabError, need
from tests.lab.libvirtd import PATH, LibvirtLab
from tests.peers.libvirt_rig import LibvirtRig

_numbers = itertools.count(1)

# Without a box there is no disk to be made, and nothing to wait for but the domain itself. The guest has no
# network: its way in is the agent. In emulation, Nehalem is a model without svm and EPYC is one with it.
VAGRANTFILE = """\
Vagrant.configure("2") do |config|
  {machines}
  config.vm.provider :libvirt do |libvirt|
    libvirt.uri = "{uri}"
    libvirt.system_uri = "{uri}"
    libvirt.driver = "qemu"
    libvirt.machine_type = "q35"
    libvirt.memory = 192
    libvirt.mgmt_attach = false
    libvirt.graphics_type = "none"
    libvirt.memballoon_enabled = false
    libvirt.kernel = "{folder}/vmlinuz"
    libvirt.initrd = "{folder}/initramfs.cpio"
    libvirt.cmd_line = "console=ttyS0 quiet panic=-1 nv.agent=real"
    libvirt.channel :type => "unix", :target_name => "org.qemu.guest_agent.0", :target_type => "virtio"
    libvirt.cpu_mode = "custom"
    libvirt.cpu_model = "{model}"
    {nested}
  end
end
"""


class VagrantRig:
    """Projects of real Vagrant; each is a folder, which is also its name."""

    backend = "vagrant"
    secret = "none"  # noqa: S105

    def __init__(self, lab: LibvirtLab, folder: Path) -> None:
        need(shutil.which("vagrant", path=PATH), "Vagrant is not installed")
        self.lab = lab
        self.libvirt = LibvirtRig(lab)
        self._folder = folder
        pool = lab.folder / "images"
        pool.mkdir(exist_ok=True)
        lab.virsh("pool-create-as", "default", "dir", "--target", str(pool), check=False)
        lab.virsh("pool-info", "default")

    @property
    def endpoint(self) -> Mapping[str, str]:
        return self.libvirt.endpoint

    @property
    def dead_endpoint(self) -> Mapping[str, str]:
        return self.libvirt.dead_endpoint

    def forbidden(self) -> AbstractContextManager[Mapping[str, str]]:
        return self.libvirt.forbidden()

    def project(self, *, nested: bool = False, machines: tuple[str, ...] = ()) -> Path:
        """A project that has not been brought up."""
        folder = self._folder / f"v{next(_numbers)}"  # short, as a socket's path has the domain's name
        folder.mkdir()
        text = VAGRANTFILE.format(
            machines="; ".join(f'config.vm.define "{name}"' for name in machines),
            uri=self.lab.uri,
            folder=self.lab.folder,
            model="EPYC" if nested else "Nehalem",
            nested="libvirt.nested = true" if nested else "",
        )
        (folder / "Vagrantfile").write_text(text, encoding="utf-8")
        return folder

    def make(self, *, nested: bool = False, running: bool = True, quirk: str = "") -> str:
        """See Rig. No quirks: the provider's own suite has them."""
        assert not quirk
        name = str(self.project(nested=nested))
        self.vagrant(name, "up")
        if running:
            self.lab.wait_agent(self.domain(name))
        else:
            self.lab.virsh("destroy", self.domain(name))
        return name

    def make_ambiguous(self) -> str:
        return str(self.project(machines=("one", "two")))

    def vagrant(self, name: str, *words: str) -> str:
        """What Vagrant prints for a command in a project."""
        done = subprocess.run(
            ["vagrant", *words],
            cwd=name.partition("#")[0],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode != 0:
            raise LabError(f"vagrant {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def domain(self, name: str) -> str:
        """The libvirt domain of a machine."""
        folder, _, machine = name.partition("#")
        return f"{Path(folder).name}_{machine or 'default'}"

    def see(self, name: str) -> Seen:
        return self.libvirt.see(self.domain(name))

    def suspend(self, name: str) -> None:
        self.libvirt.suspend(self.domain(name))

    def edit(self, name: str, *, nested: bool | None) -> None:
        self.libvirt.edit(self.domain(name), nested=nested)

    def reboot_inside(self, name: str) -> None:
        self.libvirt.reboot_inside(self.domain(name))

    def remove_all(self) -> None:
        """Remove every VM that was made."""
        for identity in self._folder.glob("v*/.vagrant/machines/*/libvirt/id"):
            self.lab.remove(identity.read_text())


# Says what Vagrant said when it was recorded, in whichever project it is asked.
RECITING = """#!/bin/sh
[ "$*" = "status --machine-readable" ] || exit 3
cat recorded
cat recorded-stderr >&2 2>/dev/null
exit "$(cat recorded-code 2>/dev/null || echo 0)"
"""

STATUS = """\
1795581127,{name},metadata,provider,{provider}
1795581127,{name},provider-name,{provider}
1795581127,{name},state,running
1795581127,{name},state-human-short,running
1795581127,{name},state-human-long,The domain is running. To stop this machine%!(VAGRANT_COMMA) you can run\\n`vagrant halt`.
"""  # noqa: E501 - as recorded


class RecitedRig:
    """Another peer's VMs, each as the machine of a project whose Vagrant recites."""

    backend = "vagrant"

    def __init__(self, provider: Rig, folder: Path) -> None:
        self._provider = provider
        self._folder = folder
        self._names: dict[str, str] = {}
        self.secret = provider.secret

    @property
    def endpoint(self) -> Mapping[str, str]:
        return self._provider.endpoint

    @property
    def dead_endpoint(self) -> Mapping[str, str]:
        return self._provider.dead_endpoint

    def forbidden(self) -> AbstractContextManager[Mapping[str, str]]:
        return self._provider.forbidden()

    def make(self, *, nested: bool = False, running: bool = True, quirk: str = "") -> str:
        vm = self._provider.make(nested=nested, running=running, quirk=quirk)
        folder = recited(self._folder / vm, self._provider.backend, {"default": vm})
        self._names[str(folder)] = vm
        return str(folder)

    def make_ambiguous(self) -> str:
        machines = {name: self._provider.make() for name in ("one", "two")}
        return str(recited(self._folder / "two", self._provider.backend, machines))

    def see(self, name: str) -> Seen:
        return self._provider.see(self._names[name])

    def suspend(self, name: str) -> None:
        self._provider.suspend(self._names[name])

    def edit(self, name: str, *, nested: bool | None) -> None:
        self._provider.edit(self._names[name], nested=nested)

    def reboot_inside(self, name: str) -> None:
        self._provider.reboot_inside(self._names[name])


def recited(folder: Path, provider: str, identities: Mapping[str, str | None], text: str = "") -> Path:
    """A project; its machines by name, with their identities at the provider (None: not made)."""
    folder.mkdir()
    (folder / "Vagrantfile").write_text(text, encoding="utf-8")
    lines = [STATUS.format(name=name, provider=provider) for name in identities]
    (folder / "recorded").write_text("".join(lines), encoding="utf-8")
    for name, identity in identities.items():
        if identity is not None:
            place = folder / ".vagrant/machines" / name / provider
            place.mkdir(parents=True)
            (place / "id").write_text(identity, encoding="utf-8")
    return folder


def reciting_program(folder: Path) -> Path:
    """A folder with the ``vagrant`` that recites."""
    folder.mkdir()
    program = folder / "vagrant"
    program.write_text(RECITING, encoding="utf-8")
    program.chmod(0o755)
    return folder
