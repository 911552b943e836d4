"""When each VM was last seen to nest: one small file a VM, in the state folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from nestvirt.journal import identity
from nestvirt.model import PROOF, Report, Status, Vm


@dataclass(frozen=True)
class Proven:
    """The last proof of a VM.

    Attributes:
        time: when, as ISO 8601 in UTC.
        exit_ns: how long an exit took then; None where it was not measured.
    """

    time: str
    exit_ns: float | None = None


class Proofs:
    """All proofs of one user.

    Args:
        directory: the state folder.
    """

    def __init__(self, directory: Path) -> None:
        self._folder = directory / "proofs"

    def keep(self, backend: str, vm: Vm, report: Report) -> None:
        """Note it, where the report has a proof. A folder that cannot be written is no reason to fail."""
        if not any(f.check == PROOF and f.status is Status.PASS for f in report.findings):
            return
        numbers = report.proof.numbers if report.proof is not None else {}
        proven = {
            "target": report.target,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "exit_ns": numbers.get("exit_ns"),
            "uuid": vm.uuid,
        }
        path = self._path(backend, vm)
        with contextlib.suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, scratch = tempfile.mkstemp(dir=path.parent)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(proven, file)
            Path(scratch).replace(path)

    def last(self, backend: str, vm: Vm) -> Proven | None:
        """The last proof of a VM; None where there is none, or none that can be read."""
        try:
            told = json.loads(self._path(backend, vm).read_text(encoding="utf-8"))
            if not vm.may_be(replace(vm, uuid=told.get("uuid"))):
                return None  # of a VM that is not there any more
            exit_ns = told.get("exit_ns")
            return Proven(str(told["time"]), float(exit_ns) if exit_ns is not None else None)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def _path(self, backend: str, vm: Vm) -> Path:
        digest = hashlib.sha256(identity(backend, vm).encode(errors="surrogatepass")).hexdigest()
        return self._folder / f"{digest[:24]}.json"
