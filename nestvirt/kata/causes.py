"""What products say when a pod does not start, and what is then the matter. Pure: texts in, one cause out.

The texts are those of containerd, CRI-O, the kubelet, QEMU and Kata's two runtimes, as users have reported
them in the products' issues; the rows go from the particular to the general, and the first that fits counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

KVM_CURE = (
    "run nestvirt check on the node itself; where the node is a VM, let it nest: nestvirt enable --libvirt "
    "NAME, or --proxmox ID"
)
"""For a node that cannot run VMs."""
AGAIN = "nestvirt kata-install --config FILE"
LOGS = "nestvirt kata-logs"


@dataclass(frozen=True)
class Cause:
    """What is the matter, in one sentence, and the one thing to do about it."""

    name: str
    words: str
    cure: str


@dataclass(frozen=True)
class Row:
    """A cause, and the texts that tell of it."""

    cause: Cause
    texts: re.Pattern[str]


def _row(name: str, texts: str, words: str, cure: str) -> Row:
    return Row(Cause(name, words, cure), re.compile(texts, re.IGNORECASE | re.DOTALL))


ROWS = (
    _row(
        "runtimeclass-missing",
        r'RuntimeClass(?:\.node\.k8s\.io)? "[^"]*" not found',
        "there is no such RuntimeClass",
        f"switch its shim on, and install again: {AGAIN}",
    ),
    _row(
        "pod-security",
        r"violates PodSecurity|unable to validate against any pod security policy",
        "the namespace does not admit such pods",
        "kubectl label namespace NAME pod-security.kubernetes.io/enforce=privileged --overwrite, or name "
        "another namespace with -n",
    ),
    _row(
        "quota",
        r"exceeded quota|maximum .* usage per|must specify (?:limits|requests)",
        "the namespace's quota does not admit the pod",
        "name a namespace without a quota with -n (kube-system is one)",
    ),
    _row(
        "handler-missing",
        r'no runtime for "[^"]*" is configured|RuntimeHandler "[^"]*" not supported|unknown runtime handler'
        r"|failed to find runtime handler",
        "the node's container runtime has no handler of that name: it reads another configuration than "
        "kata-deploy wrote, or has not been restarted",
        f"install again, with the distribution that the nodes are of: {AGAIN}",
    ),
    _row(
        "shim-missing",
        r"binary not installed|containerd-shim-kata\S*:? .{0,40}(?:no such file|does not exist|not found)",
        "Kata's shim is not where the container runtime looks for it",
        f"install again: {AGAIN}",
    ),
    _row(
        "configuration-missing",
        r"cannot find usable config file|configuration[\w-]*\.toml\S* .{0,40}(?:no such file|not found)",
        "the shim's configuration.toml is not on the node",
        f"install again: {AGAIN}",
    ),
    _row(
        "kvm-busy",
        r"KVM_CREATE_VM\)? failed: .{0,20}(?:16 )?Device or resource busy",
        "another hypervisor holds the node's CPU virtualization",
        "unload it on the node (VirtualBox, VMware), until nestvirt check passes there",
    ),
    _row(
        "kvm-missing",
        r"Could not access KVM kernel module|failed to initialize kvm|KVM is not available|KVM is required"
        r"|/dev/kvm\W.{0,80}(?:no such|not found|denied|not exist)"
        r"|(?:open|access|find)\S* .{0,20}/dev/kvm"
        r"|run vmm server.{0,40}No such file or directory \(os error 2\)",
        "the node's /dev/kvm is missing, or cannot be used",
        KVM_CURE,
    ),
    _row(
        "kvm-broken",
        r"entry failed, hardware error|KVM_EXIT_FAIL_ENTRY|failed to set MSR 0x|KVM internal error",
        "the node's KVM does not run guest code: what is below the node hands on only a part of it",
        KVM_CURE,
    ),
    _row(
        "vsock-busy",
        r"vhost[-_]vsock\W.{0,60}(?:busy|no such device)|Address already in use.{0,40}vsock",
        "vhost_vsock is held by another transport (VMware's VMCI takes it in VMware's guests)",
        "on the node: modprobe -r vmw_vsock_vmci_transport; modprobe vhost_vsock",
    ),
    _row(
        "vsock-missing",
        r"vhost[-_]vsock\W.{0,60}(?:no such file|not found)|failed to open vhost.vsock",
        "the node has no /dev/vhost-vsock, by which the runtime talks to the VM",
        "on the node: modprobe vhost_vsock; and write vhost_vsock into /etc/modules-load.d/kata.conf",
    ),
    _row(
        "vhost-net-missing",
        r"/dev/vhost-net|setup vhost fds",
        "the node has no /dev/vhost-net, which the VM's network needs",
        "on the node: modprobe vhost_net; and write vhost_net into /etc/modules-load.d/kata.conf",
    ),
    _row(
        "no-devmapper",
        r"failed to mount \S*/run/kata-containers/shared/containers/\S+rootfs.{0,300}"
        r"(?:ENOENT|No such file or directory)"
        r"|snapshotter not loaded: devmapper|devmapper\W.{0,40}not (?:found|loaded|initialized|configured)"
        r"|snapshotter devmapper was not found",
        "Firecracker's VM gets no disk: the node's containerd has no devmapper snapshotter",
        "set up a thin pool and containerd's devmapper snapshotter on the node, or switch fc off",
    ),
    _row(
        "agent-timeout-rust",
        r"reconnect_timeout_ms|cannot connect vsock to agent",
        "the VM started, and its agent did not answer in time; this runtime waits 3 s unless told otherwise, "
        "and a VM on a VM takes longer",
        f"use qemu, or Kata 3.32.0 or newer, for which nestvirt lets it wait 45 s: {AGAIN}",
    ),
    _row(
        "agent-timeout",
        r"timed out connecting to (?:hybrid )?vsock|grpc server is working: .{0,60}deadline"
        r"|failed to connect to agent|agent .{0,40}(?:timed out|timeout)|CreateContainerRequest timed out",
        "the VM started, and its agent did not answer in time",
        "see that the node is not overloaded and that its /dev/shm has room for a VM's memory: mount -o "
        "remount,size=50% /dev/shm",
    ),
    _row(
        "memory",
        r"OOMKilled|oom-kill|out of memory|cannot (?:set up guest|allocate) memory|grpc server is working: "
        r"ttrpc: closed|failed to map .{0,40}memory",
        "the VM was killed, or not started, for want of memory",
        "give the pod's limit room for the VM itself (the RuntimeClass's overhead), or the node more memory",
    ),
    _row(
        "selinux",
        r"avc:\s+denied|selinux|container_t|/host/\S+: Permission denied|artifacts: Permission denied",
        "SELinux does not let kata-deploy write to the node",
        "see what it denies: ausearch -m AVC -ts recent on NODE; then load a policy module that allows "
        "kata-deploy's container_t to write there, or use a chart whose pods are privileged (3.25.0)",
    ),
    _row(
        "sandbox-image",
        r"failed to (?:get|pull) .{0,20}sandbox image|sandbox image \"[^\"]*\".{0,40}fail",
        "the node cannot pull the pause image that each pod begins with",
        "let the node reach that registry, or name another pause image in its containerd's configuration",
    ),
    _row(
        "image-pull",
        r"ErrImagePull|ImagePullBackOff|Failed to pull image|Back-off pulling image|pull access denied"
        r"|manifest unknown|InvalidImageName|ErrImageNeverPull|couldn't parse image",
        "the node cannot pull the image",
        "name an image that the nodes can pull with --image (kata-deploy's own: image in the configuration)",
    ),
    _row(
        "network",
        r"failed to set ?up network for sandbox|cni plugin not initialized|network plugin is not ready"
        r"|NetworkPlugin cni",
        "the cluster's network does not work on the node",
        "see its pods: kubectl get pods -A -o wide --field-selector spec.nodeName=NODE",
    ),
    _row(
        "hypervisor",
        r"failed to launch (?:qemu|hypervisor)|qemu-system-\w+: |cloud-hypervisor|firecracker",
        "the hypervisor on the node did not start the VM",
        f"read the shim's log: {LOGS} --node NODE",
    ),
)
"""Text to cause, the particular first."""

LASTING = {row.cause for row in ROWS if not row.cause.name.startswith(("agent", "memory", "network", "hyp"))}
"""Those that stay until somebody does something; others may pass when the pod is tried again."""
PRODUCTS = {row.cause.name: row.cause for row in ROWS}
"""Name to cause."""


def cause_of(text: str) -> Cause | None:
    """The cause that a product's text tells of; None where it is none of those known."""
    return next((row.cause for row in ROWS if row.texts.search(text[:8000])), None)
