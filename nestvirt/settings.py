"""Where a hypervisor is, and with what it is opened: options, environment, and the configuration file.

Order: an option > a profile asked for by name > NESTVIRT_* > the ecosystem's own variable > the file's
``[defaults.BACKEND]`` > the built-in default. Which source won can be shown; a value never is.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nestvirt.errors import SettingsError


@dataclass(frozen=True)
class Setting:
    """One setting that a backend can be given.

    Attributes:
        variables: environment variables in order of precedence.
        default: the built-in value; None where there is none.
    """

    name: str
    variables: tuple[str, ...]
    default: str | None = None


SETTINGS: dict[str, tuple[Setting, ...]] = {
    # LIBVIRT_DEFAULT_URI is libvirt's own name for it (https://libvirt.org/uri.html).
    "libvirt": (Setting("uri", ("NESTVIRT_LIBVIRT_URI", "LIBVIRT_DEFAULT_URI"), "qemu:///system"),),
}


@dataclass(frozen=True)
class Endpoint:
    """Resolved settings of one backend.

    Attributes:
        values: setting name to value.
        sources: setting name to where the value came from, for people.
    """

    values: Mapping[str, str]
    sources: Mapping[str, str]


def config_path() -> Path:
    """The configuration file: NESTVIRT_CONFIG, or config.toml in the user's configuration folder."""
    named = os.environ.get("NESTVIRT_CONFIG")
    if named:
        return Path(named)
    return _user_folder("config", "NESTVIRT_CONFIG") / "config.toml"


def state_path() -> Path:
    """Where journals and locks are kept: NESTVIRT_STATE_DIR, or the user's state folder."""
    named = os.environ.get("NESTVIRT_STATE_DIR")
    if named:
        return Path(named)
    return _user_folder("state", "NESTVIRT_STATE_DIR")


def _user_folder(kind: Literal["config", "state"], variable: str) -> Path:
    import platformdirs  # when used, to keep start-up quick

    find = {"config": platformdirs.user_config_path, "state": platformdirs.user_state_path}[kind]
    try:
        return find("nestvirt")
    except RuntimeError as error:  # from Path.home(), where neither HOME nor the user database knows one
        cure = f"set HOME or {variable}"
        raise SettingsError("this user has no home folder", evidence=str(error), cure=cure) from error


def resolve(backend: str, profile: str | None, options: Mapping[str, str | None]) -> Endpoint:
    """Find a backend's settings.

    Args:
        backend: its name in SETTINGS.
        profile: a ``[profiles.NAME]`` table of the file, where the user asked for one.
        options: values given on the command line, by setting name; None for not given.

    Raises:
        SettingsError: the file cannot be read or used, or the profile is not there or not of this backend.
    """
    file = _read_config()
    unknown = set(file) - {"profiles", "defaults"}
    if unknown:
        raise SettingsError(
            f"the configuration file has what nestvirt does not know: {', '.join(sorted(unknown))}",
            evidence=f"{config_path()} may have [profiles.NAME] and [defaults.BACKEND]",
            cure="remove or rename it",
        )
    asked = _profile(file, profile, backend) if profile else {}
    _check_defaults(_table(file, "defaults"))
    defaults = _table(_table(file, "defaults"), backend)
    values: dict[str, str] = {}
    sources: dict[str, str] = {}
    for setting in SETTINGS[backend]:
        candidates = [
            (options.get(setting.name), f"option --{'connect' if setting.name == 'uri' else setting.name}"),
            (asked.get(setting.name), f"profile {profile} in {config_path()}"),
            *((os.environ.get(variable), variable) for variable in setting.variables),
            (defaults.get(setting.name), f"[defaults.{backend}] in {config_path()}"),
            (setting.default, "the built-in default"),
        ]
        for value, source in candidates:
            if not isinstance(value, str | None):
                raise SettingsError(
                    f"{setting.name} has to be text",
                    evidence=f"in {source} it is a {type(value).__name__}",
                    cure="write it in quotes",
                )
            if value:
                values[setting.name], sources[setting.name] = value, source
                break
    return Endpoint(values, sources)


def _read_config() -> dict[str, object]:
    path = config_path()
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if os.environ.get("NESTVIRT_CONFIG"):
            cure = "correct or unset NESTVIRT_CONFIG"
            raise SettingsError("NESTVIRT_CONFIG names no file", evidence=str(error), cure=cure) from error
        return {}
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"the configuration file {path} cannot be read",
            evidence=str(error),
            cure="mend or remove that file",
        ) from error


def _profile(file: dict[str, object], name: str, backend: str) -> dict[str, object]:
    profiles = _table(file, "profiles")
    if name not in profiles:
        raise SettingsError(
            f"there is no profile {name!r}",
            evidence=f"{config_path()} has: {', '.join(sorted(profiles)) or 'none'}",
            cure=f'add a table [profiles.{name}] with backend = "{backend}"',
        )
    profile = _table(profiles, name)
    if profile.get("backend") != backend:
        raise SettingsError(
            f"profile {name!r} is not one of {backend}",
            evidence=f"its backend is {profile.get('backend')!r}",
            cure=f"name a profile whose backend is {backend!r}",
        )
    _refuse_unknown(f"profile {name!r}", set(profile) - {"backend"}, backend)
    return profile


def _check_defaults(tables: dict[str, object]) -> None:
    for name in tables:
        if name not in SETTINGS:
            raise SettingsError(
                f"[defaults] has what is no backend: {name}",
                evidence=f"backends: {', '.join(sorted(SETTINGS))}",
                cure=f"remove or rename it in {config_path()}",
            )
        _refuse_unknown(f"[defaults.{name}]", set(_table(tables, name)), name)


def _refuse_unknown(where: str, given: set[str], backend: str) -> None:
    unknown = given - {s.name for s in SETTINGS[backend]}
    if unknown:
        raise SettingsError(
            f"{where} has settings that {backend} does not know: {', '.join(sorted(unknown))}",
            evidence=f"{backend} knows: {', '.join(s.name for s in SETTINGS[backend])}",
            cure="remove or rename them",
        )


def _table(parent: dict[str, object], name: str) -> dict[str, object]:
    table = parent.get(name, {})
    if not isinstance(table, dict):
        raise SettingsError(
            f"{name} in the configuration file is not a table",
            evidence=str(config_path()),
            cure=f"write it as [{name}]",
        )
    return table
