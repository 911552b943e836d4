"""The questions that are asked of a cluster."""

from __future__ import annotations

CHECKS = {
    "cluster-api": "Does the API server answer, and may we do what has to be done?",
    "cluster-distribution": "Which distribution are the nodes of, and is it the one that was configured?",
    "cluster-release": "In which state is Helm's release of kata-deploy?",
    "cluster-shims": "Can the shims that are switched on work together with this version and these nodes?",
    "cluster-node-ready": "Is the node ready, and may pods be scheduled there?",
    "cluster-node-kvm": "Does guest code run through the node's /dev/kvm?",
    "cluster-node-vhost": "Are vhost, vhost_net and vhost_vsock there, and free?",
    "cluster-node-containerd": "Is the node's containerd new enough, and does it read Kata's configuration?",
    "cluster-node-snapshotter": "Is there a devmapper snapshotter, which Firecracker needs?",
    "cluster-node-selinux": "Does SELinux let the installation write to the node?",
    "cluster-daemonset": "Are kata-deploy's pods ready on every node that they are meant for?",
    "cluster-node-label": "Does kata-deploy's label say that Kata is installed on the node?",
    "cluster-node-files": "Are each shim's binaries and its configuration.toml on the node?",
    "cluster-runtimeclass": "Are there exactly the RuntimeClasses that were asked for?",
    "cluster-handler": "Does the node's container runtime have the handler that the RuntimeClass names?",
    "cluster-pod-standard": "Does a pod without a RuntimeClass run, and show the node's kernel?",
    "cluster-pod-kata": "Does a pod under the RuntimeClass run in a VM of its own? This is the proof.",
    "cluster-clean": "Is nothing of Kata left on the cluster and on the node?",
}
"""Check id to the question, in the order of the chain."""
