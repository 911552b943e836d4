"""A Hyper-V host as its cmdlets show it to the tests' own PowerShell. Its state is plain data: the oracle."""

from tests.peers.hyperv import cim, cluster, hostcmds, memory, power, settings, vms, windows
from tests.peers.hyperv.model import Adapter, Checkpoint, Guest, Host, Machine

REGISTERED = (cim, cluster, hostcmds, memory, power, settings, vms, windows)
"""Modules that are imported for the cmdlets that they register."""

__all__ = ["Adapter", "Checkpoint", "Guest", "Host", "Machine"]
