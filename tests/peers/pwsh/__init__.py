"""A PowerShell of the tests' own: the subset that nestvirt's scripts use, on tree-sitter's syntax tree.

What it does not know (a node, a cmdlet, a parameter, a method) is never passed over: it is an error that
names it. It behaves as Windows PowerShell 5.1 where that surprises people: there scripts break.
"""

from tests.peers.pwsh.engine import Engine
from tests.peers.pwsh.program import PowerShell
from tests.peers.pwsh.unknown import NotKnown
from tests.peers.winrm.command import Invocation, Result

__all__ = ["Engine", "Invocation", "NotKnown", "PowerShell", "Result"]
