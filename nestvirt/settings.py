"""Where a hypervisor is, and with what it is opened: options, environment, file, and keyring.

Order: an option > a profile asked for by name > NESTVIRT_* > the ecosystem's own variable > the file's
``[defaults.BACKEND]`` > the built-in default > for secrets, the keyring. Which source won can be shown; a
value never is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import unquote

from nestvirt import configfile
from nestvirt.configfile import ConfigFile
from nestvirt.errors import SettingsError
from nestvirt.settings_table import CREDENTIALS as CREDENTIALS
from nestvirt.settings_table import ENCRYPTING, GUEST_CREDENTIALS, WITHOUT_PASSWORD
from nestvirt.settings_table import SETTINGS as SETTINGS
from nestvirt.settings_table import Setting as Setting

KEYRING = "nestvirt"
"""The service under which the keyring holds secrets, for users such as ``proxmox:api_token``."""

RECORD = "the run's record"

SECRETS = sorted({s.name for known in SETTINGS.values() for s in known if s.secret})

_SCHEME = re.compile(r"([A-Za-z]+://)?(.*)", re.DOTALL)
_BOOLEANS = dict.fromkeys(("1", "true", "yes"), "true") | dict.fromkeys(("0", "false", "no"), "false")


@dataclass(frozen=True)
class Endpoint:
    """Resolved settings of one backend.

    Attributes:
        values: setting name to value, secrets too: for the backend alone, and never shown.
        sources: setting name to where the value came from, for people.
    """

    values: Mapping[str, str] = field(repr=False)
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


def resolve(
    backend: str,
    profile: str | None,
    options: Mapping[str, str | None],
    recorded: Mapping[str, str] | None = None,
) -> Endpoint:
    """Find a backend's settings.

    Args:
        backend: its name in SETTINGS.
        profile: a ``[profiles.NAME]`` table of the file, where the user asked for one.
        options: values given on the command line, by setting name; None for not given.
        recorded: what an earlier run was connected with, to connect to the same again. Only the options
            are above it. It has no secrets: where the backend knows any, they are looked for as ever; for
            another backend nothing else is asked, so that its profile need not be there any more.

    Returns:
        What was found. Of several credentials there are those of the first source that has any, and of
        one source the first of CREDENTIALS. A flag is "true", or not there.

    Raises:
        SettingsError: the file cannot be read or used, or the profile is not there or not of this backend.
    """
    known = SETTINGS.get(backend, ())
    layers: list[_Layer] = [
        {s.name: (options.get(s.name), f"option --{s.option}") for s in known},
        {name: (value, RECORD) for name, value in (recorded or {}).items()},
    ]
    if recorded is None or any(setting.secret for setting in known):
        layers += _asked_and_set(backend, profile, layers)
    layers = _userinfo_apart(known, layers)
    found = _first_of_each(known, layers)
    _settle_flags(known, found)
    _settle_trust(found)
    found |= _from_keyring(backend, profile, found, len(layers))
    _settle_credentials(backend, found)
    _refuse_another_place(found, layers)
    return Endpoint({n: f.value for n, f in found.items()}, {n: f.source for n, f in found.items()})


def lacks_password(backend: str, values: Mapping[str, str]) -> bool:
    """True where only a password is missing, so that its user could be asked for it."""
    secrets = _own_secrets(backend)
    asked = "password" in secrets and "username" in values and _keeps_secrets(backend, values)
    return asked and not secrets & set(values) and values.get("transport", "").lower() not in WITHOUT_PASSWORD


def _own_secrets(backend: str) -> set[str]:
    """Those that say who one is to the hypervisor."""
    ways = {name for way in CREDENTIALS.get(backend, ()) for name in way}
    return {s.name for s in SETTINGS.get(backend, ()) if s.secret} & ways


def unverified(values: Mapping[str, str]) -> bool:
    """True where there is a server's certificate, and nothing that it is verified by."""
    pinned = "fingerprint" in values
    plain = "plain_http" in values
    return "insecure" in values and not (pinned or plain) and _over_https(values.get("endpoint", ""))


class _Found(NamedTuple):
    value: str
    source: str
    rank: int


_Layer = Mapping[str, tuple[object, str]]
"""What one source has: setting name to value and the source's name, for people."""


def _asked_and_set(backend: str, profile: str | None, above: Iterable[_Layer]) -> list[_Layer]:
    """The sources from the profile down to the built-in defaults, in order."""
    file = configfile.read(config_path(), required=bool(os.environ.get("NESTVIRT_CONFIG")))
    unknown = set(file.tables) - {"profiles", "defaults"}
    if unknown:
        raise SettingsError(
            f"the configuration file has what nestvirt does not know: {', '.join(sorted(unknown))}",
            evidence=f"{file.path} may have [profiles.NAME] and [defaults.BACKEND]",
            cure="remove or rename it",
        )
    asked = _profile(file, profile, backend) if profile else {}
    _check_defaults(file)
    file.refuse_shared_secrets(SECRETS)
    known, defaults = SETTINGS[backend], file.table("defaults", backend)
    ours: list[_Layer] = [
        {name: (value, f"profile {profile} in {file.path}") for name, value in asked.items()},
        {s.name: _variable(s.variables, ours=True) for s in known},
    ]
    return [
        *ours,
        _others(known, [*above, *ours]),
        {name: (value, f"[defaults.{backend}] in {file.path}") for name, value in defaults.items()},
        {s.name: (s.default, "the built-in default") for s in known},
    ]


def _others(known: tuple[Setting, ...], above: Iterable[_Layer]) -> _Layer:
    """What other programs have set for the address that counts, so that no secret goes to another server.

    That is all of the first one that names this address, or any address where none is named above; where
    there is no such program, it is what those have set that name none. What is set for another address than
    a record's is kept, to be refused with a word. Programs whose names begin alike are one.
    """
    address, families = known[0], {_family(name) for name in known[0].variables} - {""}
    own, elsewhere = [], set()
    if len(families) > 1:
        said = [layer.get(address.name, ("", "")) for layer in above]
        place, source = next(((str(value), source) for value, source in said if value), ("", ""))
        named = [name for name in address.variables if os.environ.get(name) and _family(name)]
        own = [n for n in named if not place or _same_place(os.environ[n]) == _same_place(place)]
        own = (own or (named if source == RECORD else []))[:1]
        elsewhere = {_family(name) for name in named}
    count = {_family(name) for name in own} or families - elsewhere
    return {s.name: _variable([v for v in s.variables if _family(v) in count], ours=False) for s in known}


def _family(variable: str) -> str:
    family = variable.partition("_")[0]
    return "" if family == "NESTVIRT" else family


def _userinfo_apart(known: tuple[Setting, ...], layers: list[_Layer]) -> list[_Layer]:
    """Take ``user:password@`` out of the addresses; it counts where its own address does.

    Raises:
        SettingsError: there is a password in a place that others can read.
    """
    if not known or not known[0].userinfo:
        return layers
    name, done, chosen = known[0].name, [], ""
    for layer in layers:
        value, source = layer.get(name, ("", ""))
        scheme, rest = _SCHEME.fullmatch(str(value or "")).groups()  # type: ignore[union-attr]
        info, _, place = rest.rpartition("@")
        user, _, password = info.partition(":")
        if password and source not in known[0].variables:
            cure = "leave it out there, and set it in a variable or the keyring"
            raise SettingsError(
                f"the {name} has a password in it", evidence=f"it is from {source}", cure=cure
            )
        chosen = chosen or place
        told = {"username": (unquote(user), source), "password": (unquote(password), source)}
        counts = {n: of for n, of in told.items() if of[0] and not layer.get(n, ("", ""))[0]}
        own = counts if _same_place(place) == _same_place(chosen) else {}
        done.append({**layer, name: (f"{scheme or ''}{place}", source), **own} if info else layer)
    return done


def _variable(names: Iterable[str], *, ours: bool) -> tuple[str, str]:
    """The first variable that is set, of ours or of the others: its value, and its name."""
    for name in names:
        if name.startswith("NESTVIRT_") is ours and os.environ.get(name):
            return os.environ[name], name
    return "", ""


def _first_of_each(known: Iterable[Setting], layers: Iterable[_Layer]) -> dict[str, _Found]:
    found: dict[str, _Found] = {}
    for setting in known:
        for rank, layer in enumerate(layers):
            value, source = layer.get(setting.name, ("", ""))
            text = _text(setting, value, source)
            if text:
                found[setting.name] = _Found(text, source, rank)
                break
    return found


def _text(setting: Setting, value: object, source: str) -> str:
    """A value as text, a flag as "true" or "false", a path absolute; empty where there is none."""
    if type(value) in (bool, int) and type(value) is setting.kind:
        return str(value).lower()
    if not isinstance(value, str | None):
        seen, cure = f"in {source} it is a {type(value).__name__}", "write it in quotes"
    elif value and setting.kind is Path:
        paths = value.split(os.pathsep) if setting.several else [value]
        # os.path leaves an unknown ~user as it is
        return os.pathsep.join(str(Path(os.path.expanduser(p)).absolute()) for p in paths if p)  # noqa: PTH111
    elif not value or setting.kind is not bool:
        return (value or "").strip() if setting.secret else value or ""  # a file's line end is no secret
    elif value.lower() in _BOOLEANS:
        return _BOOLEANS[value.lower()]
    else:
        seen, cure = f"in {source} it is neither 1, true, yes nor 0, false, no", "say true or false there"
    wanted = {str: "text", int: "a number", bool: "true or false", Path: "text"}[setting.kind]
    raise SettingsError(f"{setting.name} has to be {wanted}", evidence=seen, cure=cure)


def _settle_flags(known: Iterable[Setting], found: dict[str, _Found]) -> None:
    """Turn an opposite into what it negates, unless that was said first; a flag that is off is none."""
    flags = [setting for setting in known if setting.kind is bool]
    for setting in flags:
        if setting.negates is not None and setting.name in found:
            said, other = found.pop(setting.name), found.get(setting.negates)
            if other is None or said.rank < other.rank:
                found[setting.negates] = said._replace(value="false" if said.value == "true" else "true")
    for setting in flags:
        if setting.name in found and found[setting.name].value == "false":
            del found[setting.name]


def _settle_trust(found: dict[str, _Found]) -> None:
    """What the certificate is verified by counts, where it was said above an insecure of lesser rank."""
    trusted = [found[name].rank for name in ("fingerprint", "ca_file") if name in found]
    if trusted and "insecure" in found and min(trusted) < found["insecure"].rank:
        del found["insecure"]


def _refuse_another_place(found: Mapping[str, _Found], layers: list[_Layer]) -> None:
    """A secret is for the address that it was set beside, and is not sent to the one in a record."""
    place = found.get("endpoint")
    if place is None or place.source != RECORD:
        return
    for secret in [name for name in SECRETS if name in found and found[name].rank < len(layers)]:
        other, source = layers[found[secret].rank].get("endpoint", ("", ""))
        if other and _same_place(str(other)) != _same_place(place.value):
            raise SettingsError(
                f"the run was made at {place.value}, and the {secret} is for another address",
                evidence=f"{source} says {other}, and the {secret} is from {found[secret].source}",
                cure=f"say where to undo it: --connect {place.value}, or --connect {other}",
            )


def _same_place(endpoint: str) -> str:
    scheme, separator, rest = endpoint.lower().rstrip("/").partition("://")
    host = (rest if separator else scheme).rpartition("@")[2].removesuffix("/sdk")
    return re.sub(":(8006|443|598[56])$", "", host.removesuffix("/wsman"))


def _settle_credentials(backend: str, found: dict[str, _Found]) -> None:
    """Keep one complete way to say who one is. Where none is complete, the backend says what is missing."""
    secrets = {setting.name for setting in SETTINGS.get(backend, ()) if setting.secret}
    ways = CREDENTIALS.get(backend, ())
    complete = [way for way in ways if set(way) <= set(found)]
    if complete:
        # What is no secret may be from anywhere: a token's name from a profile, its secret from a variable.
        best = min(complete, key=lambda way: min(found[name].rank for name in way if name in secrets))
        for name in {name for way in ways for name in way if name not in best} & set(found):
            del found[name]


def _from_keyring(
    backend: str, profile: str | None, found: Mapping[str, _Found], rank: int
) -> dict[str, _Found]:
    """What is missing and in the user's keyring, where the hypervisor's address asks for it.

    That is the first secret of one's own, and the password in guests of a user who is named.
    """
    wanted = [way[0] for way in CREDENTIALS.get(backend, ()) if len(way) == 1]
    wanted = [] if _own_secrets(backend) & set(found) else wanted
    guest_user, guest_password = GUEST_CREDENTIALS.get(backend, ("", ""))
    inside = [guest_password] if guest_user in found and guest_password not in found else []
    values = {name: of.value for name, of in found.items()}
    wanted = [] if values.get("transport", "").lower() in WITHOUT_PASSWORD else wanted
    if not (wanted or inside) or not _keeps_secrets(backend, values):
        return {}
    import keyring  # when asked, as it is slow to start
    import keyring.errors

    account = f"{backend}@{profile}" if profile else backend
    held: dict[str, _Found] = {}
    for name in [n for n in wanted if n != "password" or "username" in found] + inside:
        if name in inside or not held:
            try:
                value = keyring.get_password(KEYRING, f"{account}:{name}")
            except (keyring.errors.KeyringError, ImportError, AttributeError, RuntimeError, OSError):
                return {}  # locked, broken, or there is none on this machine
            if value:
                held[name] = _Found(value, "the keyring", rank)
    return held


def _keeps_secrets(backend: str, values: Mapping[str, str]) -> bool:
    """Whether there is an address, to which no secret goes in the clear."""
    place = values.get("endpoint", "")
    return _over_https(place) or (bool(place) and backend in ENCRYPTING)


def _over_https(endpoint: str) -> bool:
    """Whether secrets are sent there; a mere host's name is one of HTTPS."""
    scheme, separator, _ = endpoint.lower().partition("://")
    return scheme == "https" if separator else scheme not in ("", "local")


def _profile(file: ConfigFile, name: str, backend: str) -> dict[str, object]:
    profiles = file.table("profiles")
    if name not in profiles:
        raise SettingsError(
            f"there is no profile {name!r}",
            evidence=f"{file.path} has: {', '.join(sorted(profiles)) or 'none'}",
            cure=f'add a table [profiles.{name}] with backend = "{backend}"',
        )
    profile = file.table("profiles", name)
    if profile.get("backend") != backend:
        raise SettingsError(
            f"profile {name!r} is not one of {backend}",
            evidence=f"its backend is {profile.get('backend')!r}",
            cure=f"name a profile whose backend is {backend!r}",
        )
    del profile["backend"]
    _refuse_unknown(f"profile {name!r}", set(profile), backend)
    return profile


def _check_defaults(file: ConfigFile) -> None:
    for name in file.table("defaults"):
        if name not in SETTINGS:
            raise SettingsError(
                f"[defaults] has what is no backend: {name}",
                evidence=f"backends: {', '.join(sorted(SETTINGS))}",
                cure=f"remove or rename it in {file.path}",
            )
        _refuse_unknown(f"[defaults.{name}]", set(file.table("defaults", name)), name)


def _refuse_unknown(where: str, given: set[str], backend: str) -> None:
    unknown = given - {s.name for s in SETTINGS[backend]}
    if unknown:
        raise SettingsError(
            f"{where} has settings that {backend} does not know: {', '.join(sorted(unknown))}",
            evidence=f"{backend} knows: {', '.join(s.name for s in SETTINGS[backend])}",
            cure="remove or rename them",
        )
