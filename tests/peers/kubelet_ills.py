"""What can go wrong on a played node, in the words of the real products."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

_SANDBOX = "Failed to create pod sandbox: rpc error: code = Unknown desc = "
_SHIM = f"{_SANDBOX}failed to create containerd task: failed to create shim task: "
_QEMU = f"{_SHIM}failed to launch qemu: exit status 1, error messages from qemu log: "
_AGENT = (
    'Others("failed to handle message start sandbox in task handler\\n\\nCaused by:\\n'
    '    0: connect to address \\"vsock://2057012271\\"\\n    1: connect agent server\\n    2: connect\\n'
    "    3: cannot connect vsock to agent ttrpc server "
    'ConnectConfig {{ dial_timeout_ms: 30, reconnect_timeout_ms: 3000 }}\\n"): unknown'
)


class Ill(Enum):
    """What goes wrong. A value is the event of a pod's sandbox; {handler} and {id} are filled in.

    The first group happens to pods under a RuntimeClass, the second to any pod, the third to kata-deploy.
    """

    NO_HANDLER = f'{_SANDBOX}failed to get sandbox runtime: no runtime for "{{handler}}" is configured'
    NO_KVM = (
        f"{_QEMU}Could not access KVM kernel module: No such file or directory\n"
        "qemu-system-x86_64: failed to initialize kvm: No such file or directory: unknown"
    )
    VSOCK_MISSING = f"{_SHIM}open /dev/vhost-vsock: no such file or directory: unknown"
    # The device is there, and its module cannot be loaded: modprobe says "Device or resource busy".
    VSOCK_BUSY = f"{_SHIM}open /dev/vhost-vsock: no such device: unknown"
    NO_DEVMAPPER = (
        f"{_SHIM}failed to mount /run/kata-containers/shared/containers/{{id}}/rootfs to "
        "/run/kata-containers/{id}/rootfs, with error: ENOENT: No such file or directory: unknown"
    )
    AGENT_TIMEOUT = f"{_SHIM}{_AGENT}"
    NOT_ISOLATED = "the pod runs, and shows the node's own machine"

    IMAGE_PULL = "the image cannot be pulled"

    SELINUX = "kata-deploy is denied what it does, and ends"
    NO_LABEL = "kata-deploy runs, and never labels its node"
    DEPLOY_CRASH = "kata-deploy ends with an error, again and again"


@dataclass(frozen=True)
class Suffering:
    """An ill, and what it is limited to; None for all.

    Attributes:
        pod: how the names of the pods begin.
    """

    ill: Ill
    node: str | None = None
    runtime_class: str | None = None
    pod: str | None = None

    def befalls(self, node: str, runtime_class: str | None, pod: str) -> bool:
        """Whether it befalls that pod."""
        return (
            self.node in (None, node)
            and self.runtime_class in (None, runtime_class)
            and pod.startswith(self.pod or "")
        )


OF_SANDBOXES = frozenset(ill for ill in Ill if "{" in ill.value or ill.value.startswith("Failed"))
"""Those with which a pod under a RuntimeClass does not start."""

PULL = (
    'Failed to pull image "{image}": rpc error: code = Unknown desc = failed to pull and unpack image '
    '"{image}": failed to resolve reference "{image}": failed to do request: Head "https://{host}/v2/": '
    "dial tcp: lookup {host}: no such host"
)
BACK_OFF = 'Back-off pulling image "{image}"'
DENIED = (
    "cp: cannot create regular file '/host/opt/kata/bin/kata-runtime': Permission denied\n"
    "Error: failed to install artifacts: Permission denied (os error 13)\n"
)
AVC = (
    'type=AVC msg=audit(1764400000.123:4242): avc:  denied  { write } for  pid=4242 comm="kata-deploy" '
    'name="opt" dev="dm-0" ino=4242 scontext=system_u:system_r:container_t:s0:c19,c83 '
    "tcontext=system_u:object_r:usr_t:s0 tclass=dir permissive=0\n"
)
CRASHED = "Error: failed to restart the container runtime: exit status 1\n"
