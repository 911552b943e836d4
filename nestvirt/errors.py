"""Every error that nestvirt raises on purpose.

    Error
    ├── TargetError        the target is unknown, ambiguous, or written wrongly           exit 2
    ├── SettingsError      an option, environment variable or file cannot be used         exit 2
    ├── MissingExtra       a Python package or a program that is needed is not installed  exit 2
    ├── ConnectionFailed   no answer from the hypervisor, or the cluster                  exit 3
    ├── AccessDenied       it answered, and refused these credentials or this action      exit 3
    ├── GuestUnreachable   there is no way into the guest, or it did not answer in time   exit 3
    ├── Busy               another run is working on the same VM                          exit 1
    ├── PowerError         the VM did not stop, or did not start                          exit 1
    ├── ChangeRejected     hypervisor or cluster refused a change, or did not keep it     exit 1
    ├── JournalError       the record of a run cannot be written, read, or replayed       exit 1
    ├── Interrupted        the user stopped the run; the message says how things stand    exit 130
    └── Fault              a fault of nestvirt's own with one target among many           exit 70

An error says what happened (message), what was seen (evidence), and what to do now (cure).
"""

from __future__ import annotations


class Error(Exception):
    """Base of all deliberate errors.

    Args:
        message: what happened, one sentence without a full stop.
        evidence: what was seen: the product's own words, a path, a value. Never a secret.
        cure: what the user can do now.

    Attributes:
        changed: whether a setting is left other than it was before; the engine says so.
        run: the journal's id of the run that undo takes, where it was not put back whole.
    """

    exit_code = 1
    changed = False
    run: str | None = None

    def __init__(self, message: str, *, evidence: str = "", cure: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.evidence = evidence
        self.cure = cure


class TargetError(Error):
    """The target is unknown, ambiguous, or written wrongly."""

    exit_code = 2


class SettingsError(Error):
    """An option, environment variable or configuration file cannot be used."""

    exit_code = 2


class MissingExtra(Error):
    """The Python package that a backend needs, or a program, is not installed."""

    exit_code = 2


class ConnectionFailed(Error):
    """The hypervisor, or the cluster, did not answer."""

    exit_code = 3


class AccessDenied(Error):
    """It answered and refused the credentials, or what they asked for."""

    exit_code = 3


class GuestUnreachable(Error):
    """There is no way into the guest, or it did not answer in time."""

    exit_code = 3


class Busy(Error):
    """Another run is working on the same VM."""


class PowerError(Error):
    """The VM did not stop, or did not start."""


class ChangeRejected(Error):
    """The hypervisor, or the cluster, refused a change, or did not keep it."""


class JournalError(Error):
    """The record of a run cannot be written, read, or replayed."""


class Interrupted(Error):
    """The user stopped the run; the message says what was put back, and what is in place."""

    exit_code = 130


class Left(str):
    """A note on an exception that is no Error: how it has left things, for people, and as an Error says it.

    Attributes:
        changed: see Error.
        run: see Error.
    """

    __slots__ = ("changed", "run")
    changed: bool
    run: str | None

    @classmethod
    def told(cls, text: str, *, changed: bool, run: str | None = None) -> Left:
        """A note with this text."""
        left = cls(text)
        left.changed, left.run = changed, run
        return left


class Fault(Error):
    """A fault of nestvirt's own with one target, while others are worked on; its cause is what was raised."""

    exit_code = 70
