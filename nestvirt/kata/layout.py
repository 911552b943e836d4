"""What is where on a node of each distribution: containerd's configuration, its unit, its ctr.

Source: kata-deploy's binary/src/config.rs and runtime/manager.rs, and each distribution's own documentation.
"""

from __future__ import annotations

from dataclasses import dataclass

from nestvirt.kata.chart import containerd_directory

_K3S_SOCKET = "--address /run/k3s/containerd/containerd.sock"


@dataclass(frozen=True)
class Layout:
    """One distribution's.

    Attributes:
        directory: where containerd's configuration is.
        generated: the file there that is written anew at each start; empty where there is none.
        units: systemd's units of which one runs containerd; none where containerd reads its files by itself.
        ctr: the words that run its ctr on a node.
    """

    directory: str
    generated: str
    units: tuple[str, ...]
    ctr: str

    @property
    def templates(self) -> bool:
        """Whether the configuration is made of ``config.toml.tmpl`` or ``config-v3.toml.tmpl``."""
        return self.generated == "config.toml"


_OWN = {
    "k8s": ("", ("containerd", "crio"), "ctr"),
    "k3s": ("config.toml", ("k3s-agent", "k3s"), f"k3s ctr {_K3S_SOCKET}"),
    "rke2": (
        "config.toml",
        ("rke2-agent", "rke2-server"),
        f"/var/lib/rancher/rke2/bin/ctr {_K3S_SOCKET}",
    ),
    "k0s": ("containerd.toml", (), "k0s ctr"),
    "microk8s": ("containerd.toml", ("snap.microk8s.daemon-containerd",), "microk8s.ctr"),
}


def layout(distribution: str) -> Layout:
    """The layout of a distribution of ``config.DISTRIBUTIONS``."""
    return Layout(containerd_directory(distribution), *_OWN[distribution])
