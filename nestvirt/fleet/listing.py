"""Every VM of many hypervisors, how it stands, and when it was last proven."""

from __future__ import annotations

import os
from collections.abc import Sequence
from difflib import get_close_matches

from nestvirt import backends, configfile, settings
from nestvirt.backends.base import Listed, Listing
from nestvirt.errors import Error, SettingsError
from nestvirt.fleet.asking import answers
from nestvirt.fleet.endpoints import Endpoint, Endpoints, Place
from nestvirt.fleet.patterns import Pattern
from nestvirt.fleet.proofs import Proofs
from nestvirt.fleet.selection import listing_of, meaning, nothing_meant
from nestvirt.model import Target
from nestvirt.printable import printable
from nestvirt.report_list import Entry, Inventory

PENDING = "what is configured takes effect at its next power cycle only"
BUILT_IN = "libvirt"
"""Whose built-in default is asked where nothing is configured."""

Asked = tuple[Place, tuple[Pattern | Target, ...]]
"""A hypervisor, and which of its VMs are meant; none named: all."""


def chosen_places(names: Sequence[str], profiles: Sequence[str]) -> list[Asked]:
    """What is to be asked, from what the user named; all that is configured where nothing is.

    Raises:
        TargetError: a name is written wrongly.
        SettingsError: the configuration file cannot be read, or has no such profile.
    """
    if not names:
        return [(place, ()) for place in _configured(profiles)]
    asked: dict[Place, list[Pattern | Target]] = {}
    for what in map(meaning, names):
        asked.setdefault(Place(what.backend, what.profile), []).append(what)
    return [(place, tuple(whats)) for place, whats in asked.items()]


def _configured(profiles: Sequence[str]) -> list[Place]:
    path = settings.config_path()
    file = configfile.read(path, required=bool(os.environ.get("NESTVIRT_CONFIG")))
    known = {name: str(file.table("profiles", name).get("backend", "")) for name in file.table("profiles")}
    missing = [name for name in profiles if name not in known]
    if missing:
        raise SettingsError(
            f"there is no profile {missing[0]!r}",
            evidence=f"{path} has: {', '.join(sorted(known)) or 'none'}",
            cure=f"add a table [profiles.{missing[0]}], or name another one",
        )
    if profiles:
        return [Place(known[name], name) for name in dict.fromkeys(profiles)]
    found = [Place(backend, name) for name, backend in known.items() if _is_asked(backend)]
    found += [Place(backend, None) for backend in backends.BACKENDS if _lists(backend) and _is_set(backend)]
    return found or [Place(BUILT_IN, None)]


def _is_asked(backend: str) -> bool:
    """Whether a profile of it is; one that there is not is told of."""
    return _lists(backend) or backend not in backends.BACKENDS


def _lists(backend: str) -> bool:
    return backend in backends.BACKENDS and issubclass(backends.backend_class(backend), Listing)


def _is_set(backend: str) -> bool:
    """Whether the environment, or the file's defaults, say where it is."""
    address = settings.SETTINGS[backend][0] if backend in settings.SETTINGS else None
    if address is None:
        return False
    if any(os.environ.get(name) for name in address.variables):
        return True
    path = settings.config_path()
    file = configfile.read(path, required=bool(os.environ.get("NESTVIRT_CONFIG")))
    return address.name in file.table("defaults", backend)


def inventory(asked: Sequence[Asked], endpoints: Endpoints, proofs: Proofs) -> Inventory:
    """Ask all of them, at the same time; one that cannot be asked has its error, and the others their VMs."""
    ready: list[tuple[Asked, Endpoint]] = []
    errors: list[tuple[str, Error]] = []
    for one in asked:
        try:
            _refuse_unknown_backend(one[0])
            ready.append((one, endpoints.at(one[0])))
        except Error as error:
            errors.append((str(one[0]), error))
    entries: list[Entry] = []
    told = answers(lambda each: listing_of(each[1]), ready)
    for ((place, whats), _), answer in zip(ready, told, strict=True):
        if isinstance(answer, Error):
            errors.append((str(place), answer))
            continue
        meant, ill = _meant(whats, answer)
        entries += [_entry(place, one, proofs) for one in meant]
        errors += [(str(place), error) for error in ill]
    return Inventory(entries, errors)


def _refuse_unknown_backend(place: Place) -> None:
    if place.backend in backends.BACKENDS:
        return
    near = get_close_matches(place.backend, backends.BACKENDS, 1)
    said = f"backend = {printable(place.backend, 100)!r}" if place.backend else "no backend"
    raise SettingsError(
        f"profile {place.profile!r} is of no backend that there is",
        evidence=f"{settings.config_path()} says {said} there; "
        f"backends: {', '.join(sorted(backends.BACKENDS))}",
        cure=f'write backend = "{near[0] if near else BUILT_IN}" in [profiles.{place.profile}]',
    )


def _meant(
    whats: Sequence[Pattern | Target], listed: Sequence[Listed]
) -> tuple[Sequence[Listed], list[Error]]:
    """Those that any of the names means, each once; and what is wrong with a name."""
    if not whats:
        return listed, []
    meant: set[int] = set()
    errors: list[Error] = []
    for what in whats:
        try:
            found = [number for number, one in enumerate(listed) if _means(what, one)]
            if not found:
                raise nothing_meant(what, listed)
            meant.update(found)
        except Error as error:
            errors.append(error)
    return [listed[number] for number in sorted(meant)], errors


def _means(what: Pattern | Target, one: Listed) -> bool:
    if isinstance(what, Pattern):
        return what.matches(one)
    return what.name in (one.name, one.vm.name, one.vm.id)


def _entry(place: Place, listed: Listed, proofs: Proofs) -> Entry:
    proven = proofs.last(place.backend, listed.vm)
    drift = PENDING if listed.nesting == "pending" else ""
    if proven is not None and listed.nesting == "off":
        drift = "it was proven, and has been turned off since"
    target = Target(place.backend, listed.name, place.profile)
    return Entry(str(target), listed, drift, proven.time if proven is not None else None)
