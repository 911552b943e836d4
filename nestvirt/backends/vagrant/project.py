"""A Vagrant project on disk: its Vagrantfile, its machines, and the identities that Vagrant has noted.

Vagrant has no command that tells a machine's identity at its provider, so the file that holds it is read:
``machines/NAME/PROVIDER/id`` in the project's data folder.
https://developer.hashicorp.com/vagrant/docs/other/environmental-variables
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nestvirt.errors import TargetError
from nestvirt.printable import printable

SEPARATOR = "#"
"""Between a project's folder and a machine's name."""


def target_name(folder: str, machine: str | None) -> str:
    """What a target calls a project, or one machine of it: ``FOLDER`` or ``FOLDER#MACHINE``.

    Raises:
        TargetError: the folder is a relative one, and the current folder is gone.
    """
    try:
        place = os.path.realpath(folder)
    except OSError as error:
        raise _unseen(folder, error) from error
    return f"{place}{SEPARATOR}{machine or ''}" if machine or SEPARATOR in place else place


def folder_and_machine(name: str) -> tuple[Path, str | None]:
    """The opposite of ``target_name``."""
    folder, separator, machine = name.rpartition(SEPARATOR)
    return (Path(folder), machine or None) if separator else (Path(name), None)


@dataclass(frozen=True)
class Machine:
    """One machine of a project, as ``vagrant status`` tells of it.

    Attributes:
        alone: it is the only one that the Vagrantfile defines.
    """

    project: Project
    name: str
    provider: str
    alone: bool = True


@dataclass(frozen=True)
class Project:
    """A folder with a Vagrantfile in it, or in a folder above.

    Attributes:
        folder: the folder that was named; ``vagrant`` is run there.
        root: that folder, or the one above it, from which Vagrant takes its Vagrantfile.
        vagrantfile: the file that Vagrant takes there; VAGRANT_VAGRANTFILE may name one elsewhere.
        machine: the machine that was named; None for the only one.
    """

    folder: Path
    root: Path
    vagrantfile: Path
    machine: str | None = None

    @staticmethod
    def is_named_by(name: str) -> bool:
        """Whether a target's name is that of a project, not a provider's identity of a VM."""
        return Path(name.partition(SEPARATOR)[0]).is_absolute()

    @classmethod
    def named(cls, name: str) -> Project:
        """From a target's name.

        Raises:
            TargetError: there is no such folder, or no Vagrantfile, or it may not be looked for.
        """
        folder, machine = folder_and_machine(name)
        try:
            if folder.is_dir():
                return cls(folder, *_vagrantfile(folder), machine)
        except OSError as error:
            raise _unseen(folder, error) from error
        raise TargetError(
            f"there is no folder {folder}",
            evidence="--vagrant takes the folder that has the Vagrantfile",
            cure="name it, for example: --vagrant .",
        )

    @property
    def data(self) -> Path:
        """Vagrant's data folder of this project."""
        named = os.environ.get("VAGRANT_DOTFILE_PATH") or ".vagrant"
        return self.root / os.path.expanduser(named)  # noqa: PTH111 - Path's own raises where there is no such user

    def text(self) -> str:
        """The Vagrantfile.

        Raises:
            TargetError: it cannot be read.
        """
        try:
            return self.vagrantfile.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            cure = "run as a user who may read it"
            raise TargetError("the Vagrantfile cannot be read", evidence=str(error), cure=cure) from error

    def chosen(self, machines: Sequence[Machine]) -> Machine:
        """The machine that was named, or the only one.

        Raises:
            TargetError: there is none of that name, or more than one to choose from.
        """
        names = ", ".join(printable(m.name, 60) for m in machines) or "none"
        found = [m for m in machines if self.machine in (None, m.name)]
        if len(found) == 1:
            return found[0]
        evidence = f"vagrant status has: {names}"
        if self.machine is not None:
            cure = "name one of these with --machine"
            raise TargetError(f"{self.folder} has no machine {self.machine!r}", evidence=evidence, cure=cure)
        message = f"{self.folder} has {'more than one machine' if machines else 'no machine'}"
        raise TargetError(message, evidence=evidence, cure="name one: --machine NAME")

    def identity_file(self, machine: Machine) -> Path:
        """Where Vagrant keeps a machine's identity at its provider."""
        return self.data / "machines" / machine.name / machine.provider / "id"

    def identity(self, machine: Machine) -> str:
        """A machine's identity at its provider, such as libvirt's UUID.

        Raises:
            TargetError: the machine has not been made.
        """
        file = self.identity_file(machine)
        try:
            return file.read_text(encoding="utf-8", errors="replace").strip()
        except FileNotFoundError as error:
            raise TargetError(
                f"Vagrant has not made the machine {machine.name} yet",
                evidence=f"{file} is not there",
                cure=f"run this again when it is made: {self.command('up', machine)}",
            ) from error
        except OSError as error:
            cure = "run as the user who runs vagrant there"
            raise TargetError("Vagrant's data cannot be read", evidence=str(error), cure=cure) from error

    def command(self, verb: str, machine: Machine | None = None) -> str:
        """A vagrant command for a shell, for one machine or for all."""
        words = ["vagrant", verb, *([machine.name] if machine and not machine.alone else [])]
        return f"cd {shlex.quote(str(self.folder))} && {shlex.join(words)}"


def _unseen(folder: Path | str, error: OSError) -> TargetError:
    cure = "name another folder, or run as the user who runs vagrant there"
    return TargetError(f"the folder {folder} cannot be looked into", evidence=str(error), cure=cure)


def _vagrantfile(folder: Path) -> tuple[Path, Path]:
    """The project's root and its Vagrantfile, as Vagrant itself looks: here, then in each folder above."""
    named = os.environ.get("VAGRANT_VAGRANTFILE")
    names = [named] if named else ["Vagrantfile", "vagrantfile"]
    for place in (folder, *folder.parents):
        for name in names:
            if (place / name).is_file():
                return place, place / name
    raise TargetError(
        f"there is no {names[0]} in {folder}, nor in a folder above",
        evidence=f"looked for: {', '.join(names)}",
        cure="name the project's folder: --vagrant DIR",
    )
