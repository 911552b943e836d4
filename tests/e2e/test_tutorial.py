"""The tutorial's sessions, and those of two how-tos, are real: a VM like the reader's makes them print this.

``python -m tests.e2e.test_tutorial`` writes what they print anew.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tests.e2e.shown import Terminal, sessions, without_figures, written_anew
from tests.lab.libvirtd import LibvirtLab

DOCS = Path(__file__).parents[2] / "docs"
TUTORIAL, LOOK, REPORT = DOCS / "tutorial.md", DOCS / "howto/enable-libvirt.md", DOCS / "howto/report.md"
VM = "web-01"


def printed(lab: LibvirtLab, state: Path) -> dict[Path, list[str]]:
    """What the pages' commands print: before the tutorial, a look; in its middle, a report."""
    lab.define(VM, svm=False)
    lab.start(VM)
    lab.wait_agent(VM)
    own = {"NESTVIRT_CONFIG": os.devnull, "NESTVIRT_STATE_DIR": str(state), "LIBVIRT_DEFAULT_URI": lab.uri}
    terminal = Terminal({**os.environ, **own})
    check, enable, *rest = sessions(TUTORIAL)
    done: dict[Path, list[str]] = {page: [] for page in (TUTORIAL, LOOK, REPORT)}
    looked, nested = (LOOK, sessions(LOOK)), (REPORT, sessions(REPORT))
    for page, shown in (looked, (TUTORIAL, [check, enable]), nested, (TUTORIAL, rest)):
        for typed in (typed for session in shown for typed in session):
            told = terminal.type(typed.command)
            done[page].append(told.replace(lab.uri, "qemu:///system").replace(str(state), "~/.local/state"))
    return done


def test_commands_print_what_the_pages_show(libvirt_lab: LibvirtLab, tmp_path: Path) -> None:
    for page, outputs in printed(libvirt_lab, tmp_path).items():
        shown = [typed.output for session in sessions(page) for typed in session]
        assert shown
        for now, then in zip(outputs, shown, strict=True):
            assert without_figures(now) == without_figures(then)
    libvirt_lab.remove(VM)


def write() -> None:
    """Put the real output into the pages."""
    with LibvirtLab() as lab, tempfile.TemporaryDirectory() as state:
        for page, outputs in printed(lab, Path(state)).items():
            written_anew(page, iter(outputs))


if __name__ == "__main__":
    write()
