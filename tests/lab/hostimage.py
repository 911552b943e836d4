"""The disk of the lab's KVM host: Debian packages unpacked into an ext4 image, with its kernel's modules.

Nothing is installed here, nor configured in there: what packages' scripts would have made of it, and the host
needs, is in FILES and LINKS.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab import LabError
from tests.lab.artifacts import OURS, artifacts, kernel_tree
from tests.lab.cache import cached
from tests.lab.debian import with_dependencies

# What the host is for, and Debian's essential packages, on which no package says that it depends.
ROOTS = (
    *("initramfs-tools", "kmod", "libvirt-clients", "libvirt-daemon", "libvirt-daemon-driver-qemu"),
    *("openssh-server", "python3", "qemu-system-x86"),
    *("base-files", "bash", "coreutils", "dash", "debianutils", "diffutils", "findutils", "grep", "gzip"),
    *("hostname", "iproute2", "libc-bin", "mawk", "mount", "procps", "sed", "tar", "util-linux", "zstd"),
)
# Texts; and what an initramfs does not need for this machine's one disk, but takes as long again to build.
UNWANTED = (
    *(f"./usr/share/{name}" for name in ("doc", "info", "locale", "man")),
    *(f"./usr/share/initramfs-tools/hooks/{name}" for name in ("dmsetup", "fsck", "thermal", "udev")),
    *(f"./usr/share/initramfs-tools/scripts/{name}/udev" for name in ("init-bottom", "init-top")),
)
MERGED = ("bin", "lib", "lib64", "sbin")  # links into /usr, as on every Debian since 2023
FREE_MIB = 400

FILES = {
    "etc/group": "root:x:0:\nkvm:x:104:\nlibvirt-qemu:x:64055:\nnogroup:x:65534:\n",
    "etc/hostname": "kvm-host\n",
    "etc/hosts": "127.0.0.1 localhost kvm-host\n",
    "etc/initramfs-tools/conf.d/lab": "MODULES=list\nCOMPRESSLEVEL=1\n",
    # As udev's would: the kernel has filled /dev, and the disk's is empty.
    "etc/initramfs-tools/scripts/init-bottom/dev": (
        '#!/bin/sh\n[ "$1" = prereqs ] || mount -n -o move /dev "$rootmnt/dev"\n'
    ),
    "etc/libvirt/qemu.conf": (
        'user = "root"\ngroup = "root"\nsecurity_driver = "none"\nremember_owner = 0\ndynamic_ownership = 0\n'
        'stdio_handler = "file"\nnamespaces = []\ncgroup_controllers = []\n'
    ),
    "etc/libvirt/libvirtd.conf": 'auth_unix_rw = "none"\n',
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files\n",
    "etc/passwd": (
        "root:x:0:0:root:/root:/bin/bash\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n"
        "libvirt-qemu:x:64055:104::/var/lib/libvirt:/usr/sbin/nologin\n"  # libvirtd asks for it
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    ),
    "etc/shadow": "root:*:19000:0:99999:7:::\n",
    "etc/ssh/sshd_config": (
        "HostKey /etc/ssh/host\nAuthorizedKeysFile /etc/ssh/authorized_keys\nStrictModes no\nUsePAM no\n"
        "UseDNS no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nMaxSessions 50\n"
    ),
}
LINKS = {
    "etc/mtab": "/proc/self/mounts",
    "usr/bin/awk": "mawk",
    "usr/bin/which": "which.debianutils",
    "var/lock": "/run/lock",
    "var/run": "/run",
}
FOLDERS = ("var/lib/lab", "var/log/libvirt/qemu")


@dataclass(frozen=True)
class HostImage:
    """What the host is started from.

    Attributes:
        kernel: the kernel's image; it needs no initramfs to find its disk.
        disk: the host's disk, to be copied and not written to.
        name: what tells it from an image made of anything else.
    """

    kernel: Path
    disk: Path
    name: str


def host_image() -> HostImage:
    """The host's image, built first if it has not been yet."""
    kernel, guest = kernel_tree(), artifacts()
    sources = (Path(__file__), OURS / "kvmhost")
    recipe = "\0".join([kernel.name, guest.kernel.parent.name, *(path.read_text() for path in sources)])
    built = cached("kvm-host", recipe, lambda folder: _build(folder, kernel))
    return HostImage(built / "vmlinuz", built / "disk", built.name)


def _build(folder: Path, kernel: Path) -> None:
    shutil.copyfile(next((kernel / "boot").glob("vmlinuz-*")), folder / "vmlinuz")
    tree = folder / "tree"
    for name in MERGED:
        (tree / "usr" / name).mkdir(parents=True)
        (tree / name).symlink_to(f"usr/{name}")
    with tempfile.TemporaryDirectory() as scratch:
        for package in with_dependencies(ROOTS, Path(scratch)):
            _extract(package, tree)
    for name in ("boot", "lib/modules"):
        shutil.copytree(kernel / name, tree / name, symlinks=True, dirs_exist_ok=True)
    for name, text in FILES.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
        (tree / name).chmod(0o755 if text.startswith("#!") else 0o644)
    for name in FOLDERS:
        (tree / name).mkdir(parents=True)
    for link, to in LINKS.items():
        if (tree / link).is_dir():  # a package's, empty
            (tree / link).rmdir()
        (tree / link).symlink_to(to)
    guest = artifacts()
    shutil.copyfile(guest.kernel, tree / "var/lib/lab/vmlinuz")
    shutil.copyfile(guest.initramfs, tree / "var/lib/lab/initramfs.cpio")
    shutil.copyfile(OURS / "kvmhost", tree / "sbin/kvmhost")
    (tree / "sbin/kvmhost").chmod(0o755)
    _run(["depmod", "--basedir", str(tree), next((kernel / "lib/modules").iterdir()).name])
    mib = int(_run(["du", "-sm", str(tree)]).split()[0]) + FREE_MIB
    options = ["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-E", "root_owner=0:0", "-d", str(tree)]
    _run(["mke2fs", *options, str(folder / "disk"), f"{mib}M"])
    shutil.rmtree(tree)


def _extract(package: Path, tree: Path) -> None:
    """Unpack a package, following the links into /usr, which dpkg-deb --extract would replace by folders."""
    exclude = [f"--exclude={path}" for path in UNWANTED]
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as archive:
        subprocess.run(
            ["tar", "-x", "-C", str(tree), "--keep-directory-symlink", *exclude],
            stdin=archive.stdout,
            check=True,
        )
    if archive.returncode != 0:
        raise LabError(f"{package.name} cannot be unpacked")


def _run(command: Sequence[str]) -> str:
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # depmod is not on a user's
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": path})
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
