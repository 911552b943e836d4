"""What was read of a Hyper-V VM, and what it means. Pure; needs no Hyper-V."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nestvirt.backends.hyperv import direct, host_checks, vm_checks
from nestvirt.backends.hyperv.situation import SHUTDOWN_SERVICE, Situation
from nestvirt.backends.hyperv.vm_checks import listed, wanted
from nestvirt.model import Finding, Goal, Layer, Power, Status

CHECKS = {
    "host-hypervisor-role": "Has the host the role Hyper-V, and does its hypervisor run?",
    "host-build": "Is the host's Windows new enough to nest on its CPU?",
    "vm-storage": "Does Hyper-V reach the VM's files?",
    "vm-suspended": "Is the VM paused?",
    "vm-saved-state": "Is it known that a saved state will be lost?",
    "vm-replica": "Is the VM no copy that Hyper-V Replica keeps?",
    "vm-version": "Is the VM's configuration version new enough to nest?",
    "vm-version-upgrade": "Is it known that a raised configuration version stays?",
    "vm-dynamic-memory": "Has the VM memory of a fixed size, as nesting needs?",
    "vm-memory": "Has the VM the memory that is advised for VMs inside?",
    "vm-vbs-opt-out": "Does an early build want VirtualizationBasedSecurityOptOut first?",
    "vm-cpu": "Does the definition show the guest vmx or svm?",
    "vm-mac-spoofing": "May VMs inside be bridged to the network?",
    "vm-clustered": "Is the VM started and stopped by its cluster?",
    "vm-checkpoints": "Do checkpoints hold the old processor?",
    "vm-stop-action": "Can its host shut down with it, when it nests?",
    "vm-shutdown-service": "Can the guest be asked to shut down?",
    "vm-agent": "Is there a guest agent to look inside with?",
}
"""Check id to the question it asks."""

_COPIES = ("Replica", "ExtendedReplica", "TestReplica")


def _vm_storage(facts: Situation, _goal: Goal) -> Iterator[Finding]:
    if facts.state.endswith("Critical"):
        evidence = f"the VM is {facts.state}: Hyper-V does not reach its disks, or its configuration"
        cure = "bring its storage back, and see Status of Get-VM; then run this again"
        yield Finding("vm-storage", Layer.VM, Status.FAIL, evidence, cure)


def _vm_replica(facts: Situation, goal: Goal) -> Iterator[Finding]:
    if wanted(facts, goal) is None:
        return
    if facts.replication in _COPIES:
        evidence = (
            f"it is a copy that Hyper-V Replica keeps ({facts.replication}); the primary VM is what counts"
        )
        cure = "change the primary VM, on its own host; and this one after a failover"
        yield Finding("vm-replica", Layer.VM, Status.FAIL, evidence, cure)
    elif facts.replication == "Primary":
        evidence = "Hyper-V Replica copies its disks, and not this setting"
        cure = "after a failover, run this again for the copy, on the replica's host"
        yield Finding("vm-replica", Layer.VM, Status.WARN, evidence, cure)


def _vm_clustered(facts: Situation, goal: Goal) -> Iterator[Finding]:
    check, layer, group = "vm-clustered", Layer.VM, facts.group
    if group is None:
        return
    if not group.name:
        evidence = f"it is a VM of a cluster that does not show its role to this user: {group.state}"
        cure = (
            "install the cluster's cmdlets on the host (Install-WindowsFeature RSAT-Clustering-PowerShell), "
            "and give this user the cluster (Grant-ClusterAccess); where that is refused over WinRM alone, "
            "log in by CredSSP"
        )
        status = Status.FAIL if facts.power is Power.RUNNING else Status.WARN
        yield Finding(check, layer, status, evidence, cure)
        return
    evidence = f"role {group.name} of cluster {group.cluster}, by which it is started and stopped"
    if goal.nested:
        evidence += "; on other nodes it nests only where they can"
        evidence += ", and while VMs run inside, no live migration takes it there"
        cure = "see that every possible owner has such a CPU and Windows (Get-ClusterOwnerNode)"
        cure += "; before a node is drained, shut the VM down"
        yield Finding(check, layer, Status.WARN, evidence, cure)
    else:
        yield Finding(check, layer, Status.PASS, evidence)


def _vm_checkpoints(facts: Situation, goal: Goal) -> Iterator[Finding]:
    """Those that Hyper-V made by itself are nobody's to go back to."""
    names = [checkpoint.name for checkpoint in facts.checkpoints if not checkpoint.automatic]
    if goal.nested and names:
        evidence = f"checkpoints: {listed(names)}"
        evidence += "; applying one brings back the processor settings that it was taken with"
        cure = "take new checkpoints when it nests, while it is off"
        yield Finding("vm-checkpoints", Layer.VM, Status.WARN, evidence, cure)


def _vm_stop_action(facts: Situation, goal: Goal) -> Iterator[Finding]:
    """Save is what Hyper-V gives new VMs. Of a clustered VM it is the cluster that decides."""
    if goal.nested and facts.group is None and facts.stop_action == "Save":
        evidence = "when its host shuts down, it is to be saved (AutomaticStopAction)"
        evidence += ", which fails while VMs run inside"
        cure = "when it is off: Set-VM with -AutomaticStopAction ShutDown"
        yield Finding("vm-stop-action", Layer.VM, Status.WARN, evidence, cure)


def _vm_shutdown_service(facts: Situation, goal: Goal) -> Iterator[Finding]:
    """Said beforehand, where the VM will have to be shut down."""
    check, layer = "vm-shutdown-service", Layer.VM
    if facts.power is not Power.RUNNING or wanted(facts, goal) is None:
        return
    service = facts.services.get(SHUTDOWN_SERVICE)
    if service is None or not service.enabled:
        evidence = "the integration service that shuts the guest down is not enabled for this VM"
        cure = (
            "Enable-VMIntegrationService on the host; or shut the guest down yourself; or allow --force-off"
        )
        yield Finding(check, layer, Status.WARN, evidence, cure)
    elif service.status != "Ok":
        evidence = f"the guest's integration services do not answer ({service.status or 'no status'})"
        cure = "wait until it has booted; install them (Linux: hyperv-daemons); or allow --force-off"
        yield Finding(check, layer, Status.WARN, evidence, cure)


def _vm_agent(facts: Situation, _goal: Goal) -> Iterator[Finding]:
    yield from direct.vm_agent(facts.power, facts.heartbeat, facts.system, facts.guest_user)


_QUESTIONS = (
    host_checks.host_hypervisor_role,
    host_checks.host_build,
    _vm_storage,
    vm_checks.vm_suspended,
    _vm_replica,
    vm_checks.vm_version,
    vm_checks.vm_dynamic_memory,
    vm_checks.vm_memory,
    vm_checks.vm_vbs_opt_out,
    vm_checks.vm_cpu,
    vm_checks.vm_mac_spoofing,
    _vm_clustered,
    _vm_checkpoints,
    _vm_stop_action,
    _vm_shutdown_service,
    _vm_agent,
)


@dataclass(frozen=True)
class VmFacts(Situation):
    """One VM, which judges itself; see Facts."""

    def judge(self, goal: Goal) -> tuple[Finding, ...]:
        """See Facts."""
        return tuple(finding for question in _QUESTIONS for finding in question(self, goal))
