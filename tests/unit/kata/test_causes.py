# ruff: noqa: E501 - these are others' sentences
"""What products have said when a pod did not start, as users reported it, and what was then the matter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestvirt.kata.causes import LASTING, PRODUCTS, ROWS, cause_of

SHIM = "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to create containerd task: failed to create shim task: "
SAYINGS = [
    ("runtimeclass-missing", 'pods "p" is forbidden: pod rejected: RuntimeClass "kata-qemu" not found'),
    (
        "runtimeclass-missing",
        'Failed to create pod sandbox: failed to get runtime: RuntimeClass.node.k8s.io "kata" not found',
    ),
    (
        "pod-security",
        'Error creating: pods "kata-deploy-x" is forbidden: violates PodSecurity "restricted:latest": privileged',
    ),
    (
        "quota",
        'pods "p" is forbidden: exceeded quota: team, requested: pods=1, used: pods=5, limited: pods=5',
    ),
    ("quota", 'pods "p" is forbidden: failed quota: team: must specify limits.memory for: task'),
    # kata-containers#10809, #10914, #6499
    (
        "handler-missing",
        'Failed to create pod sandbox: rpc error: code = Unknown desc = failed to get sandbox runtime: no runtime for "kata-qemu" is configured',
    ),
    # CRI-O: kata runtime#2819
    (
        "handler-missing",
        'Failed create pod sandbox: rpc error: code = Unknown desc = RuntimeHandler "kata-runtime" not supported',
    ),
    (
        "handler-missing",
        "rpc error: code = Unknown desc = failed to find runtime handler kata-qemu from runtime list map[runc:]",
    ),
    # #10504, #9256, #5800
    (
        "shim-missing",
        'failed to start shim: failed to resolve runtime path: runtime "io.containerd.kata-qemu.v2" binary not installed "containerd-shim-kata-qemu-v2": file does not exist: unknown',
    ),
    (
        "shim-missing",
        "failed to start shim: start failed: : fork/exec /opt/kata/bin/containerd-shim-kata-v2: no such file or directory: unknown",
    ),
    ("configuration-missing", SHIM + "Cannot find usable config file (config file does not exist)"),
    (
        "configuration-missing",
        SHIM
        + "open /opt/kata/share/defaults/kata-containers/configuration-qemu.toml: no such file or directory",
    ),
    # kata runtime#1079
    (
        "kvm-missing",
        SHIM
        + "failed to launch qemu: exit status 1, error messages from qemu log: Could not access KVM kernel module: No such file or directory\nqemu-system-x86_64: failed to initialize kvm: No such file or directory",
    ),
    ("kvm-missing", SHIM + "Could not access KVM kernel module: Permission denied"),
    # runtime-rs says no more than this: #6752
    (
        "kvm-missing",
        'failed to create shim task: Others("failed to handler message try init runtime instance\n\nCaused by:\n    0: init runtime handler\n    1: start sandbox\n    2: start vm\n    3: start vmm server\n    4: run vmm server\n    5: No such file or directory (os error 2)"): unknown',
    ),
    ("kvm-missing", SHIM + "open /dev/kvm: no such file or directory: unknown"),
    ("kvm-busy", SHIM + "qemu-system-x86_64: ioctl(KVM_CREATE_VM) failed: 16 Device or resource busy"),
    # #28, #11282
    ("kvm-broken", SHIM + "KVM: entry failed, hardware error 0x0"),
    # #1326, #3319
    (
        "kvm-broken",
        SHIM + "failed to launch qemu: qemu-system-x86_64: error: failed to set MSR 0x48d to 0x5600000016",
    ),
    # #3459, #1327: the device is there, and its module cannot be loaded
    ("vsock-busy", SHIM + "open /dev/vhost-vsock: no such device: unknown"),
    ("vsock-busy", "modprobe: ERROR: could not insert 'vhost_vsock': Device or resource busy"),
    ("vsock-missing", SHIM + "open /dev/vhost-vsock: no such file or directory: unknown"),
    # #6451
    (
        "vhost-net-missing",
        SHIM + "Could not setup vhost fds eth0 : open /dev/vhost-net: no such file or directory: unknown",
    ),
    # #8764, #1679
    (
        "no-devmapper",
        SHIM
        + "failed to mount /run/kata-containers/shared/containers/1061/rootfs to /run/kata-containers/1061/rootfs, with error: ENOENT: No such file or directory",
    ),
    (
        "no-devmapper",
        'failed to mount "/run/kata-containers/shared/containers/e023/rootfs" to "/run/kata-containers/e023/rootfs", with error: No such file or directory (os error 2)',
    ),
    ("no-devmapper", "failed to create containerd container: snapshotter devmapper was not found: not found"),
    # #11321
    (
        "agent-timeout-rust",
        SHIM
        + "connect agent server\n 2: connect\n 3: cannot connect vsock to agent ttrpc server ConnectConfig { dial_timeout_ms: 30, reconnect_timeout_ms: 3000 }",
    ),
    # #11861, #2499
    (
        "agent-timeout",
        SHIM
        + "Failed to Check if grpc server is working: rpc error: code = DeadlineExceeded desc = timed out connecting to vsock 2968858607:1024: unknown",
    ),
    (
        "agent-timeout",
        "OCI runtime create failed: Failed to check if grpc server is working: context deadline exceeded: unknown",
    ),
    # #7470
    ("memory", SHIM + "Failed to Check if grpc server is working: ttrpc: closed: unknown"),
    ("memory", "OOMKilled"),
    ("memory", SHIM + "qemu-system-x86_64: cannot set up guest memory 'dimm1': Cannot allocate memory"),
    # #13751, codius-install#16
    (
        "selinux",
        'type=AVC msg=audit(1): avc:  denied  { write } for  pid=1 comm="kata-deploy" scontext=system_u:system_r:container_t:s0',
    ),
    ("selinux", "cp: cannot create regular file '/host/opt/kata/bin/kata-runtime': Permission denied"),
    (
        "sandbox-image",
        'Failed to create pod sandbox: failed to get sandbox image "registry.k8s.io/pause:3.8": failed to pull image',
    ),
    ("image-pull", 'Failed to pull image "x/y:1": failed to resolve reference: pull access denied'),
    ("image-pull", 'Back-off pulling image "x/y:1"'),
    ("image-pull", "InvalidImageName"),
    (
        "network",
        'Failed to create pod sandbox: failed to setup network for sandbox "7a35": plugin type="portmap" failed (add)',
    ),
    (
        "hypervisor",
        SHIM
        + "failed to launch qemu: exit status 1, error messages from qemu log: qemu-system-x86_64: -device vhost-user-fs-pci: Failed to write msg",
    ),
]


@pytest.mark.parametrize(("name", "said"), SAYINGS)
def test_each_saying_has_its_cause(name: str, said: str) -> None:
    cause = cause_of(said)
    assert cause is not None
    assert cause.name == name


def test_every_cause_has_a_saying() -> None:
    assert {name for name, _ in SAYINGS} == set(PRODUCTS)
    assert len(PRODUCTS) == len(ROWS)


@pytest.mark.parametrize("name", PRODUCTS)
def test_every_cause_has_a_cure(name: str) -> None:
    cause = PRODUCTS[name]
    assert len(cause.cure) > 20
    assert cause.words[-1] not in ".:;"


def test_what_may_pass_is_tried_again() -> None:
    assert PRODUCTS["agent-timeout"] not in LASTING
    assert PRODUCTS["kvm-missing"] in LASTING


@pytest.mark.parametrize(
    "said", ["", "pod sandbox changed, it will be killed", "Started container", "x" * 9000]
)
def test_what_is_not_known_has_none(said: str) -> None:
    assert cause_of(said) is None


@given(st.text(alphabet=st.sampled_from("/dev/kvm: opnrtuhsc'\n\"0"), max_size=300))
def test_any_text_is_taken(said: str) -> None:
    assert cause_of(said) in {None, *PRODUCTS.values()}
