"""What is done with a VM while its Kubernetes node is away: the two are one machine, and go down together."""

from __future__ import annotations

from collections.abc import Callable, Set

from nestvirt.engine import Session, Step
from nestvirt.errors import ChangeRejected, ConnectionFailed, Error
from nestvirt.fleet.cluster import State
from nestvirt.fleet.nodes import Nodes
from nestvirt.model import Power, Report, Status

OFF = frozenset({Step.POWER_OFF, Step.APPLY, Step.LOAD, Step.READ_BACK, Step.START})
"""The steps at which a VM is off that is power-cycled. One that was only asked to stop may still run."""


def runs(session: Session) -> bool:
    """Whether a VM runs at this moment."""
    return session.backend.read(session.vm).power is Power.RUNNING


def state_for(nodes: Nodes, node: str, session: Session) -> State | None:
    """How a node stood that is to be away; None where it cannot be asked about, and its VM is only started.

    The API server may be in that very VM.

    Raises:
        ChangeRejected: its VM runs, and would be shut down under a node that cannot be drained.
        Error: its VM runs, and the node cannot be asked about.
    """
    running = runs(session)
    try:
        state = nodes.cluster.state(node)
    except ConnectionFailed:
        if running:
            raise
        return None
    _refuse_unready(session, node, state, running)
    return state


def _refuse_unready(session: Session, node: str, state: State, running: bool) -> None:
    if not state.ready and running:
        raise ChangeRejected(
            f"the node {node} is not Ready, so it cannot be drained",
            evidence=f"{session.vm.name} runs, and its node is not Ready; nothing was touched",
            cure=f"see why: kubectl describe node {node}; or do this one without --drain-nodes",
        )


def while_away(
    nodes: Nodes,
    node: str,
    session: Session,
    ahead: Callable[[], Report],
    change: Callable[[], Report],
    seen: Set[Step],
    tell: Callable[[Step, str], None],
) -> Report:
    """Change a VM while its node is cordoned and drained; and have that Ready again before the next one.

    Args:
        ahead: finds what would be done now, and refuses what was not agreed to: no node is drained in vain.
        change: does it.
        seen: the steps of it that were taken.
        tell: told of what takes its time besides.

    Raises:
        Error: as ``ahead``, ``change`` and ``Nodes.away``; it says what is changed, too.
    """
    state, running = state_for(nodes, node, session), runs(session)
    if state is None:
        return change()
    _refuse_unready(session, node, nodes.cluster.now(node), running)
    if running:
        plan = ahead()
        if not plan.planned:
            return plan
    done: Report | None = None
    try:
        with nodes.away(node, lambda what: tell(Step.STOP, what), drain=running) as trip:
            try:
                done = change()
            finally:
                trip.stopped = not OFF.isdisjoint(seen)
                trip.started = trip.stopped and (done is not None or _seen_running(session))
    except Error as error:
        if done is not None:
            _told_what_is_done(error, done)
        raise
    return done


def _seen_running(session: Session) -> bool:
    """The same, after a failure: where it cannot be seen, it is not counted upon."""
    try:
        return runs(session)
    except Error:
        return False


def _told_what_is_done(error: Error, done: Report) -> None:
    """It is only the node that is wrong: the VM has what it was to have."""
    if done.changes:
        error.changed, error.run = True, done.run
        proven = ", and it is proven" if done.conclusion is Status.PASS else ""
        undo = f"; to put it back: nestvirt undo {done.run}" if done.run else ""
        said = (
            f"the VM has its change{proven}{undo}" if done.goal is not None else "the VM itself is put back"
        )
        error.cure = f"{error.cure}; {said}"
