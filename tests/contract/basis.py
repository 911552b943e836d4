"""What the parts of the conformance suite share: the goals, a manner, a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nestvirt import backends
from nestvirt.engine import Manner, Session, Step
from nestvirt.journal import Journal
from nestvirt.model import Goal, Plan, Target
from tests.contract.rig import Rig

ON, OFF = Goal(nested=True), Goal(nested=False)
Tell = Callable[[Step, str], None]


def agree(_plan: Plan) -> None:
    """Consent to everything."""


def quiet(_step: Step, _detail: str) -> None:
    """Show nothing."""


MANNER = Manner(consent=agree)


class Basis:
    """A journal for each test, and sessions on a rig's VMs."""

    timeout = 60.0

    @pytest.fixture
    def journal(self, tmp_path: Path) -> Journal:
        return Journal(tmp_path / "state")

    def session(
        self, rig: Rig, journal: Journal, name: str, tell: Tell = quiet, timeout: float = 0
    ) -> Session:
        target = Target(rig.backend, name)
        backend = backends.connect(target, rig.endpoint)
        vm = backend.find(name)
        return Session(
            backend,
            target,
            vm,
            journal,
            f"--{rig.backend} {name}",
            timeout=timeout or self.timeout,
            tell=tell,
        )
