"""govmomi's vCenter simulator with our extension: built once from Debian's packages, run as a process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.lab import Closing, LabError
from tests.lab.cache import cached, home
from tests.lab.debian import unpacked

SOURCES = Path(__file__).parents[1] / "peers/vcsim"
PACKAGES = ("golang-github-vmware-govmomi-dev", "golang-github-google-uuid-dev")
SECONDS = 60


def vcsim() -> Path:
    """The program, built first if it has not been yet."""
    libraries = unpacked("govmomi", PACKAGES)
    sources = [source.read_text() for source in sorted(SOURCES.glob("*.go"))]
    recipe = "\0".join([libraries.name, *sources])
    return (
        cached("vcsim", recipe, lambda folder: _go(libraries, "build", "-o", str(folder / "vcsim"))) / "vcsim"
    )


def vet() -> None:
    """Have Go look for mistakes in the sources.

    Raises:
        LabError: it found some.
    """
    _go(unpacked("govmomi", PACKAGES), "vet")


def _go(libraries: Path, *arguments: str) -> None:
    ours = {"GO111MODULE": "off", "GOFLAGS": "", "GOPATH": f"{libraries}/usr/share/gocode"}
    environment = {**os.environ, **ours, "GOCACHE": str(home() / "go-build")}
    command = ["go", *arguments, "."]
    done = subprocess.run(command, cwd=SOURCES, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)}: {done.stderr[-2000:]}")


class Simulator(Closing):
    """The process, which ends with its standard input; a context manager.

    Args:
        arguments: further options of it.
        secrets: the passwords, as its environment has them.

    Attributes:
        folder: where its certificates and its guests' files are.
        told: where it listens, and whom to trust.
    """

    def __init__(self, arguments: Sequence[str], secrets: Mapping[str, str]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="nv-vcsim-"))
        self._log = self.folder / "log"
        program = vcsim()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(program), "-folder", str(self.folder), *arguments],
                env={**os.environ, **secrets},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # the terminal's Ctrl-C is for us; it ends with its input
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            said = self.log()[-500:]
            self.close()
            raise LabError(f"the simulator ended: {said}")
        self.told: dict[str, str] = json.loads(line)

    def ask(self, operation: str, /, **order: Any) -> Any:
        """Steer it; see control.go."""
        url = f"http://{self.told['Control']}/{operation}"
        request = urllib.request.Request(url, data=json.dumps(order).encode(), method="POST")
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise LabError(f"{operation}: {error.read().decode()}") from error

    def log(self) -> str:
        """What it says of itself."""
        return self._log.read_text(errors="replace")

    def close(self) -> None:
        """End it, and what its guests run."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)
