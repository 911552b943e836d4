"""The fleet file: groups of VMs in TOML, and what is to be known of single ones."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nestvirt.errors import SettingsError

OF_A_TARGET = ("ssh", "ssh_config", "node")
_TABLES = ("groups", "targets")
_FIELD = re.compile(r"\{(?!name\})[^}]*\}?")
"""A word in braces that nothing is put in for."""
_EXAMPLE = '[groups.workers] with targets = ["libvirt:web-01", "proxmox@lab: tag=k8s-worker"]'


@dataclass(frozen=True)
class FleetFile:
    """What a fleet file says.

    Attributes:
        groups: group to the names in it, those of its own groups too, in the file's order.
        details: a target, or pattern, as it is written, to its ``ssh``, ``ssh_config`` and ``node``.
    """

    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    details: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def chosen(self, groups: Collection[str]) -> tuple[str, ...]:
        """What those groups name, each once; all groups where none is asked for.

        Raises:
            SettingsError: there is no such group.
        """
        missing = [name for name in groups if name not in self.groups]
        if missing:
            raise SettingsError(
                f"the fleet file has no group {missing[0]!r}",
                evidence=f"it has: {', '.join(self.groups) or 'none'}",
                cure="name one of these with --group, or leave it out for all",
            )
        wanted = groups or self.groups
        return tuple(dict.fromkeys(written for name in wanted for written in self.groups[name]))


def read(path: Path) -> FleetFile:
    """Read it whole, and find what is wrong in it before anything is done.

    Raises:
        SettingsError: it cannot be read, is no TOML, or says what is not understood.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _wrong(path, f"{type(error).__name__}: {error}", "correct it, or name another one") from error
    unknown = set(tables) - set(_TABLES)
    if unknown:
        raise _wrong(path, f"it has {', '.join(sorted(unknown))}", f"it may have {_EXAMPLE}")
    groups = _named_tables(path, tables, "groups")
    for name, group in groups.items():
        if set(group) - {"targets", "groups"}:
            evidence = f"[groups.{name}] has {', '.join(sorted(set(group) - {'targets', 'groups'}))}"
            raise _wrong(path, evidence, "a group has targets = […] and groups = […]")
    details = _named_tables(path, tables, "targets")
    for name, table in details.items():
        wrong = [key for key, value in table.items() if key not in OF_A_TARGET or not _is_word(value)]
        if wrong:
            cure = f"a target may have {', '.join(OF_A_TARGET)}, each a text"
            raise _wrong(path, f'[targets."{name}"] has {", ".join(wrong)}', cure)
        for key, value in table.items():
            if unfilled := _FIELD.search(str(value)):
                evidence = f'{key} of [targets."{name}"] has {unfilled[0]}'
                raise _wrong(
                    path, evidence, "{name} stands for the VM's name, and no other word is filled in"
                )
    resolved = {name: tuple(dict.fromkeys(_resolved(path, groups, name, ()))) for name in groups}
    if not groups:
        resolved = {"all": tuple(details)}
    base = path.absolute().parent
    told = {name: _placed(base, {k: str(v) for k, v in table.items()}) for name, table in details.items()}
    return FleetFile(resolved, told)


def _placed(base: Path, table: dict[str, str]) -> dict[str, str]:
    """A file that is named counts from the fleet file's own folder."""
    if "ssh_config" in table:
        table["ssh_config"] = str(base / Path(table["ssh_config"]).expanduser())
    return table


def _named_tables(path: Path, tables: Mapping[str, object], kind: str) -> dict[str, dict[str, object]]:
    found = tables.get(kind, {})
    if not isinstance(found, dict) or not all(isinstance(table, dict) for table in found.values()):
        raise _wrong(path, f"{kind} is no table of tables", f"write it as {_EXAMPLE}")
    return found


def _resolved(
    path: Path, groups: Mapping[str, Mapping[str, object]], name: str, above: tuple[str, ...]
) -> Iterable[str]:
    if name not in groups:
        raise _wrong(path, f"[groups.{above[-1]}] names the group {name!r}, which is not there", "add it")
    if name in above:
        raise _wrong(path, f"the group {name!r} is in itself: {' > '.join((*above, name))}", "take it out")
    for key in ("targets", "groups"):
        words = groups[name].get(key, [])
        if not isinstance(words, list) or not all(_is_word(word) for word in words):
            raise _wrong(path, f"{key} of [groups.{name}] is no list of texts", f"as in {_EXAMPLE}")
        for word in words:
            if key == "targets":
                yield str(word)
            else:
                yield from _resolved(path, groups, str(word), (*above, name))


def _is_word(value: object) -> bool:
    return isinstance(value, str) and bool(re.search(r"\S", value))


def _wrong(path: Path, evidence: str, cure: str) -> SettingsError:
    return SettingsError(f"the fleet file {path} cannot be used", evidence=evidence, cure=cure)
