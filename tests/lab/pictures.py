"""``make pictures``: what the README shows, made from real runs.

The demo's VM is real. The fleet's hypervisors are the tests' peers beside it.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests.lab import pictured
from tests.lab.libvirtd import LibvirtLab
from tests.peers.browser import Browser
from tests.peers.proxmox_rig import NOT_NESTED, ProxmoxRig
from tests.peers.pve_server import serve
from tests.peers.vsphere import VSphere
from tests.peers.vsphere_rig import VSphereRig

FOLDER = Path(__file__).parents[2] / "docs/images"
PROGRAM = Path(sys.executable).with_name("nestvirt")
COLUMNS = 112
DEMO = (["check", "--libvirt", "web-01"], ["enable", "--libvirt", "web-01", "--yes"])


def on_a_terminal(words: Sequence[str], environment: Mapping[str, str]) -> str:
    """What a command writes to a terminal, with its colours; without its progress."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 60, COLUMNS, 0, 0))
    own = {k: v for k, v in environment.items() if k != "NO_COLOR"} | {"TERM": "xterm-256color"}
    with subprocess.Popen(words, env=own, stdout=theirs, stderr=subprocess.DEVNULL, stdin=theirs) as process:
        os.close(theirs)
        said = b""
        while chunk := _read(ours):
            said += chunk
    os.close(ours)
    if process.returncode not in (0, 1):
        raise SystemExit(f"{shlex.join(words)} ended with {process.returncode}")
    return said.decode().replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # Linux tells the end of a terminal so
        return b""


def draw_demo(environment: Mapping[str, str]) -> str:
    """The demo's two commands as an SVG, which loads no font."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True, highlight=False)
        for number, words in enumerate(DEMO):
            said = on_a_terminal([str(PROGRAM), *words], environment)
            lines = "\n" if number else ""
            console.print(Text(f"{lines}$ nestvirt {shlex.join(words)}", style="bold"))
            console.print(Text.from_ansi(said.rstrip()))
    drawn = console.export_svg(title="nestvirt", unique_id="demo")
    drawn = re.sub(r"@font-face\s*{[^}]*}\s*", "", drawn)
    return "\n".join(line.rstrip() for line in drawn.splitlines()) + "\n"


def fleet_page(folder: Path, environment: Mapping[str, str]) -> str:
    """``enable`` for a fleet of three kinds of hypervisors, of which one is down; the page that it prints.

    They are more than eight, so that the page has its field to filter.
    """
    with serve() as served, VSphere(esx=False) as vcenter:
        proxmox, vsphere = ProxmoxRig(served), VSphereRig(vcenter)
        for number in (1, 2, 3, 4):
            proxmox.pve.add(f"worker-{number}", running=True, cpu=NOT_NESTED)
        proxmox.suspend("worker-3")
        for number in (1, 2, 3):
            vcenter.make(f"k8s-{number}", secret="none")  # noqa: S106
        profiles = {
            "lab": {"backend": "libvirt", "uri": environment["LIBVIRT_DEFAULT_URI"]},
            "dc1": {"backend": "proxmox", **proxmox.endpoint},
            "east": {"backend": "vsphere", **vsphere.endpoint},
            "west": {"backend": "vsphere", **vsphere.dead_endpoint},
        }
        config = folder / "config.toml"
        config.write_text("".join(_table(name, of) for name, of in profiles.items()), encoding="utf-8")
        config.chmod(0o600)
        targets = ["libvirt@lab:web-01", *(f"proxmox@dc1:worker-{n}" for n in (1, 2, 3, 4))]
        targets += [*(f"vsphere@east:k8s-{n}" for n in (1, 2, 3)), "vsphere@west:k8s-9"]
        words = [str(PROGRAM), "enable", *targets, "--yes", "-o", "html", "--timeout", "60"]
        own = {**environment, "NESTVIRT_CONFIG": str(config)}
        return subprocess.run(words, env=own, capture_output=True, text=True, check=False).stdout


def _table(name: str, of: Mapping[str, str]) -> str:
    return "\n".join(
        [f"[profiles.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in of.items()), ""]
    )


def main() -> int:
    """Make both, and write them to docs/images."""
    FOLDER.mkdir(exist_ok=True)
    with LibvirtLab() as lab, tempfile.TemporaryDirectory() as state, Browser() as browser:
        folder = Path(state)
        lab.define("web-01", svm=False)
        lab.start("web-01")
        lab.wait_agent("web-01")
        environment = {**os.environ, "LIBVIRT_DEFAULT_URI": lab.uri, "NESTVIRT_STATE_DIR": state}
        (FOLDER / "demo.svg").write_text(draw_demo(environment), encoding="utf-8")
        page = folder / "fleet.html"
        page.write_text(fleet_page(folder, environment), encoding="utf-8")
        browser.look(width=1080)
        browser.open(page)
        # To the end of the first that is told in full.
        bottom = browser.run(
            "document.querySelector('.target[open]').getBoundingClientRect().bottom + scrollY"
        )
        drawn = base64.b64decode(browser.picture(height=round(bottom) + 10))
        (FOLDER / "report.png").write_bytes(pictured.stamped(drawn, pictured.digest()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
