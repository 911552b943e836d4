"""One connection for each hypervisor of a run, opened when it is first needed, and shared by all workers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from nestvirt import backends
from nestvirt.backends.base import Backend
from nestvirt.errors import Error
from nestvirt.model import Target
from nestvirt.settings import SETTINGS


@dataclass(frozen=True)
class Place:
    """Which connection a target needs.

    Attributes:
        name: of the target, for backends whose targets each have a connection of their own; else empty.
        kept: what an earlier run was connected with, where it is that run's hypervisor that is meant.
    """

    backend: str
    profile: str | None
    name: str = ""
    kept: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, target: Target, kept: Mapping[str, str] | None = None) -> Place:
        """Where a target is."""
        apart = backends.backend_class(target.backend).kind.apart
        name = target.name if apart else ""
        return cls(target.backend, target.profile, name, tuple(sorted((kept or {}).items())))

    def __str__(self) -> str:
        return f"{self.backend}@{self.profile}" if self.profile else self.backend


def address_of(backend: str, kept: Mapping[str, str]) -> str:
    """What tells one hypervisor from another; empty where a target's own name does that."""
    if not backends.backend_class(backend).kind.has_guest:
        return ""
    return kept.get(SETTINGS[backend][0].name, "")


@dataclass
class Endpoint:
    """One connection.

    Attributes:
        settings: what it is opened with; secrets are among them.
    """

    place: Place
    settings: Mapping[str, str] = field(repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _backend: Backend | None = None
    _error: Error | None = None

    @property
    def limit(self) -> int:
        """On how many of its VMs may be worked at once."""
        return backends.backend_class(self.place.backend).kind.parallel

    def connected(self) -> Backend:
        """The connection. One that failed is not tried again: a second wrong password may lock an account.

        Raises:
            Error: as the backend's ``connect``; the same for all who ask.
        """
        with self._lock:
            if self._error is not None:
                raise self._error.with_traceback(None)
            if self._backend is None:
                target = Target(self.place.backend, self.place.name or "*", self.place.profile)
                try:
                    self._backend = backends.connect(target, self.settings)
                except Error as error:
                    self._error = error
                    raise
            return self._backend

    @property
    def kept(self) -> Mapping[str, str]:
        """What leads there again, without a secret; empty where it is not connected."""
        with self._lock:
            return dict(self._backend.endpoint) if self._backend is not None else {}

    def close(self) -> None:
        """Close it, if it was opened."""
        with self._lock:
            if self._backend is not None:
                self._backend.close()
            self._backend = None


class Endpoints:
    """All connections of a run, each opened once.

    Args:
        settings_of: what resolves a place's settings, in the thread that asks.
    """

    def __init__(self, settings_of: Callable[[Place], Mapping[str, str]]) -> None:
        self._settings_of = settings_of
        self._known: dict[Place, Endpoint | Error] = {}

    def at(self, place: Place) -> Endpoint:
        """The endpoint of a place.

        Raises:
            Error: its settings cannot be resolved; the same each time.
        """
        if place not in self._known:
            try:
                self._known[place] = Endpoint(place, self._settings_of(place))
            except Error as error:
                self._known[place] = error
        found = self._known[place]
        if isinstance(found, Error):
            raise found
        return found

    def close(self) -> None:
        """Close all of them."""
        for endpoint in self._known.values():
            if isinstance(endpoint, Endpoint):
                endpoint.close()
