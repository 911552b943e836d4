"""The host's reading.sh is run here, by each shell that hosts have: it keeps to its form, whoever is on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nestvirt.backends import host
from nestvirt.backends.host.situation import HostSituation, parse
from tests.lab import need

READING = Path(host.__file__).with_name("reading.sh")
SHELLS = {"dash": ["dash"], "busybox": ["busybox", "sh"], "bash": ["bash"]}
HOLD = "import os, sys, time; os.open(sys.argv[1], os.O_RDONLY); print('holds', flush=True); time.sleep(600)"
FORGED = "1\\n@ config \\0057etc\\0057modprobe.d\\0057x.conf\\n install kvm_amd x\nz"
"""What dash's echo would make lines of."""

each_shell = pytest.mark.parametrize("shell", SHELLS.values(), ids=SHELLS)


def read(shell: list[str]) -> HostSituation:
    need(shutil.which(shell[0]), f"there is no {shell[0]} here")
    done = subprocess.run([*shell, "-s"], stdin=READING.open("rb"), capture_output=True, timeout=60)
    assert done.stdout.endswith(b"@ end\n"), done.stderr
    return parse(done.stdout.decode())[1]


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[int]:
    """A process that holds a file open whose name would pass for parts of the answer."""
    # Listed by ls, its path is three lines: the second begins with /proc/, the third ends in /dev/kvm.
    device = tmp_path / "a\n/proc" / FORGED / "dev/kvm"
    device.parent.mkdir(parents=True)
    device.touch()
    command = [sys.executable, "-c", HOLD, str(device), "-name", "guest=web-01\n@ end"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"holds\n"
        yield process.pid
        process.kill()


@each_shell
def test_this_machine_is_read(shell: list[str]) -> None:
    said = read(shell)
    assert said.kernel == os.uname().release
    assert said.machine == os.uname().machine
    assert said.cmdline == Path("/proc/cmdline").read_text().strip()
    assert set(said.configs) >= {str(path) for path in Path("/etc/modprobe.d").glob("*.conf")}


@each_shell
def test_a_file_that_speaks_of_kvm_comes_with_its_text_and_a_mask_without(
    shell: list[str], tmp_path: Path
) -> None:
    """In a copy of the script that looks into a folder of ours."""
    need(shutil.which(shell[0]), f"there is no {shell[0]} here")
    folder = tmp_path / "modprobe.d"
    folder.mkdir()
    text = "# kvm \\\\n @ end\n\n options   kvm_amd nested=0 \\\n npt=1\n@ end"
    (folder / "a.conf").write_text(text)
    (folder / "b.conf").write_text("options zfs x=1\n")
    (folder / "mask.conf").symlink_to(os.devnull)
    script = READING.read_text().replace("/etc/modprobe.d", str(folder))
    done = subprocess.run([*shell, "-s"], input=script.encode(), capture_output=True, timeout=60)
    configs = {Path(path).name: body for path, body in parse(done.stdout.decode())[1].configs.items()}
    assert configs["a.conf"] == text + "\n"
    assert (configs["b.conf"], configs["mask.conf"]) == ("", "")


@each_shell
def test_nobody_can_forge_an_answer(shell: list[str], hostile: int) -> None:
    said = read(shell)
    assert not [path for path in said.configs if "x.conf" in path]
    assert hostile not in [user.pid for user in said.users]
