"""Enables one VM and kills itself right before a step: ``python -m tests.contract.killed JOB`` (JSON)."""

import json
import os
import signal
import sys
from pathlib import Path

from nestvirt import backends, engine
from nestvirt.engine import Manner, Session, Step
from nestvirt.journal import Journal
from nestvirt.model import Goal, Target
from tests.peers import memory

job = json.loads(sys.argv[1])
backends.BACKENDS.setdefault(*memory.REGISTRATION)


def die(step: Step, _detail: str) -> None:
    """End at once, with no clean-up, at the step that was named."""
    if step.name == job["step"]:
        os.kill(os.getpid(), signal.SIGKILL)


target = Target(job["backend"], job["name"])
backend = backends.connect(target, job["endpoint"])
journal = Journal(Path(job["state"]))
session = Session(backend, target, backend.find(target.name), journal, "", timeout=job["timeout"], tell=die)
engine.reach(session, Goal(), Manner(consent=lambda _plan: None))
