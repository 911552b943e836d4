"""Kata Containers on a Kubernetes cluster: pods that run in VMs of their own, on nodes that can run VMs."""
