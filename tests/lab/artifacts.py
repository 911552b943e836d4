"""The lab's guest: Debian's cloud kernel, and an initramfs with busybox, qemu-ga, python3, kmod and KVM.

Nothing is installed and no disk image is made: packages are unpacked, trimmed, and packed for the kernel.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.lab import cpio
from tests.lab.cache import cached
from tests.lab.debian import dependency, unpacked

OURS = Path(__file__).parent / "guest"

# Each program with what it is linked with: dpkg-deb unpacks, it does not resolve.
PROGRAMS = ("busybox-static", "kmod", "python3.11-minimal", "qemu-guest-agent", "cpu-checker", "msr-tools")
LIBRARIES = (
    "libc6",
    "libexpat1",
    "libffi8",
    "libgcc-s1",
    "libglib2.0-0",
    "libkmod2",
    "liblzma5",
    "libnuma1",
    "libpcre2-8-0",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "libssl3",
    "libudev1",
    "liburing2",
    "libuuid1",
    "libzstd1",
    "zlib1g",
)

# Modules, with what they depend on. What a kernel has built in (or lacks) is left out.
MODULES = ("kvm-amd", "kvm-intel", "virtio_pci", "virtio_console", "button", "evdev", "msr")

TRIM = (
    "lib/systemd",
    "lib/udev",
    "usr/share",
    "usr/lib/x86_64-linux-gnu/audit",
    "usr/lib/x86_64-linux-gnu/gconv",
)
TRIM_PYTHON = (
    "asyncio",
    "curses",
    "dbm",
    "distutils",
    "lib2to3",
    "pydoc_data",
    "sqlite3",
    "test",
    "unittest",
)

TEXTS = {
    "etc/group": "root:x:0:\nkvm:x:104:\nnogroup:x:65534:\n",
    "etc/hostname": "lab-guest\n",
    "etc/os-release": 'PRETTY_NAME="nestvirt lab guest"\nID=nestvirt-lab\nVERSION_ID=1\n',
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
}


@dataclass(frozen=True)
class Artifacts:
    """What a machine is booted from.

    Attributes:
        kernel: the kernel's image.
        initramfs: the guest; an archive appended to it is unpacked over it.
    """

    kernel: Path
    initramfs: Path


def artifacts() -> Artifacts:
    """The lab's guest, built first if it has not been yet."""
    kernel = kernel_tree()
    programs = guest_packages()
    sources = [
        Path(__file__),
        Path(cpio.__file__),
        *sorted(OURS.glob("*.*")),
        OURS / "init",
        OURS / "shutdown",
    ]
    recipe = "\0".join([kernel.name, programs.name, *(source.read_text() for source in sources)])
    built = cached("guest", recipe, lambda folder: _build(folder, kernel, programs))
    return Artifacts(built / "vmlinuz", built / "initramfs.cpio")


def guest_packages() -> Path:
    """The packages that the guest is made of, unpacked."""
    return unpacked("guest-packages", (*PROGRAMS, *LIBRARIES))


def kernel_tree() -> Path:
    """Debian's cloud kernel, unpacked."""
    return unpacked("kernel", [dependency("linux-image-cloud-amd64", "linux-image-")])


def _build(folder: Path, kernel: Path, programs: Path) -> None:
    shutil.copyfile(next((kernel / "boot").glob("vmlinuz-*")), folder / "vmlinuz")
    tree = folder / "tree"
    shutil.copytree(programs, tree, symlinks=True)
    for unwanted in (*TRIM, *(f"usr/lib/python3.11/{package}" for package in TRIM_PYTHON)):
        shutil.rmtree(tree / unwanted, ignore_errors=True)
    for name in ("dev", "etc/modprobe.d", "nv", "proc", "root", "run", "sys", "tmp", "var/run"):
        (tree / name).mkdir(parents=True, exist_ok=True)
    for name, text in TEXTS.items():
        (tree / name).write_text(text)
    (tree / "usr/bin/python3").symlink_to("python3.11")
    for name, source in (("init", "init"), ("sbin/shutdown", "shutdown"), ("nv/agent.py", "agent.py")):
        shutil.copyfile(OURS / source, tree / name)
        (tree / name).chmod(0o755)
    _add_modules(tree, next((kernel / "lib/modules").iterdir()))
    # Not compressed: an emulated CPU takes longer to unpack than it takes to read.
    (folder / "initramfs.cpio").write_bytes(cpio.padded(cpio.pack(cpio.entries_of(tree))))
    shutil.rmtree(tree)


def _add_modules(tree: Path, modules: Path) -> None:
    """Copy the modules that the guest needs, and index them as its modprobe expects."""
    release = modules.name
    into = tree / "lib/modules" / release
    into.mkdir(parents=True)
    for index in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        shutil.copyfile(modules / index, into / index)
    for module in _with_dependencies(modules):
        target = into / module
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(modules / module, target)
    subprocess.run([_depmod(), "--basedir", str(tree), release], check=True)


def _with_dependencies(modules: Path) -> list[str]:
    """Paths of MODULES and of all that they depend on, relative to the kernel's module folder."""
    tree = modules.parents[2]
    command = [_depmod(), "--dry-run", "--basedir", str(tree), modules.name]
    shown = subprocess.run(command, check=True, capture_output=True, text=True)
    wanted = []
    for line in shown.stdout.splitlines():
        path, _, needs = line.partition(":")
        if path.startswith("kernel/") and Path(path).stem in MODULES:
            wanted += [path, *needs.split()]
    return list(dict.fromkeys(wanted))


def _depmod() -> str:
    # Not on an ordinary user's PATH.
    return shutil.which("depmod", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or "depmod"
