"""Which shims each release of the kata-deploy chart has, and for which architectures.

Read in values.yaml of kata-containers' tools/packaging/kata-deploy/helm-chart/kata-deploy at commits
between 3.8 and 4.2. Where the release that brought or dropped a shim could not be told exactly, the table has
the nearest one in which it was seen: a shim is refused rather than promised.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Release = tuple[int, int]
"""Major and minor number. Patches of one release have the same values."""

FIRST: Release = (3, 8)
"""The first release with a chart."""
NEWEST: Release = (4, 2)
"""The newest release whose values are known here."""

ARCHES = ("amd64", "arm64", "s390x", "ppc64le")
"""The architectures that the chart has a default shim for."""
LINUX_ARCHES = {"amd64": "x86_64", "arm64": "aarch64", "s390x": "s390x", "ppc64le": "ppc64le"}
"""As the chart calls them in 3.22, which is as uname does."""

_AMD, _BOTH, _Z = ("amd64",), ("amd64", "arm64"), ("s390x",)
_AMD_Z, _NOT_POWER = ("amd64", "s390x"), ("amd64", "arm64", "s390x")


@dataclass(frozen=True)
class Shim:
    """One of Kata's runtimes, as the chart offers it.

    Attributes:
        arches: on which architectures, from which release on.
        since: the first release that has it.
        gone: the first release without it; None where it is in the newest.
        successor: what to use in its place then.
        snapshotter: what containerd has to keep its images in; empty for the node's own.
        needs: what it depends on beyond /dev/kvm, a key of ``NEEDS``; empty for nothing.
    """

    arches: Mapping[Release, tuple[str, ...]]
    since: Release = FIRST
    gone: Release | None = None
    successor: str = ""
    snapshotter: str = ""
    needs: str = ""

    def on(self, release: Release) -> tuple[str, ...]:
        """The architectures that it runs on in that release."""
        return next(arches for since, arches in reversed(list(self.arches.items())) if since <= release)

    def is_in(self, release: Release) -> bool:
        """Whether that release has it."""
        return self.since <= release and (self.gone is None or release < self.gone)


def _tee(
    since: Release, arches: tuple[str, ...], snapshotter: str = "nydus", gone: Release | None = None
) -> Shim:
    return Shim({since: arches}, since, gone, snapshotter=snapshotter, needs="tee")


def _gpu(since: Release, arches: Mapping[Release, tuple[str, ...]], snapshotter: str = "") -> Shim:
    return Shim(arches, since, snapshotter=snapshotter, needs="gpu")


@dataclass(frozen=True)
class Need:
    """What a shim depends on beyond /dev/kvm.

    Attributes:
        words: what it is, as the rest of the sentence "SHIM …".
        cure: what to do about it.
        fatal: it cannot be installed by nestvirt at all; ``"nested"``: it cannot work in a VM.
    """

    words: str
    cure: str
    fatal: bool | str = field(default=False)


NEEDS: dict[str, Need] = {
    "devmapper": Need(
        "has no shared file system, and takes images from containerd's devmapper snapshotter only, which "
        "the chart does not set up",
        "set up a thin pool and the devmapper snapshotter on each node first, or switch it off and use qemu",
    ),
    "experimental": Need(
        "is experimental: Kata's own project tests it little",
        "use qemu where it matters",
    ),
    "bare-metal": Need(
        "is Cloud Hypervisor, which is not to be relied upon where the node is itself a VM: it wants CPU "
        "features that a nested KVM may lack, and has no emulation to fall back on",
        "use qemu on nodes that are VMs, and keep it for bare metal",
    ),
    "mshv": Need(
        "runs VMs through Azure's /dev/mshv, and not through /dev/kvm",
        "switch it off; such nodes are not what nestvirt checks",
        fatal=True,
    ),
    "coco-dev": Need(
        "is for developing confidential pods without the hardware for them: the guest itself pulls images, "
        "by the nydus snapshotter",
        "switch it off unless that is what you do",
    ),
    "tee": Need(
        "runs confidential VMs, which need SEV-SNP, TDX or Secure Execution of the machine itself",
        "switch it off, or use it on bare metal that has it",
        fatal="nested",
    ),
    "gpu": Need(
        "passes an NVIDIA device through to the VM, which needs VFIO and NVIDIA's GPU operator on the node",
        "switch it off unless the nodes have both",
    ),
    "remote": Need(
        "runs its VMs elsewhere (peer pods), and not on the node",
        "switch it off; there is nothing on the node that could be checked",
        fatal=True,
    ),
}

_VMM = {FIRST: _BOTH, (3, 29): _AMD}  # arm64 was dropped for what is not tested there

SHIMS: dict[str, Shim] = {
    "qemu": Shim({FIRST: ARCHES}),
    "qemu-runtime-rs": Shim({FIRST: _AMD_Z, (3, 26): _NOT_POWER, (4, 2): ARCHES}),
    "clh": Shim(_VMM, needs="bare-metal"),
    "cloud-hypervisor": Shim(_VMM, gone=(3, 30), successor="clh-runtime-rs", needs="bare-metal"),
    "clh-runtime-rs": Shim({(3, 30): _AMD}, (3, 30), needs="bare-metal"),
    "dragonball": Shim(_VMM, needs="experimental"),
    "fc": Shim(_VMM, snapshotter="devmapper", needs="devmapper"),
    "stratovirt": Shim({FIRST: _BOTH}, gone=(3, 23), successor="qemu", needs="experimental"),
    "clh-azure": Shim({(3, 32): _AMD}, (3, 32), needs="mshv"),
    "clh-azure-runtime-rs": Shim({(3, 32): _AMD}, (3, 32), needs="mshv"),
    "openvmm-azure-runtime-rs": Shim({(4, 1): _AMD}, (4, 1), needs="mshv"),
    "qemu-coco-dev": Shim({FIRST: _AMD_Z}, snapshotter="nydus", needs="coco-dev"),
    "qemu-coco-dev-runtime-rs": Shim({(3, 22): _AMD_Z}, (3, 22), snapshotter="nydus", needs="coco-dev"),
    "qemu-snp": _tee(FIRST, _AMD),
    "qemu-snp-runtime-rs": _tee((3, 26), _AMD),
    "qemu-tdx": _tee(FIRST, _AMD),
    "qemu-tdx-runtime-rs": _tee((3, 26), _AMD),
    "qemu-se": _tee((3, 22), _Z),
    "qemu-se-runtime-rs": _tee((3, 17), _Z),
    "qemu-cca": _tee((3, 22), ("arm64",), gone=(3, 29)),
    "qemu-nvidia-cpu": _gpu((4, 0), {(4, 0): _BOTH}),
    "qemu-nvidia-cpu-runtime-rs": _gpu((4, 0), {(4, 0): _BOTH}),
    "qemu-nvidia-gpu": _gpu(FIRST, _VMM),
    "qemu-nvidia-gpu-runtime-rs": _gpu((3, 31), {(3, 31): _BOTH}),
    "qemu-nvidia-gpu-snp": _tee(FIRST, _AMD, ""),
    "qemu-nvidia-gpu-snp-runtime-rs": _tee((3, 31), _AMD),
    "qemu-nvidia-gpu-tdx": _tee(FIRST, _AMD, ""),
    "qemu-nvidia-gpu-tdx-runtime-rs": _tee((3, 31), _AMD),
    "remote": Shim({(3, 23): _AMD_Z}, (3, 23), snapshotter="nydus", needs="remote"),
}
"""Every shim of any release."""


def of(release: Release) -> tuple[str, ...]:
    """The shims of a release, in the table's order. An unknown newer one has the newest's."""
    return tuple(name for name, shim in SHIMS.items() if shim.is_in(min(release, NEWEST)))


def is_rust(name: str) -> bool:
    """Whether runtime-rs is behind it, and not the Go runtime."""
    return name in ("dragonball", "cloud-hypervisor") or name.endswith("-runtime-rs")


def supporting(arch: str, names: tuple[str, ...], release: Release) -> tuple[str, ...]:
    """Those of the shims that run on that architecture (Kubernetes' word for it: amd64)."""
    return tuple(name for name in names if arch in SHIMS[name].on(min(release, NEWEST)))
