"""The record of every run, written before each step is taken: so that undo is exact, also after a crash.

One file a run, ``runs/<run>.jsonl``, one JSON object a line, each flushed to the disk before the step it
announces. A line that a power cut left unfinished is ignored: its step had not begun.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import islice, takewhile
from pathlib import Path
from typing import IO

from nestvirt.errors import Busy, JournalError, TargetError
from nestvirt.model import Change, Power, Target, Vm
from nestvirt.replay import SCHEMA_VERSION, Run, Step, identity, replay

__all__ = ["Journal", "Record", "Run", "Step", "identity"]

SETTLED = 100_000_000
"""Nanoseconds after which a folder's time of change is sure to differ after the next change."""


class Record:
    """A run's file, open for the next lines."""

    def __init__(self, path: Path) -> None:
        self.id = path.stem
        self._path = path

    def intend(self, change: Change) -> None:
        """Note a change before it is made."""
        self._write(event="change", setting=change.setting, before=change.before, after=change.after)

    def kept(self, change: Change, value: str | None) -> None:
        """Note what the hypervisor holds after the change."""
        self._write(event="kept", setting=change.setting, value=value)

    def undoing(self, power: Power) -> None:
        """Note that the run is being undone, and the power state that the undoing owes back."""
        self._write(event="undoing", power=power)

    def end(self, outcome: str) -> None:
        """Note how the run ended; see Run."""
        self._write(event="end", outcome=outcome)

    def _write(self, **line: object) -> None:
        data = json.dumps(line).encode() + b"\n"  # ASCII: a name may be no UTF-8
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "r+b", buffering=0) as file:
                file.truncate(file.seek(file.read().rfind(b"\n") + 1))  # less what is left of a torn line
                if file.write(data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
                os.fsync(descriptor)
            if line["event"] == "begin":  # the file's name must outlive a power cut, too
                folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                os.fsync(folder)
                os.close(folder)
        except OSError as error:
            raise JournalError(
                "the journal cannot be written, so nothing more is changed",
                evidence=str(error),
                cure="make room or give access there, or name another place in NESTVIRT_STATE_DIR",
            ) from error


class Journal:
    """All runs of one user.

    Args:
        directory: where runs and locks are kept.

    Attributes:
        fleet: the run over many that what is begun is part of; empty where it is not.
    """

    def __init__(self, directory: Path) -> None:
        self.fleet = ""
        self._runs = directory / "runs"
        self._locks = directory / "locks"
        self._known: dict[str, list[Path]] = {}  # a VM's identity to its records
        self._parts: dict[str, list[Path]] = {}  # a run over many to its own
        self._names: set[str] = set()  # of all records in it
        self._seen = (0, 0)  # the folder's last change, and when it was looked at
        self._looking = threading.Lock()

    @contextmanager
    def lock(self, backend: str, vm: Vm) -> Iterator[None]:
        """Keep other runs off one VM. The kernel lets go of it when the process ends, however it ends.

        Raises:
            Busy: another run has it.
        """
        path = self._directory(self._locks) / _lock_name(backend, vm)
        with self._lock_file(path) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise _busy(vm, file.read(20) or "unknown", path) from error
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def _lock_file(self, path: Path) -> IO[str]:
        try:
            return path.open("a+", encoding="utf-8")
        except OSError as error:
            cure = "give access there, or run as the user who made it"
            raise JournalError("the VM's lock cannot be opened", evidence=str(error), cure=cure) from error

    def under_way(self, backend: str, vm: Vm) -> str | None:
        """The process that holds a VM's lock at this moment, or None. Writes nothing."""
        try:
            with (self._locks / _lock_name(backend, vm)).open(encoding="utf-8") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return file.read(20) or "unknown"
        except OSError:
            return None  # nobody has ever locked it, or it is another user's
        return None

    def refuse_under_way(self, backend: str, vm: Vm) -> None:
        """Look whether another run works on a VM. Writes nothing.

        Raises:
            Busy: one does.
        """
        process = self.under_way(backend, vm)
        if process is not None:
            raise _busy(vm, process, self._locks / _lock_name(backend, vm))

    def begin(
        self, command: str, target: Target, vm: Vm, power: Power, endpoint: Mapping[str, str]
    ) -> Record:
        """Open the record of a new run, before anything is touched."""
        now = datetime.now(UTC)
        # In the order of time, and another one where two runs begin in one microsecond.
        run = f"{now:%Y%m%d-%H%M%S}-{now.microsecond:05x}{secrets.randbelow(16):x}"
        record = Record(self._directory(self._runs) / f"{run}.jsonl")
        record._write(
            event="begin",
            schema_version=SCHEMA_VERSION,
            command=command,
            time=now.isoformat(timespec="seconds"),
            target=str(target),
            vm={name: value for name, value in asdict(vm).items() if value is not None},
            power=power,
            endpoint=dict(endpoint),
            **({"fleet": self.fleet} if self.fleet else {}),
        )
        return record

    def record(self, run: Run) -> Record:
        """The record of an earlier run, open for further lines."""
        return Record(self._runs / f"{run.id}.jsonl")

    def runs(self, only: str | None = None) -> list[Run]:
        """All runs, newest first; or the one of an id.

        Raises:
            JournalError: a record, or the folder, cannot be read.
        """
        read = [self._read(path) for path in self._paths() if only in (None, path.stem)]
        return [run for run in read if run is not None]

    def records(self) -> Iterator[tuple[str, Run | None, JournalError | None]]:
        """Each run's id, newest first, and the run; where its record cannot be read, what the first line says
        of it, if that can be read, and why.

        Raises:
            JournalError: the folder cannot be read.
        """
        for path in self._paths():
            run, ill = self._first(path)
            if run is not None or ill is not None:  # else it died before its first line was written
                yield path.stem, run, ill

    def _paths(self) -> list[Path]:
        """All records, newest first."""
        try:
            return sorted((p for p in self._runs.iterdir() if p.suffix == ".jsonl"), reverse=True)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unreadable(error) from error

    def _first(self, path: Path) -> tuple[Run | None, JournalError | None]:
        """See records."""
        try:
            return self._read(path), None
        except JournalError as error:
            with suppress(JournalError):
                return self._read(path, lines=1), error
            return None, error

    def parts(self, fleet: str) -> Iterator[tuple[Run, JournalError | None]]:
        """The runs of one over many, newest first; where a record cannot be read, its first line, and why.

        Raises:
            JournalError: there is one that may be part of any, as its first line cannot be read.
        """
        with self._looking:
            self.look()
            paths = sorted(self._parts.get(fleet, ()), reverse=True)
        for path in paths:
            run, ill = self._first(path)
            if run is not None:
                yield run, ill

    def heir(self, run: Run) -> Run:
        """Who answers by now for what a run has changed: itself, or one that has gone on with it."""
        if run.outcome != "continued":
            return run
        for later in reversed(list(self._runs_of(run.target.backend, run.vm))):
            if later.id > run.id and run.outcome == "continued":
                run = later
        return run

    def find(self, run_id: str | None, vm: str | None = None, backend: str | None = None) -> Run:
        """One run by its id, or the newest that can be undone.

        Args:
            run_id: the run; None for the newest.
            vm: a VM's name or id, as for Run.is_of; only its runs count.
            backend: that VM's; None for any.

        Raises:
            JournalError: there is none, or there is nothing in it to undo; or its record cannot be read, or
                that of a newer one, which may be meant.
            TargetError: there is no run of that id.
        """
        cure = "see all runs: nestvirt undo --list"
        if run_id is None:
            found = self._newest(vm, backend)
        else:
            found = next((run for run in self.runs(run_id) if run.is_of(vm, backend)), None)
        if found is None:
            known = (
                known for known, run, _ill in self.records() if run is not None and run.is_of(vm, backend)
            )
            evidence = f"newest runs in {self._runs}: {', '.join(islice(known, 5)) or 'none'}"
            if run_id is not None:
                raise TargetError(f"there is no run {run_id!r}", evidence=evidence, cure=cure)
            raise JournalError("there is no run to undo", evidence=evidence, cure=cure)
        if not found.undoable and not found.steps:
            raise JournalError(f"run {run_id} changed nothing", evidence=f"it is {found.state}", cure=cure)
        return found

    def _newest(self, vm: str | None, backend: str | None) -> Run | None:
        """The newest run that can be undone. What is older than that, or another VM's, may be ill."""
        doubt: JournalError | None = None
        for _id, run, ill in self.records():
            if run is not None and not run.is_of(vm, backend):
                continue
            doubt = doubt or ill
            if ill is None and run is not None and run.undoable:
                if doubt is None:
                    return run
                raise JournalError(
                    "it is not known which run is the newest",
                    evidence=f"{doubt.message}: {doubt.evidence}",
                    cure=f"if you mean {run.command} of {run.target}: nestvirt undo {run.id}",
                )
        if doubt is not None:
            raise doubt
        return None

    def unfinished(self, backend: str, vm: Vm) -> Run | None:
        """The newest run on this VM, where it died before its end; only meaningful under the VM's lock.

        Where the one before it had died too, the newest goes on with that: its steps are among the steps, and
        where one of them had the VM's host as well, that is where the endpoint leads.
        """
        died = list(takewhile(lambda run: run.outcome is None, self._runs_of(backend, vm)))[::-1]
        if not died:
            return None
        steps = tuple(step for run in died for step in run.steps)
        widest = max(died, key=lambda run: ("with_host" in run.endpoint, run.id))
        ids = tuple(run.id for run in died)
        return replace(died[-1], steps=steps, died=ids, endpoint=widest.endpoint)

    def whole(self, run: Run) -> Run:
        """A run as it is now; where it died, with what has died on that VM before and after it.

        Raises:
            JournalError: its record is gone, or cannot be read.
        """
        run = self._read(self._runs / f"{run.id}.jsonl") or run
        died = self.unfinished(run.target.backend, run.vm)
        if died is None or run.id not in died.died:
            return run
        return replace(died, id=run.id, command=run.command)

    def end(self, run: Run, outcome: str) -> None:
        """Note how an earlier run ended, and what died with it."""
        for run_id in run.died or (run.id,):
            Record(self._runs / f"{run_id}.jsonl").end(outcome)

    def enabling(self, backend: str, vm: Vm) -> Change | None:
        """The change by which the newest such run gave the VM nesting: what it found, and what it left."""
        for run in self._runs_of(backend, vm):
            if run.command == "enable" and run.outcome in ("applied", "continued", None) and run.steps:
                step = run.steps[-1]
                return Change(step.change.setting, step.change.before, step.kept)
        return None

    def _runs_of(self, backend: str, vm: Vm) -> Iterator[Run]:
        """A VM's runs as they are now, newest first. Which records are whose is remembered: of a fleet, each
        VM asks, and all have theirs in one folder."""
        with self._looking:
            self.look()
            paths = sorted(self._known.get(identity(backend, vm), ()), reverse=True)
        return (run for run in map(self._read, paths) if run is not None and vm.may_be(run.vm))

    def look(self) -> None:
        """Learn whose the records are that are new.

        Raises:
            JournalError: there is one that may be about any VM, as its first line cannot be read.
        """
        try:
            changed, now = self._runs.stat().st_mtime_ns, time.time_ns()
            if changed == self._seen[0] and self._seen[1] - changed > SETTLED:
                return
            new = {p.name for p in self._runs.iterdir() if p.suffix == ".jsonl"} - self._names
        except FileNotFoundError:
            return
        except OSError as error:
            raise _unreadable(error) from error
        for name in sorted(new):
            run = self._read(self._runs / name, lines=1)
            if run is not None:  # else its first line is still to be written
                self._known.setdefault(identity(run.target.backend, run.vm), []).append(self._runs / name)
                if run.fleet:
                    self._parts.setdefault(run.fleet, []).append(self._runs / name)
                self._names.add(name)
        self._seen = (changed if len(new) == len(new & self._names) else 0, now)

    def _directory(self, path: Path) -> Path:
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise JournalError(
                "the journal has no place to be written",
                evidence=str(error),
                cure="name another place in NESTVIRT_STATE_DIR",
            ) from error
        return path

    def _read(self, path: Path, lines: int | None = None) -> Run | None:
        """One run; None where it died before its first line was written, and with that before anything.

        Args:
            lines: so many of its record are looked at; None: all.
        """
        try:
            # What follows the last line end was being written when the power went.
            complete = path.read_bytes().rpartition(b"\n")[0]
            read = [json.loads(line) for line in complete.split(b"\n")[:lines]] if complete else []
            return replay(path.stem, read) if read else None
        except (OSError, ValueError, KeyError, TypeError, IndexError, TargetError) as error:
            raise JournalError(
                f"the record {path} cannot be read",
                evidence=f"{type(error).__name__}: {error}",
                cure="move that file away; what it says can be put back by hand",
            ) from error


def _unreadable(error: OSError) -> JournalError:
    cure = "give access there, or run as the user who made it"
    return JournalError("the journal cannot be read", evidence=str(error), cure=cure)


def _busy(vm: Vm, process: str, path: Path) -> Busy:
    return Busy(
        f"another run is working on {vm.name}",
        evidence=f"process {process} holds {path}",
        cure="wait until it has ended, then run this again",
    )


def _lock_name(backend: str, vm: Vm) -> str:
    return hashlib.sha256(identity(backend, vm).encode(errors="surrogatepass")).hexdigest()[:24] + ".lock"
