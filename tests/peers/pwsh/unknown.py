"""What the interpreter does not know ends the script loudly: no script of ours may catch it."""

from __future__ import annotations


class NotKnown(BaseException):
    """A script uses something of which this PowerShell knows nothing: mend the script, or teach it."""
