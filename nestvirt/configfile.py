"""The configuration file: TOML that its user alone may read, once there is a secret in it."""

from __future__ import annotations

import os
import re
import shlex
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from nestvirt.errors import SettingsError


@dataclass(frozen=True)
class ConfigFile:
    """What the file says.

    Attributes:
        tables: its content; never shown, as there may be secrets in it.
        mode: its permission bits.
    """

    path: Path
    tables: Mapping[str, object]
    mode: int

    def table(self, *names: str) -> dict[str, object]:
        """The table ``[name.name]``, empty where it is not there.

        Raises:
            SettingsError: something else is in its place.
        """
        found: object = self.tables
        for name in names:
            found = found.get(name, {}) if isinstance(found, Mapping) else found
            if not isinstance(found, dict):
                raise SettingsError(
                    f"{name} in the configuration file is not a table",
                    evidence=str(self.path),
                    cure=f"write it as [{name}]",
                )
        return dict(found) if isinstance(found, Mapping) else {}

    def refuse_shared_secrets(self, secrets: Collection[str]) -> None:
        """As ssh does with keys: no secret in a file that others may read.

        Args:
            secrets: the settings that are secret, in whatever profile or defaults they are.

        Raises:
            SettingsError: there is one in it, and the file's group or others may read it.
        """
        kept = [name for kind in ("profiles", "defaults") for name in self.table(kind).values()]
        held = {key for table in kept if isinstance(table, dict) for key in table} & set(secrets)
        if held and self.mode & 0o044:
            raise SettingsError(
                "the configuration file holds a secret, and others may read it",
                evidence=f"{self.path} has {', '.join(sorted(held))}, and its mode is {self.mode:04o}",
                cure=f"chmod 600 {shlex.quote(str(self.path))}",
            )


def read(path: Path, *, required: bool) -> ConfigFile:
    """Read the file; an empty one where it is not there and need not be.

    Raises:
        SettingsError: it cannot be read, or is no TOML; its text is never quoted.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            return ConfigFile(path, tomllib.loads(file.read().decode()), mode)
    except FileNotFoundError as error:
        if required:
            cure = "correct or unset NESTVIRT_CONFIG"
            raise SettingsError("NESTVIRT_CONFIG names no file", evidence=str(error), cure=cure) from error
        return ConfigFile(path, {}, 0)
    except OSError as error:
        raise _unreadable(path, str(error)) from error
    except UnicodeDecodeError:
        raise _unreadable(path, "it is no UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        # What tomllib says may quote the file, and so may its error in a traceback.
        place = re.search(r"\((at [a-z\d, ]+)\)$", str(error))
        raise _unreadable(path, f"it is no TOML {place[1] if place else ''}".rstrip()) from None


def _unreadable(path: Path, seen: str) -> SettingsError:
    return SettingsError(
        f"the configuration file {path} cannot be read", evidence=seen, cure="mend or remove that file"
    )
