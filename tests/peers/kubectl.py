"""A program that stands in for kubectl: it notes how it is called, and does as it is told.

For what the real one says when something is wrong that a lab cannot make; all else is asked of the real one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from nestvirt.kata.kube import Kube

PROGRAM = """\
#!{python} -I
import json, os, sys, time
argv, stdin = sys.argv[1:], sys.stdin.buffer.read().decode()
with open({calls!r}, "a") as calls:
    print(json.dumps({{"argv": argv, "stdin": stdin, "group": os.getpgid(0)}}), file=calls)
def say(text, code=0, stream=sys.stdout):
    print(text, file=stream, flush=True)
    sys.exit(code)
{behaviour}
"""


class FakeKubectl:
    """The program, and the calls that it noted."""

    def __init__(self, folder: Path) -> None:
        self.program = folder / "kubectl"
        self.noted = folder / "calls"
        self.behave("")

    def behave(self, code: str) -> None:
        """Do this, in Python, where argv and stdin are known, and say(text, code, stream) ends it."""
        text = PROGRAM.format(python=sys.executable, calls=str(self.noted), behaviour=code)
        self.program.write_text(text, encoding="utf-8")
        self.program.chmod(0o755)

    def fail(self, words: str, code: int = 1) -> None:
        """Say this on stderr, and fail."""
        self.behave(f"say({words!r}, {code}, sys.stderr)")

    @property
    def kube(self) -> Kube:
        """The cluster that is asked through it."""
        return Kube(context="lab", kubeconfig="/nowhere/config", program=str(self.program), timeout=20)

    @property
    def calls(self) -> list[dict[str, Any]]:
        """How it was called, in order."""
        if not self.noted.exists():
            return []
        return [json.loads(line) for line in self.noted.read_text(encoding="utf-8").splitlines()]
