"""From what the user wrote to the VMs that are meant: each once, in the order in which they were named."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from nestvirt.backends.base import Listed, Listing
from nestvirt.errors import Error, TargetError
from nestvirt.fleet.asking import answers
from nestvirt.fleet.endpoints import Endpoint, Endpoints, Place
from nestvirt.fleet.entries import Entry, Told, refuse_idle
from nestvirt.fleet.patterns import Pattern, parse
from nestvirt.fleet.targetsfile import FleetFile
from nestvirt.model import Target, Vm
from nestvirt.printable import printable

FEW = 3
"""So many VMs of one endpoint are looked for one by one; more are found in its listing.

A single one is looked for when it is its turn; of several, two names may be the same VM's."""


@dataclass(frozen=True)
class Known:
    """Which VM a name meant in the run that is gone on with.

    Attributes:
        vm: its id; empty where it had not been found.
        endpoint: what led to its hypervisor, as the journal keeps it; empty where that had not answered.
    """

    vm: str
    endpoint: Mapping[str, str]


@dataclass(frozen=True)
class Member:
    """One target of a run; or, where it cannot even be found out which VM is meant, why.

    Attributes:
        written: what names it in the report: the target, or the pattern that failed.
        vm: known from a listing; None where it is still to be found by name.
        ssh: the user's own way into the guest.
        node: what Kubernetes calls it.
        known: which it was before, where a run is gone on with.
        told: where it is not known which VMs are meant: what the fleet file says of it, and of others there.
    """

    written: str
    target: Target | None = None
    endpoint: Endpoint | None = None
    vm: Vm | None = None
    error: Error | None = None
    ssh: str | None = None
    ssh_config: str | None = None
    node: str | None = None
    known: Known | None = None
    told: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def going_on(self, known: Known | None) -> Member:
        """With what a run before had; where the name means another by now, its own is still to be found."""
        other = known is not None and self.vm is not None and known.vm not in ("", self.vm.id)
        return replace(self, known=known, vm=None if other else self.vm)


@dataclass
class Selection:
    """Resolves names against the endpoints that they lead to.

    Args:
        endpoints: the run's.
        file: what is to be known of single targets.
    """

    endpoints: Endpoints
    file: FleetFile = field(default_factory=FleetFile)
    _entries: list[Entry] = field(default_factory=list)
    _told: Told = field(default_factory=Told)
    _names: dict[Place, dict[str, set[Vm]]] = field(default_factory=dict)  # of those that were listed
    _found: dict[Target, Vm] = field(default_factory=dict)

    def of(self, names: Sequence[str | Target]) -> list[Member]:
        """The members, each VM once. What cannot be found is one, too, with its error.

        Raises:
            TargetError: a name is written wrongly; nothing was asked of anybody.
        """
        asked = {str(what): what for what in map(meaning, names)}
        for name, told in self.file.details.items():
            what = meaning(name)
            self._entries.append(Entry(asked.get(str(what), what), told, asked=str(what) in asked))
        self._entries.sort(key=lambda entry: isinstance(entry.what, Target))  # a name counts above patterns
        places = {_place(what) for what in asked.values()}
        beside = [e for e in self._entries if not e.asked and _place(e.what) in places]
        listings = self._listings(list(asked.values()), [entry.what for entry in beside])
        looked_for = [*asked.values(), *(entry.what for entry in beside)]
        self._find_few([what for what in looked_for if isinstance(what, Target)], listings)
        for entry in [*(e for e in self._entries if e.asked), *beside]:
            self._resolve(entry, listings)
        self._told = Told(self._entries)
        members: list[Member] = []
        for written, what in asked.items():
            members += self._members(written, what, listings)
        return list(_once(members))

    def refuse_idle(self, members: Iterable[Member], *, some: bool) -> None:
        """Find what the file tells of nobody.

        Args:
            members: the run's.
            some: whether only some of the file's groups are meant.

        Raises:
            SettingsError: it does.
        """
        known = {m.written: (m.endpoint.place, m.vm) if m.endpoint is not None else None for m in members}
        groups = {str(meaning(name)) for of in self.file.groups.values() for name in of} if some else ()
        refuse_idle(self._entries, known, groups)

    def _resolve(self, entry: Entry, listings: Mapping[Place, Sequence[Listed] | Error]) -> None:
        """Which VMs an entry means. What is asked for itself is looked for when it is its turn."""
        what = entry.what
        try:
            place = _place(what)
            listed = listings.get(place) if place is not None else None
            if isinstance(listed, Error):
                raise listed
            if isinstance(what, Pattern):
                vms = [one.vm for one in listed or () if what.matches(one)]
                if not vms:
                    raise nothing_meant(what, listed or ())
            else:
                vm = self._found.get(what) or self._named(what, listed or ())
                if vm is None and not entry.asked:
                    vm = self.endpoints.at(Place.of(what)).connected().find(what.name)
                vms = [vm] if vm is not None else []
            entry.vms = frozenset((place, vm.id) for vm in vms)
        except Error as error:
            entry.error = error

    def _members(
        self, written: str, what: Target | Pattern, listings: Mapping[Place, Sequence[Listed] | Error]
    ) -> Iterable[Member]:
        try:
            place = Place.of(what) if isinstance(what, Target) else Place(what.backend, what.profile)
            endpoint = self.endpoints.at(place)
            listed = listings.get(place)
            if isinstance(listed, Error):
                raise listed
            if isinstance(what, Target):
                vm = self._found.get(what) or self._named(what, listed or ())
                return [self._member(written, what, endpoint, vm)]
            found = [one for one in listed or () if what.matches(one)]
            if not found:
                raise nothing_meant(what, listed or ())
        except Error as error:
            return [Member(printable(written, 300), error=error, told=self._told_of_all(what))]
        return [
            self._member(written, Target(place.backend, one.name, place.profile), endpoint, one.vm)
            for one in found
        ]

    def _named(self, target: Target, listed: Sequence[Listed]) -> Vm | None:
        """The one that is surely meant; None leaves it to the backend's own ``find``, which says why."""
        place = Place.of(target)
        if place not in self._names:
            names: dict[str, set[Vm]] = {}
            for one in listed:
                for name in (one.name, one.vm.name, one.vm.id):
                    names.setdefault(name, set()).add(one.vm)
            self._names[place] = names
        found = self._names[place].get(target.name, set())
        return next(iter(found)) if len(found) == 1 else None

    def _told_of_all(self, what: Target | Pattern) -> dict[str, Mapping[str, str]]:
        """What the file says of a name; of a pattern, also of all that it may mean."""
        if isinstance(what, Target):  # there may be a table for each of ten thousand that fail
            told = self._told.of({str(what)}, None)
            return {str(what): told} if told else {}
        return {str(e.what): e.told for e in self._entries if _place(e.what) == _place(what)}

    def _member(self, written: str, target: Target, endpoint: Endpoint, vm: Vm | None) -> Member:
        name = vm.name if vm is not None else target.name
        at = (endpoint.place, vm.id) if vm is not None else None
        told = self._told.of({written, str(target)}, at)
        told = {key: value.replace("{name}", name) for key, value in told.items()}
        ssh, config, node = (told.get(key) for key in ("ssh", "ssh_config", "node"))
        return Member(str(target), target, endpoint, vm, ssh=ssh, ssh_config=config, node=node)

    def _find_few(self, asked: Sequence[Target], listings: Mapping[Place, Sequence[Listed] | Error]) -> None:
        """Those of which there are few at an endpoint, so that two names of one VM are known to be that."""
        at: dict[Place, list[Target]] = {}
        for target in asked:
            with contextlib.suppress(Error):  # its row will say so
                at.setdefault(Place.of(target), []).append(target)
        several = [found for place, found in at.items() if place not in listings and 1 < len(found) <= FEW]

        def find(targets: Sequence[Target]) -> None:
            for target in targets:
                with contextlib.suppress(Error):  # found, or not, once more when it is its turn
                    self._found[target] = ready[target].connected().find(target.name)

        ready: dict[Target, Endpoint] = {}
        for target in [target for targets in several for target in targets]:
            with contextlib.suppress(Error):
                ready[target] = self.endpoints.at(Place.of(target))
        answers(find, [[t for t in targets if t in ready] for targets in several])

    def _listings(
        self, asked: Sequence[Target | Pattern], beside: Sequence[Target | Pattern]
    ) -> dict[Place, Sequence[Listed] | Error]:
        """Every endpoint that a pattern, or many names, lead to, is asked once; all of them at once.

        A listing that only the file's entries beside those that are asked for need fails none of these.
        """
        needed = _many([*asked, *beside])
        results: dict[Place, Sequence[Listed] | Error] = {}
        pending: list[tuple[Place, Endpoint]] = []
        for place in needed:
            try:
                pending.append((place, self.endpoints.at(place)))
            except Error as error:
                results[place] = error
        told = answers(lambda each: listing_of(each[1]), pending)
        patterns = {_place(what) for what in asked if isinstance(what, Pattern)}
        own = _many(asked)
        for (place, _), answer in zip(pending, told, strict=True):
            apart = isinstance(answer, TargetError) or place not in own
            if place in patterns or not isinstance(answer, Error) or not apart:
                results[place] = answer
        return results


def _many(wanted: Iterable[Target | Pattern]) -> list[Place]:
    """Where there is so much to be found that a listing is cheaper."""
    counts: dict[Place, int] = {}
    for what in wanted:
        place = _place(what)
        if place is not None and not place.name:
            counts[place] = counts.get(place, 0) + (FEW + 1 if isinstance(what, Pattern) else 1)
    return [place for place, count in counts.items() if count > FEW]


def _place(what: Target | Pattern) -> Place | None:
    """Where it is; None where that backend cannot even be loaded, which its row will say."""
    if isinstance(what, Pattern):
        return Place(what.backend, what.profile)
    try:
        return Place.of(what)
    except Error:
        return None


def meaning(name: str | Target) -> Target | Pattern:
    """What a name says; a file's, or folder's, holds wherever nestvirt is run next."""
    what = parse(name) if isinstance(name, str) else name
    if isinstance(what, Target) and what.backend == "vmx":
        from nestvirt.backends.workstation.vmfile import target_name as vmx_name

        return replace(what, name=vmx_name(what.name))
    if isinstance(what, Target) and what.backend == "vagrant":
        from nestvirt.backends.vagrant.project import folder_and_machine, target_name

        folder, machine = folder_and_machine(what.name)
        return replace(what, name=target_name(str(folder), machine))
    return what


def listing_of(endpoint: Endpoint) -> Sequence[Listed] | Error:
    """All VMs of an endpoint; or why they cannot be told."""
    try:
        backend = endpoint.connected()
        if not isinstance(backend, Listing):
            raise TargetError(
                f"{endpoint.place.backend} cannot list its {backend.kind.thing}s",
                evidence="each is found by its name only",
                cure=f"name them one by one: {endpoint.place}:NAME",
            )
        return list(backend.listed())
    except Error as error:
        return error


def nothing_meant(what: Target | Pattern, listed: Sequence[Listed]) -> TargetError:
    """Why a name is none of an endpoint's VMs."""
    known = ", ".join(one.vm.name for one in listed[:20]) or "no VM"
    return TargetError(
        f"no VM is meant by {printable(str(what), 200)!r}",
        evidence=printable(f"there are {len(listed)}: {known}", 600),
        cure="nestvirt list shows all of them",
    )


def _once(members: Iterable[Member]) -> Iterable[Member]:
    seen: set[tuple[object, ...]] = set()
    for member in members:
        endpoint = member.endpoint.place if member.endpoint else None
        key = (endpoint, member.vm.id if member.vm is not None else member.written)
        if key not in seen:
            seen.add(key)
            yield member
