"""From a command's options to a session: which VM, where, and how to look inside it."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click

from nestvirt import backends, engine, report, settings
from nestvirt.backends.base import Backend
from nestvirt.cli.output import Progress, finish, stderr_console
from nestvirt.engine import Session
from nestvirt.errors import TargetError
from nestvirt.guest.ssh import SshChannel
from nestvirt.journal import Journal, Run
from nestvirt.model import Goal, Plan, Target, Vm
from nestvirt.printable import printable

DECLINED = 130
"""Exit code where the user says no, as if it had been Ctrl-C."""


@dataclass(frozen=True)
class Chosen:
    """What the options of a command name: the VM, and how to look inside it."""

    libvirt: str | None = None
    connect: str | None = None
    profile: str | None = None
    ssh: str | None = None
    ssh_config: str | None = None
    load_modules: bool = False
    timeout: float = 120.0

    def target(self) -> Target | None:
        """The target that was named, or None."""
        return None if self.libvirt is None else Target("libvirt", self.libvirt, self.profile)

    def required_target(self) -> Target:
        """The target; a usage error where none was named."""
        if self.ssh_config is not None and self.ssh is None:
            raise click.UsageError("--ssh-config goes with --ssh USER@HOST.")
        target = self.target()
        if target is None:
            raise click.UsageError("Name a VM, for example: --libvirt web-01")
        return target

    def spelling(self, target: Target) -> str:
        """The options that name the same VM again, as they were given."""
        options = [f"--{target.backend}", target.name]
        options += ["--connect", self.connect] if self.connect else []
        options += ["--profile", target.profile] if target.profile else []
        return shlex.join(options)

    def endpoint_options(self) -> dict[str, str | None]:
        """What the command line says of the endpoint, by setting name."""
        return {"uri": self.connect}


@contextmanager
def opened(
    chosen: Chosen, target: Target, progress: Progress, *, recorded: Run | None = None
) -> Iterator[Session]:
    """Connect, find the VM, and close the connection at the end.

    Args:
        chosen: the command's options.
        target: the VM.
        progress: what shows the steps.
        recorded: an earlier run, whose own endpoint and VM count in place of the settings and the name.
    """
    endpoint: Mapping[str, str]
    if recorded is None:
        resolved = settings.resolve(target.backend, target.profile, chosen.endpoint_options())
        endpoint = resolved.values
        for name, source in resolved.sources.items():
            progress.tell("connecting;", f"the {name} is from {source}")
    else:
        endpoint = recorded.endpoint
    backend = backends.connect(target, endpoint)
    try:
        ssh = None
        if chosen.ssh is not None:
            ssh = SshChannel(chosen.ssh, ("-F", chosen.ssh_config) if chosen.ssh_config else ())
        yield Session(
            backend=backend,
            target=target,
            vm=_find_recorded(backend, recorded) if recorded else backend.find(target.name),
            journal=Journal(settings.state_path()),
            spelling=chosen.spelling(target),
            ssh=ssh,
            timeout=chosen.timeout,
            load_modules=chosen.load_modules,
            tell=progress.tell,
        )
    finally:
        progress.rest()
        backend.close()


def _find_recorded(backend: Backend, run: Run) -> Vm:
    try:
        return backend.find(run.vm.id)
    except TargetError as error:
        raise TargetError(
            f"the VM {run.vm.name} of run {run.id} is gone",
            evidence=f"{run.endpoint.get('uri', run.target.backend)} has no VM {run.vm.id}",
            cure="there is nothing left to put back",
        ) from error


def consenting(
    session: Session, progress: Progress, *, yes: bool, no_restart: bool
) -> Callable[[Plan], None]:
    """Show the plan, and ask unless told not to; declining ends the command with 130."""

    def consent(plan: Plan) -> None:
        if yes and progress.quiet:
            return
        progress.rest()
        _show_plan(session, plan)
        if yes:
            return
        if not sys.stdin.isatty():
            raise click.UsageError("There is no terminal to ask at: consent with --yes, or try --dry-run.")
        question = "Change it?" if no_restart else "Change it, and power-cycle the VM if it runs?"
        try:
            click.confirm(question, abort=True, err=True)
        except click.Abort:
            click.echo("Nothing was changed.", err=True)
            raise click.exceptions.Exit(DECLINED) from None

    return consent


def _show_plan(session: Session, plan: Plan) -> None:
    with contextlib.suppress(OSError):  # nobody looks; the work is what counts
        console = stderr_console()
        console.print(f"{printable(str(session.target))}: this will be changed")
        console.print(report.diff(plan.changes), end="")
        if not plan.changes:
            console.print("  no setting; only its power")


def reach_goal(
    goal: Goal,
    *,
    dry_run: bool,
    yes: bool,
    no_restart: bool,
    force_off: bool,
    quiet: bool,
    output: str,
    **options: Any,
) -> int:
    """What enable and disable share: they differ in the goal only."""
    chosen = Chosen(**options)
    progress = Progress(quiet=quiet or output == "json")
    with opened(chosen, chosen.required_target(), progress) as session:
        consent = consenting(session, progress, yes=yes, no_restart=no_restart)
        manner = engine.Manner(consent, not no_restart, force_off, dry_run)
        result = engine.reach(session, goal, manner)
    return finish(result, output)
