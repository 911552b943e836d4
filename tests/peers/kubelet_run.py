"""Runs the command of a played node's container for real: busybox in a chroot, with mounts of its own.

What it sees of a machine (/proc, /sys, /dev, the node's / where it is mounted) are a played machine's files.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import stat
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tests.lab import need
from tests.lab.cache import cached
from tests.lab.debian import unpacked

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# uname(2) and namespaces are those of this machine: both applets become scripts that ask the played one.
UNAME = """\
#!/bin/sh
cd /proc/sys/kernel || exit
case ${1:-} in
  -m | -p | -i) echo x86_64 ;;
  -r) cat osrelease ;;
  -n) cat hostname ;;
  -v) cat version ;;
  -a) echo "$(cat ostype) $(cat hostname) $(cat osrelease) $(cat version) x86_64 GNU/Linux" ;;
  *) cat ostype ;;
esac
"""
NSENTER = """\
#!/bin/sh
while [ $# -gt 0 ]; do
  case $1 in
    --) shift; break ;;
    -t | --target | -S | -G) shift 2 ;;
    -*) shift ;;
    *) break ;;
  esac
done
exec chroot /host "$@"
"""
RECIPE = f"{UNAME}{NSENTER}1"


@dataclass(frozen=True)
class Mount:
    """A folder or file of this machine, as a container sees it."""

    source: Path
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class Container:
    """What to run.

    Attributes:
        folder: an empty one, for its root and its log.
        machine: whose proc, sys and dev it sees.
        mounts: what else, the outermost first.
        privileged: as root, with the machine's devices.
    """

    folder: Path
    machine: Path
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    mounts: Sequence[Mount] = ()
    privileged: bool = False
    user: int = 0

    @property
    def log(self) -> Path:
        """What it writes."""
        return self.folder / "log"


@cache
def image() -> Path:
    """The bin folder of a minimal image: busybox, and a link for each of its applets."""
    packages = unpacked("busybox", ("busybox-static",))

    def build(folder: Path) -> None:
        source = (packages / "bin/busybox").read_bytes()
        names = subprocess.run(
            [packages / "bin/busybox", "--list"], capture_output=True, text=True, check=True
        )
        for applet, other in (("uname", "unamd"), ("nsenter", "nsentes")):
            # In the table of applets, which is searched by halves: its order has to stay.
            assert source.count(f"\0{applet}\0".encode()) == 1, applet
            source = source.replace(f"\0{applet}\0".encode(), f"\0{other}\0".encode())
        (folder / "busybox").write_bytes(source)
        for name in names.stdout.split():
            if name != "busybox":
                (folder / name).symlink_to("busybox")
        for name, script in (("uname", UNAME), ("nsenter", NSENTER)):
            (folder / name).unlink()
            (folder / name).write_text(script)
        for name in ("busybox", "uname", "nsenter"):
            (folder / name).chmod(0o755)

    return cached("pod-image", f"{packages.name}{RECIPE}", build)


def need_root() -> None:
    """Containers need mounts and a chroot."""
    done = subprocess.run(["unshare", "--mount", "chroot", "/", "true"], capture_output=True, text=True)
    need(done.returncode == 0, f"a pod's command cannot be run in a chroot: {done.stderr.strip()}")


def start(container: Container) -> subprocess.Popen[bytes]:
    """Start it. Its process ends with all that it has started."""
    root = container.folder / "root"
    folders = ("bin", "proc", "sys", "dev", "tmp", "etc", "usr/bin", "usr/local/bin", "var/tmp", "lib")
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    os.mknod(root / "dev/null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    (root / "dev/null").chmod(0o666)
    (root / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")
    mounts = [
        Mount(image(), "/bin", read_only=True),
        Mount(container.machine / "proc", "/proc", read_only=True),
        Mount(container.machine / "sys", "/sys", read_only=True),
        *([Mount(container.machine / "dev", "/dev")] if container.privileged else []),
        *container.mounts,
    ]
    script = [_mount(root, mount) for mount in mounts]
    # The node's own bin holds nothing of its own: the same busybox is there.
    script += [_mount(root, Mount(image(), f"{mount.target}/bin")) for mount in mounts if _is_node(mount)]
    chroot = [
        "chroot",
        *([f"--userspec={container.user}:{container.user}"] if container.user else []),
        str(root),
    ]
    script.append(f"exec {shlex.join([*chroot, *container.command])}")
    with container.log.open("wb") as log:
        return subprocess.Popen(
            [
                "unshare",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "/bin/sh",
                "-c",
                "\n".join(["set -e", *script]),
            ],
            env={"PATH": PATH, "HOME": "/", **container.env},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    """End it at once."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def remove(folder: Path) -> None:
    """Remove a container's folder; its mounts went with its process."""
    shutil.rmtree(folder, ignore_errors=True)


def _is_node(mount: Mount) -> bool:
    return (mount.source / "var/lib/played").is_dir()


def _mount(root: Path, mount: Mount) -> str:
    target = root / mount.target.lstrip("/")
    if mount.source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    options = "bind,ro" if mount.read_only else "bind"
    return shlex.join(["mount", "-o", options, str(mount.source), str(target)])
