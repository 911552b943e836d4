"""What ``vagrant status --machine-readable`` says, without a trace in the project.

Vagrant forgets a machine, and deletes all that it keeps of it, when ``vagrant status`` does not see its VM:
for another user, or with another libvirt in the environment. So it gets a copy of the project's data folder.
Format: https://developer.hashicorp.com/vagrant/docs/cli/machine-readable
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from nestvirt.backends.vagrant.project import Machine, Project
from nestvirt.errors import ConnectionFailed, MissingExtra, TargetError
from nestvirt.printable import printable

TIMEOUT = 120.0
"""Seconds for ``vagrant status``, which asks the guest's agent for an address where a Vagrantfile says so."""

_LINE = re.compile(r"\d+,(?P<target>[^,]*),(?P<kind>[^,]+),(?P<data>.*)")
_NOT_INHERITED = ("VAGRANT_CWD", "VAGRANT_LOG")
"""Variables that would name another folder, and bury what Vagrant says in its log."""
_EARLY = "Vagrant failed to initialize at a very early stage:"


class Line(NamedTuple):
    """One line of machine-readable output."""

    target: str
    kind: str
    data: tuple[str, ...]


def parse(text: str) -> list[Line]:
    """Read machine-readable output; lines that a Vagrantfile itself prints are left out."""
    matches = (_LINE.fullmatch(line) for line in text.splitlines())
    return [
        Line(m["target"], m["kind"], tuple(_unescaped(word) for word in m["data"].split(",")))
        for m in matches
        if m is not None
    ]


def _unescaped(word: str) -> str:
    return word.replace("%!(VAGRANT_COMMA)", ",").replace("\\n", "\n").replace("\\r", "\r")


def machines_of(project: Project, endpoint: Mapping[str, str]) -> list[Machine]:
    """All machines that the Vagrantfile defines.

    Args:
        endpoint: its ``uri`` is what Vagrant is told of libvirt, unless the Vagrantfile says it itself.

    Raises:
        MissingExtra: Vagrant is not installed.
        ConnectionFailed: it did not answer in time, or did not reach the hypervisor.
        TargetError: it cannot use the Vagrantfile.
    """
    lines = parse(_status(project, endpoint))
    names = list(dict.fromkeys(line.target for line in lines if line.kind == "provider-name"))
    providers = {line.target: line.data[0] for line in lines if line.kind == "provider-name"}
    return [Machine(project, name, providers[name], alone=len(names) == 1) for name in names]


def _status(project: Project, endpoint: Mapping[str, str]) -> str:
    env = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    if "uri" in endpoint:
        env["LIBVIRT_DEFAULT_URI"] = endpoint["uri"]
    by_hand = f"make this work first: {project.command('status')}"
    with _copy_of(project.data) as data:
        env |= {"VAGRANT_DOTFILE_PATH": data, "VAGRANT_CHECKPOINT_DISABLE": "1"}
        try:
            done = _run(["vagrant", "status", "--machine-readable"], project.folder, env)
        except OSError as error:
            raise MissingExtra(
                "there is no vagrant that this user may run",
                evidence=str(error),
                cure="install Vagrant; or name the VM to its provider's backend: --libvirt NAME",
            ) from error
        except subprocess.TimeoutExpired as error:
            message = f"vagrant status did not end within {TIMEOUT:.0f} s"
            raise ConnectionFailed(message, evidence=f"in {project.folder}", cure=by_hand) from error
    if done.returncode != 0:
        kind, words = _failure(done.stdout, done.stderr)
        reason = printable(words, 600) or f"it ended with {done.returncode}, and without a word"
        if "Connection" in kind:
            raise ConnectionFailed("vagrant does not reach the hypervisor", evidence=reason, cure=by_hand)
        raise TargetError(f"vagrant cannot use {project.vagrantfile}", evidence=reason, cure=by_hand)
    return done.stdout


def _run(command: list[str], folder: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    # A session of its own: what the program has started in turn ends with it, at a Ctrl-C too.
    with subprocess.Popen(
        command,
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=TIMEOUT)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def _failure(stdout: str, stderr: str) -> tuple[str, str]:
    """What ended it: the kind of error, and Vagrant's own words."""
    for line in parse(stdout):
        if line.kind == "error-exit":
            return line.data[0], line.data[-1]
    return "", stderr.replace(_EARLY, "").strip()


@contextmanager
def _copy_of(data: Path) -> Iterator[str]:
    """A data folder with the machines' identities; all else in it is the project's own."""
    with contextlib.ExitStack() as kept:
        try:
            scratch = kept.enter_context(tempfile.TemporaryDirectory(prefix="nestvirt-vagrant-"))
            _fill(Path(scratch), data)
        except OSError as error:
            raise TargetError(
                "Vagrant's data cannot be copied",
                evidence=str(error),
                cure="run as the user who runs vagrant there, with room in the folder that TMPDIR names",
            ) from error
        yield scratch


def _fill(copy: Path, data: Path) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for entry in data.iterdir():
            if entry.name != "machines":
                (copy / entry.name).symlink_to(entry)
    for identity in data.glob("machines/*/*/id"):
        place = copy / identity.relative_to(data)
        place.parent.mkdir(parents=True)
        with contextlib.suppress(OSError):
            shutil.copyfile(identity, place)
