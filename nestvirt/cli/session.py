"""From a command's options to a session: which VM, where, and how to look inside it."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import click

from nestvirt import backends, engine, report, settings
from nestvirt.backends import AUTO, BELOW
from nestvirt.cli.options import ENDPOINT, VM_EXAMPLES, given, named, words_for
from nestvirt.cli.output import Progress, finish, stderr_console
from nestvirt.engine import Session
from nestvirt.engine.session import found_again
from nestvirt.fleet.proofs import Proofs
from nestvirt.guest.ssh import SshChannel
from nestvirt.journal import Journal, Run
from nestvirt.model import Goal, Plan, Target
from nestvirt.printable import printable

DECLINED = 130
"""Exit code where the user says no, as if it had been Ctrl-C."""


@dataclass(frozen=True)
class Chosen:
    """What the options of a command name: the VM, its hypervisor, and how to look inside it.

    Attributes:
        vm: the backend, and the VM's name; None where none was named.
        endpoint: the options that are settings of the backend, without dashes, as they were given.
        with_host: the address of the VM's host, which is to be changed along with it.
        drain: VMs on the host that may be shut down for it.
    """

    vm: tuple[str, str] | None = None
    endpoint: Mapping[str, str] = field(default_factory=dict)
    with_host: str | None = None
    drain: tuple[str, ...] = ()
    profile: str | None = None
    ssh: str | None = None
    ssh_config: str | None = None
    load_modules: bool = False
    timeout: float = 120.0

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """From a command's options by name.

        Raises:
            UsageError: they name two VMs.
        """
        own = ("with_host", "drain", "profile", "ssh", "ssh_config", "load_modules", "timeout")
        return cls(
            named(options),
            given(options, ENDPOINT),
            **{name: options[name] for name in own if name in options},
        )

    def target(self) -> Target:
        """The target.

        Raises:
            UsageError: none was named, or with an option that is not its backend's.
        """
        if self.ssh_config is not None and self.ssh is None:
            raise click.UsageError("--ssh-config goes with --ssh USER@HOST.")
        if self.vm is None:
            raise click.UsageError(f"Name a VM, for example: {VM_EXAMPLES}")
        if self.with_host is not None and self.vm[0] == "host":
            raise click.UsageError("--with-host goes with a VM; --host is a host alone.")
        if self.vm[0] == "host" and (self.ssh is not None or self.load_modules):
            raise click.UsageError("--ssh and --load-modules are for a look inside a VM, not for --host.")
        self.settings_of(self.vm[0])
        return Target(*self.vm, self.profile)

    def below(self) -> dict[str, str]:
        """What the endpoint has of the host below the VM, or of the host itself.

        Raises:
            UsageError: a VM to drain has no name.
        """
        if not all(name.strip() for name in self.drain):
            raise click.UsageError("--drain was given an empty name; is a variable not set?")
        found = {"drain": "\n".join(self.drain)} if self.drain else {}
        if self.with_host is not None:
            known = settings.resolve("host", None, {}).values
            found |= {"with_host": self.with_host, "host_ssh_config": known.get("ssh_config", "")}
        return found

    def beside(self) -> str:
        """The options of the host below, as they were given; only enable has them."""
        words = [] if self.with_host is None else ["--with-host"]
        words += [self.with_host] if self.with_host not in (None, AUTO) else []
        return shlex.join(words + [word for name in self.drain for word in ("--drain", name)])

    def settings_of(self, backend: str) -> dict[str, str | None]:
        """What the command line says of that backend's settings, by their names.

        Raises:
            UsageError: an option was given that sets none of them.
        """
        known = {s.option: s.name for s in settings.SETTINGS.get(backend, ()) if s.option is not None}
        for option in self.endpoint:
            if option not in known:
                owners = [
                    f"--{b}"
                    for b, all_of in settings.SETTINGS.items()
                    if option in {s.option for s in all_of}
                ]
                raise click.UsageError(f"--{option} goes with {' or '.join(owners)}, not with --{backend}.")
        return {name: self.endpoint.get(option) for option, name in known.items()}

    def spelling(self, target: Target, recorded: Mapping[str, str] | None = None) -> str:
        """The options that name the same VM again: as they were given, else as they were recorded."""
        words = words_for(target.backend, target.name)
        for setting in settings.SETTINGS[target.backend]:
            value = self.endpoint.get(setting.option or "") or (recorded or {}).get(setting.name)
            if setting.option and value:
                words += [f"--{setting.option}"] if setting.kind is bool else [f"--{setting.option}", value]
        words += ["--profile", target.profile] if target.profile else []
        return shlex.join(words)


@contextmanager
def opened(
    chosen: Chosen, target: Target, progress: Progress, *, recorded: Run | None = None
) -> Iterator[Session]:
    """Connect, find the VM, and close the connection at the end.

    Args:
        chosen: the command's options.
        target: the VM.
        progress: what shows the steps.
        recorded: an earlier run, whose own endpoint and VM count before the settings and the name.
    """
    kept = recorded.endpoint if recorded else None
    below = chosen.below()
    if recorded is not None:
        # A run that ended owes nobody anything: what it may shut down once more is asked for anew.
        again = BELOW if recorded.outcome is None else BELOW[:-1]
        below = {name: recorded.endpoint[name] for name in again if name in recorded.endpoint} | below
    if chosen.drain and target.backend != "host" and "with_host" not in below:
        raise click.UsageError("--drain NAME goes with a host: --host, or --with-host.")
    backend = backends.connect(target, {**settings_for(chosen, target, progress, kept), **below})
    try:
        ssh = None
        if chosen.ssh is not None:
            ssh = SshChannel(chosen.ssh, ("-F", chosen.ssh_config) if chosen.ssh_config else ())
        yield Session(
            backend=backend,
            target=target,
            vm=found_again(backend, recorded) if recorded else backend.find(target.name),
            journal=Journal(settings.state_path()),
            spelling=chosen.spelling(target, kept),
            beside=chosen.beside(),
            ssh=ssh,
            timeout=chosen.timeout,
            load_modules=chosen.load_modules,
            tell=progress.tell,
        )
    finally:
        progress.rest()
        backend.close()


def settings_for(
    chosen: Chosen, target: Target, progress: Progress, kept: Mapping[str, str] | None = None
) -> Mapping[str, str]:
    """What a target's hypervisor is connected with: resolved, told where it is from, and asked for.

    Args:
        chosen: the command's options.
        target: whose backend and profile count.
        progress: what tells the sources.
        kept: what an earlier run was connected with.
    """
    resolved = settings.resolve(target.backend, target.profile, chosen.settings_of(target.backend), kept)
    _tell_sources(target, resolved, progress)
    return _with_password(target, resolved.values, progress)


def _tell_sources(target: Target, resolved: settings.Endpoint, progress: Progress) -> None:
    """One line for each hypervisor, and one that stays where its certificate is not looked at."""
    told = dict(resolved.sources)
    at = f"{target.backend}@{target.profile}" if target.profile else target.backend
    if "insecure" in told and settings.unverified(resolved.values):
        source = told.pop("insecure")
        progress.note(f"connecting to {at}; the server's certificate is NOT verified: {source} says so")
    if told:
        of: dict[str, list[str]] = {}
        for name, source in told.items():
            of.setdefault(source, []).append(name)
        progress.tell_once(f"connecting to {at};", ", ".join(map(_from, of.values(), of)))


def _from(names: Sequence[str], source: str) -> str:
    """Settings that have one source."""
    *first, last = names
    return f"the {', '.join(first)} and {last} are from {source}" if first else f"the {last} is from {source}"


def _with_password(target: Target, values: Mapping[str, str], progress: Progress) -> Mapping[str, str]:
    """The values, with what only the user can tell, where somebody is there to be asked."""
    asked = settings.lacks_password(target.backend, values) and sys.stdin.isatty() and sys.stderr.isatty()
    if not asked:
        return values
    progress.rest()
    question = f"Password of {printable(values['username'])}"
    return {**values, "password": click.prompt(question, hide_input=True, err=True)}


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
        kind = session.backend.kind
        question = "Change it?" if no_restart else f"Change it, and {kind.cycle}, {kind.condition}?"
        try:
            click.confirm(question, abort=True, err=True)
        except click.Abort:
            click.echo("Nothing was changed.", err=True)
            raise click.exceptions.Exit(DECLINED) from None

    return consent


def _show_plan(session: Session, plan: Plan) -> None:
    with contextlib.suppress(OSError):  # nobody looks; the work is what counts
        console = stderr_console()
        place = next((v for n, v in session.backend.endpoint.items() if n in ("uri", "endpoint")), "")
        named = f" ({session.vm.name})" if session.vm.name != session.target.name else ""
        at = f" at {place}" if place else ""
        console.print(printable(f"{session.target}{named}{at}: this will be changed"))
        for warning in plan.warnings:
            console.print(f"  {printable(f'mind {warning.check}: {warning.evidence}')}")
        host = session.backend.endpoint.get("with_host")
        below = [change for change in plan.changes if host and change.setting.startswith("/")]
        if below:
            console.print(f"  {printable(f'on its host, {host}, which other VMs may run on:')}")
            console.print(report.diff(below), end="")
            console.print("  on the VM:")
        console.print(report.diff([change for change in plan.changes if change not in below]), end="")
        if len(plan.changes) == len(below):
            console.print(
                "  no setting" if below else f"  no setting; it will only {session.backend.kind.cycle}"
            )


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
    chosen = Chosen.of(options)
    if chosen.drain and no_restart:
        raise click.UsageError("--drain shuts VMs down for the reload that --no-restart leaves out.")
    progress = Progress(quiet=quiet or output != "text")
    with opened(chosen, chosen.target(), progress) as session:
        consent = consenting(session, progress, yes=yes, no_restart=no_restart)
        manner = engine.Manner(consent, not no_restart, force_off, dry_run)
        result = engine.reach(session, goal, manner)
        Proofs(settings.state_path()).keep(session.target.backend, session.vm, result)
    return finish(result, output)
