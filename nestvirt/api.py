"""nestvirt for programs: what the commands do, with typed results and without a word on stdout or stderr.

Each call connects, works on one VM, and closes the connection. What it raises is an ``Error``, with message,
evidence and cure. Nobody is asked; for a change that is not to be made at once there are ``dry_run`` and
``consent``.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nestvirt import backends, engine, settings
from nestvirt.backends import BELOW
from nestvirt.engine import Manner, Session, Step
from nestvirt.errors import SettingsError
from nestvirt.guest import verify
from nestvirt.guest.ssh import SshChannel
from nestvirt.journal import Journal, Run
from nestvirt.model import Goal, Plan, Report, Target

NONE: Mapping[str, str] = {}


@dataclass(frozen=True)
class Inside:
    """How a guest is looked into.

    Attributes:
        ssh: ``USER@HOST``, instead of the hypervisor's own way in.
        ssh_config: the ssh_config to use with it.
        load_modules: whether the probe may load the guest's kvm module.
        timeout: seconds for each of: the guest's shutdown, its start, and its first answer.
        tell: called with each step and its detail before it is taken.
    """

    ssh: str | None = None
    ssh_config: Path | None = None
    load_modules: bool = False
    timeout: float = 120.0
    tell: Callable[[Step, str], None] = lambda _step, _detail: None


def check(
    target: str | Target | None = None, *, where: Mapping[str, str] = NONE, inside: Inside | None = None
) -> Report:
    """Does nesting work? Changes nothing.

    Args:
        target: ``libvirt:web-01``, ``proxmox@lab:100``; None for this machine.
        where: the hypervisor's settings, by their names in the configuration file: ``{"uri": "qemu:///system"}``.
            What is not there is looked for as a command does: environment, file, keyring.
        inside: how the guest is looked into.

    Raises:
        Error: nothing could be found out at all.
    """
    inside = inside or Inside()
    if target is None:
        probed = verify.probe_here(load_modules=inside.load_modules)
        return Report("this machine", probed.findings, proof=probed.proof)
    with _opened(_target(target), where, inside) as session:
        return engine.check(session, Goal())


def enable(
    target: str | Target,
    *,
    where: Mapping[str, str] = NONE,
    inside: Inside | None = None,
    goal: Goal | None = None,
    consent: Callable[[Plan], None] | None = None,
    restart: bool = True,
    force_off: bool = False,
    dry_run: bool = False,
) -> Report:
    """Give a VM nested virtualization, and prove it in the guest. A running VM is power-cycled.

    Args:
        target: as of ``check``.
        where: as of ``check``.
        inside: as of ``check``.
        goal: what is wanted beside nesting: ``Goal(cpu="host-model")``. ``Goal(nested=False)`` disables.
        consent: called with the plan before anything is touched; what it raises ends the call.
        restart: False to leave a running VM as it is, and the change pending.
        force_off: whether the power may be cut where the guest does not shut down in time.
        dry_run: True to stop at the plan: ``report.changes``, and ``report.planned``.

    Returns:
        The report. Its ``conclusion`` is PASS only where guest code was seen to run; where something stood
        against it, nothing was touched and ``blockers`` says what.

    Raises:
        Error: a step failed, and everything was put back, or the cure says how.
    """
    manner = Manner(consent or _agreed, restart, force_off, dry_run)
    with _opened(_target(target), where, inside or Inside()) as session:
        return engine.reach(session, goal or Goal(), manner)


def undo(
    run: str, *, where: Mapping[str, str] = NONE, inside: Inside | None = None, restart: bool = True
) -> Report:
    """Put back exactly what a run changed.

    Args:
        run: a report's ``run``.
        where: what to connect with instead of what the run did; it recorded no secret.
        inside: as of ``check``.
        restart: as of ``enable``.

    Raises:
        Error: as ``enable``; ``ChangeRejected`` where somebody else has changed the setting since.
    """
    journal = Journal(settings.state_path())
    recorded = journal.whole(journal.find(run))  # where others died on that VM, it has to reach what they did
    with _opened(recorded.target, where, inside or Inside(), recorded) as session:
        return engine.undo(session, recorded, Manner(_agreed, restart))


def _agreed(_plan: Plan) -> None:
    """Whoever calls has agreed by calling."""


def _target(target: str | Target) -> Target:
    return target if isinstance(target, Target) else Target.parse(target)


@contextmanager
def _opened(
    target: Target, where: Mapping[str, str], inside: Inside, recorded: Run | None = None
) -> Iterator[Session]:
    kept = recorded.endpoint if recorded else None
    # A run that ended owes no VM of its host a start any more.
    again = BELOW if recorded is not None and recorded.outcome is None else BELOW[:-1]
    below = {name: value for name, value in (kept or {}).items() if name in again}
    found = settings.resolve(target.backend, target.profile, _known(target.backend, where), kept)
    backend = backends.connect(target, {**found.values, **below})
    try:
        config = ("-F", str(inside.ssh_config)) if inside.ssh_config else ()
        yield Session(
            backend=backend,
            target=target,
            vm=backend.find(recorded.vm.id if recorded else target.name),
            journal=Journal(settings.state_path()),
            spelling=shlex.quote(str(target)),
            ssh=SshChannel(inside.ssh, config) if inside.ssh else None,
            timeout=inside.timeout,
            load_modules=inside.load_modules,
            tell=inside.tell,
        )
    finally:
        backend.close()


def _known(backend: str, where: Mapping[str, str]) -> dict[str, str | None]:
    """The settings that were given; a name that is none of the backend's is a mistake of the caller's."""
    backends.backend_class(backend)
    known = [setting.name for setting in settings.SETTINGS[backend]]
    for name in where:
        if name not in known:
            raise SettingsError(
                f"{name!r} is no setting of {backend}",
                evidence=f"it has: {', '.join(known)}",
                cure="give settings by their names in the configuration file",
            )
    return {name: where.get(name) for name in known}
