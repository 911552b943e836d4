"""What a node's own words say of Kata on it. Pure: facts in, findings out.

A cure has NODE where the node's name belongs, so that nodes with the same ill are told together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nestvirt.guest.verify import Probed
from nestvirt.kata import explain, shims
from nestvirt.kata.api import Object, at, name_of
from nestvirt.kata.config import KataConfig
from nestvirt.kata.layout import layout
from nestvirt.kata.pods import Outcome
from nestvirt.kata.shims import SHIMS, Release
from nestvirt.model import PROOF, Finding, Layer, Status
from nestvirt.printable import printable

DROP_IN = "/opt/kata/containerd/config.d/kata-deploy.toml"
"""What kata-deploy lets containerd 2 import, in every release up to 3.26."""
V3_TEMPLATE: Release = (3, 27)
"""The first release whose kata-deploy writes config-v3.toml.tmpl where that is the template in use."""
ROOM_KIB = 3 << 20
"""KiB that /opt should have free: an unpacked release takes about 2 GiB, and the new one is there beside the
old for a while."""

FEW = 3
SELF = "nestvirt probe --print | ssh NODE python3 -I -"
"""The direct check on a node."""
PROBE_IMAGE = "docker.io/library/python:3-alpine"
ENABLE = {
    "kvm": "on its hypervisor: nestvirt enable --libvirt VM-OF-NODE, or nestvirt enable --proxmox VM-OF-NODE",
    "vmware": "with the VM off, tick 'Expose hardware assisted virtualization to the guest OS' "
    "(vhv.enable = TRUE), and start it",
    "microsoft": "with the VM off, on its Hyper-V host: Set-VMProcessor -VMName VM-OF-NODE "
    "-ExposeVirtualizationExtensions $true",
    "vbox": "with the VM off: VBoxManage modifyvm VM-OF-NODE --nested-hw-virt on",
    "none": "turn on virtualization (VT-x, AMD-V) in the firmware setup of NODE",
}
"""What gives a node the CPU flag, by the hypervisor that is underneath."""
ENABLE |= dict.fromkeys(("qemu", "tcg", "bochs"), ENABLE["kvm"]) | {"virtualbox": ENABLE["vbox"]}


@dataclass(frozen=True)
class Wish:
    """What is to run on the node."""

    config: KataConfig
    distribution: str


@dataclass(frozen=True)
class Answer:
    """What a node's pod has said.

    Attributes:
        trouble: why it has said nothing; empty where it has.
        cure: for that.
        facts: the lines of preflight.sh, by name.
        how: which Python ran the probe; see preflight.HOW.
        probed: what the probe found.
    """

    trouble: str = ""
    cure: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    how: str = ""
    probed: Probed | None = None


def some(names: Sequence[str]) -> str:
    """Nodes, for people: a few by name, many by their number."""
    return ", ".join(names) if 0 < len(names) <= FEW else f"{len(names)} nodes"


def is_ready(node: Object) -> bool:
    """Whether the node's kubelet says that it is."""
    return bool(at(_ready(node), "status") == "True")


def of_node(node: Object, answer: Answer | None, wish: Wish) -> list[Finding]:
    """All findings of one node.

    Args:
        answer: None where it was not asked, because it is not ready.
    """
    found = [*_of_arch(node, wish), _of_readiness(node)]
    if answer is None:
        return [*found, _finding("cluster-node-kvm", node, Status.SKIP, "not asked: the node is not ready")]
    if answer.probed is None:
        return [*found, _finding("cluster-node-kvm", node, Status.UNKNOWN, answer.trouble, answer.cure)]
    found += [_of_kvm(node, answer, answer.probed), _of_vhost(node, answer.facts, wish)]
    found += [_of_containerd(node, answer.facts, wish), _of_selinux(node, answer.facts)]
    if _needs_devmapper(wish):
        found.append(_of_snapshotter(node, answer.facts))
    return [*found, *_of_room(node, answer.facts)]


def silent(outcome: Outcome) -> tuple[str, str]:
    """Why a pod has said nothing: what was seen, and what to do."""
    trouble = explain.of_outcome(outcome)
    return f"the pod on it did not run: {trouble.evidence}", trouble.cure


def _finding(check: str, node: Object, status: Status, evidence: str, cure: str = "") -> Finding:
    return Finding(check, Layer.CLUSTER, status, evidence, cure, subject=name_of(node))


def _of_arch(node: Object, wish: Wish) -> list[Finding]:
    """Nothing where one of the wanted shims runs on its architecture; kata-deploy passes over the others."""
    arch = str(at(node, "status", "nodeInfo", "architecture") or "amd64")
    if shims.supporting(arch, wish.config.shims, wish.config.release):
        return []
    evidence = f"none of {', '.join(wish.config.shims)} runs on {printable(arch, 20)}"
    cure = "select the nodes of another architecture: nodeSelector: {kubernetes.io/arch: amd64}"
    return [_finding("cluster-shims", node, Status.FAIL, evidence, cure)]


# --- ready


def _ready(node: Object) -> Object | None:
    conditions = at(node, "status", "conditions")
    listed = conditions if isinstance(conditions, list) else []
    return next((c for c in listed if at(c, "type") == "Ready"), None)


def _of_readiness(node: Object) -> Finding:
    check, condition = "cluster-node-ready", _ready(node)
    if not is_ready(node):
        words = printable(
            f"{at(condition, 'reason') or 'no word of its kubelet'}: {at(condition, 'message') or ''}", 300
        )
        cure = "see what it says of itself: kubectl describe node NODE"
        return _finding(check, node, Status.FAIL, f"not ready: {words}".rstrip(": "), cure)
    if at(node, "spec", "unschedulable") is True:
        evidence = "ready, and cordoned: kata-deploy goes there, and no pods of others do"
        return _finding(check, node, Status.WARN, evidence, "kubectl uncordon NODE")
    return _finding(check, node, Status.PASS, "ready")


# --- kvm


def _of_kvm(node: Object, answer: Answer, probed: Probed) -> Finding:
    check, verdict, cause = "cluster-node-kvm", probed.proof.verdict, probed.proof.cause
    if verdict == "works":
        whose = "the node's own Python" if answer.how == "node" else "the image's Python"
        return _finding(check, node, Status.PASS, f"guest code ran through /dev/kvm, by {whose}")
    if verdict == "not-proven":
        evidence = "flag and device look right, and nothing was run: neither node nor image has a Python"
        cure = f"to have it proved, name an image with one, such as --image {PROBE_IMAGE}"
        return _finding(check, node, Status.WARN, evidence, cure)
    first = next((f for f in probed.findings if f.status is Status.FAIL), None)
    if verdict in ("off", "works-emulated") and first is not None:
        return _finding(check, node, Status.FAIL, f"{cause}: {first.evidence}", _cure(cause, first, probed))
    proof = next(f for f in probed.findings if f.check == PROOF)
    if cause == "unsupported-arch":
        cure = "start a small VM there by hand, and see that it runs"
        return _finding(check, node, Status.WARN, f"not proven: {proof.evidence}", cure)
    return _finding(check, node, Status.UNKNOWN, f"{cause}: {proof.evidence}", proof.cure or SELF)


def hypervisor(probed: Probed) -> str:
    """The probe's word for what is underneath: kvm, vmware, none, …; empty where it was not asked."""
    evidence = next((f.evidence for f in probed.findings if f.check == "guest-hypervisor"), "")
    word, sign, _ = evidence.partition(":")
    return word if sign else ""


def _cure(cause: str | None, first: Finding, probed: Probed) -> str:
    """What gives a node its KVM: on the hypervisor below, or on the node itself."""
    if cause in ("no-cpu-flag", "emulated"):
        return ENABLE.get(
            hypervisor(probed), f"let the hypervisor of NODE hand on vmx or svm; {ENABLE['kvm']}"
        )
    return f"on NODE: {first.cure}" if first.cure else f"see what is wrong there: {SELF}"


# --- what else Kata needs


def _words(facts: Mapping[str, str], name: str) -> set[str]:
    return set(facts.get(name, "").split())


def _needs_vsock(wish: Wish) -> bool:
    """QEMU talks to its guest through vhost_vsock; the others have a socket of their own."""
    return any(name.startswith("qemu") for name in wish.config.shims)


def _of_vhost(node: Object, facts: Mapping[str, str], wish: Wish) -> Finding:
    check = "cluster-node-vhost"
    devices, loaded, loadable = (_words(facts, name) for name in ("devices", "modules", "loadable"))
    wanted = {"vhost-net": "vhost_net"} | ({"vhost-vsock": "vhost_vsock"} if _needs_vsock(wish) else {})
    missing = {device: module for device, module in wanted.items() if device not in devices}
    if missing and "vmw_vsock_vmci_transport" in loaded and "vhost-vsock" in missing:
        evidence = "no /dev/vhost-vsock, and VMware's vmw_vsock_vmci_transport is loaded, which holds vsock"
        cure = "on NODE: modprobe -r vmw_vsock_vmci_transport; modprobe vhost_vsock"
        return _finding(check, node, Status.WARN, evidence, cure)
    if not missing:
        names = " and ".join(f"/dev/{device}" for device in wanted)
        return _finding(
            check, node, Status.PASS, f"{names} are there" if len(wanted) > 1 else f"{names} is there"
        )
    absent = [module for module in missing.values() if module not in loadable]
    nodes = ", ".join(f"/dev/{device}" for device in missing)
    if absent and "index" in loadable:
        evidence = f"no {nodes}, and its kernel has no {', '.join(absent)}"
        cure = "install the package with the kernel's further modules on NODE, or boot a kernel that has them"
        return _finding(check, node, Status.FAIL, evidence, cure)
    modules = " ".join(missing.values())
    cure = f"on NODE: modprobe -a {modules}; and write them into /etc/modules-load.d/kata.conf"
    return _finding(check, node, Status.WARN, f"no {nodes}: {modules} not loaded", cure)


_RUNTIME = re.compile(r"(containerd|cri-o)://v?(\d+)\.(\d+)")


def _of_containerd(node: Object, facts: Mapping[str, str], wish: Wish) -> Finding:
    check, where = "cluster-node-containerd", layout(wish.distribution)
    told = printable(str(at(node, "status", "nodeInfo", "containerRuntimeVersion") or ""), 100)
    runtime = _RUNTIME.match(told)
    if runtime is None:
        cure = "use containerd or CRI-O on NODE: Kata has no other runtime to be started by"
        return _finding(check, node, Status.FAIL, f"the node's runtime is {told or 'not told'}", cure)
    if runtime[1] == "cri-o":
        return _finding(check, node, Status.PASS, f"{told}: kata-deploy writes into /etc/crio/crio.conf.d")
    if (int(runtime[2]), int(runtime[3])) < (1, 6):
        return _finding(
            check, node, Status.FAIL, f"{told} is too old for Kata", "update containerd on NODE to 1.7"
        )
    if facts.get("directory") != "yes":
        cure = f"see that the nodes are {wish.distribution}, and correct k8sDistribution"
        return _finding(check, node, Status.FAIL, f"{told}, and there is no {where.directory}", cure)
    if not where.templates:
        return _finding(check, node, Status.PASS, f"{told} with {where.directory}")
    return _of_template(node, facts, wish, told, int(runtime[2]))


def _of_template(node: Object, facts: Mapping[str, str], wish: Wish, told: str, major: int) -> Finding:
    """rke2 and k3s make the configuration from a template; of two, config-v3.toml.tmpl is the one in use."""
    check, directory = "cluster-node-containerd", layout(wish.distribution).directory
    newest, version = "config-v3.toml.tmpl", wish.config.version
    own = facts.get(f"imports-{newest}")
    if major < 2 or wish.config.release >= V3_TEMPLATE:
        return _finding(check, node, Status.PASS, f"{told} with {directory}")
    if own is not None and DROP_IN in own:
        return _finding(
            check, node, Status.PASS, f"{told} with {newest}, which imports what kata-deploy writes"
        )
    cure = (
        f'on NODE, write into {directory}/{newest}: imports = ["{DROP_IN}"]'
        + ("" if own is not None else ' and {{ template "base" . }}')
        + f"; or use Kata {'.'.join(map(str, V3_TEMPLATE))}.0 or newer"
    )
    if own is None:
        evidence = f"{told} is made for {newest}, and kata-deploy {version} writes config.toml.tmpl"
        return _finding(check, node, Status.WARN, evidence, cure)
    evidence = (
        f"{told} is configured by {newest}; kata-deploy {version} writes config.toml.tmpl, which is not read"
    )
    return _finding(check, node, Status.FAIL, evidence, cure)


def _needs_devmapper(wish: Wish) -> bool:
    return any(SHIMS[name].snapshotter == "devmapper" for name in wish.config.shims)


def _of_snapshotter(node: Object, facts: Mapping[str, str]) -> Finding:
    check, said = "cluster-node-snapshotter", facts.get("snapshotter", "")
    if said == "ok":
        return _finding(check, node, Status.PASS, "containerd's devmapper snapshotter is there")
    if not said and facts.get("plugins", "0") in ("", "0"):
        cure = "on NODE: ctr plugins ls, which has to say ok for devmapper"
        return _finding(check, node, Status.UNKNOWN, "ctr did not answer on the node", cure)
    cure = "set up a thin pool and containerd's devmapper snapshotter on NODE, or switch fc off"
    return _finding(check, node, Status.FAIL, f"containerd says of devmapper: {said or 'nothing'}", cure)


def _of_selinux(node: Object, facts: Mapping[str, str]) -> Finding:
    check, mode = "cluster-node-selinux", facts.get("selinux")
    if mode != "1":
        words = "SELinux is permissive" if mode == "0" else "SELinux is off"
        return _finding(check, node, Status.PASS, words)
    cure = (
        "if kata-deploy's pod is denied there: ausearch -m AVC -ts recent on NODE, and allow that by a module"
    )
    return _finding(check, node, Status.WARN, "SELinux is enforcing", cure)


def _of_room(node: Object, facts: Mapping[str, str]) -> list[Finding]:
    free = facts.get("free", "")
    if not free.isdecimal() or int(free) >= ROOM_KIB:
        return []
    evidence = f"{int(free) / (1 << 20):.1f} GiB free for /opt/kata, which takes about 2 GiB"
    return [_finding("cluster-node-files", node, Status.WARN, evidence, "make room on NODE: df -h /opt")]
