"""Which line decides a module's parameter at the next load: modprobe.d and the kernel's command line. Pure.

Order (modprobe.d(5), libkmod): the files of all folders together by their names, where a name in an earlier
folder hides the same in a later one; then the kernel's command line. The last word counts. An ``install``
line stands in place of all of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

FOLDERS = (
    "/etc/modprobe.d",
    "/run/modprobe.d",
    "/usr/local/lib/modprobe.d",
    "/usr/lib/modprobe.d",
    "/lib/modprobe.d",
)
"""Where modprobe looks, in order of precedence."""

COMMAND_LINE = "/proc/cmdline"


@dataclass(frozen=True)
class Word:
    """One place that sets the parameter.

    Attributes:
        path: the file, or /proc/cmdline.
        line: its number in the file; 0 on the command line.
        value: as it is written, such as 1, N or off; empty where there is only the name.
        integer: whether the parameter is an int; else it is a bool.
    """

    path: str
    line: int
    value: str
    integer: bool = False

    @property
    def on(self) -> bool | None:
        """What the kernel takes the value for; None where it refuses it, and with it to load the module.

        A bool is read by kstrtobool (lib/kstrtox.c), and one without a value is on; an int by kstrtoint.
        """
        if self.integer:
            try:
                return int(self.value, 0) != 0
            except ValueError:
                return None
        start, second = self.value[:1].lower(), self.value[1:2].lower()
        if start in ("", "y", "1", "t") or (start == "o" and second == "n"):
            return True
        return False if start in ("n", "0", "f") or (start == "o" and second == "f") else None

    def __str__(self) -> str:
        return f"{self.path}:{self.line}" if self.line else f"the kernel's command line ({self.path})"


def in_order(paths: Mapping[str, str]) -> list[str]:
    """The files that count, in the order in which modprobe reads them."""
    chosen: dict[str, str] = {}
    for folder in FOLDERS:
        for path in paths:
            directory, _, name = path.rpartition("/")
            if directory == folder:
                chosen.setdefault(name, path)
    return [chosen[name] for name in sorted(chosen)]


def words(
    files: Mapping[str, str], cmdline: str, module: str, parameter: str, *, integer: bool = False
) -> list[Word]:
    """Every place that sets a module's parameter, the one that decides last.

    Args:
        files: path to text of all files in the folders.
        cmdline: the kernel's command line.
        module: with underscores, such as kvm_amd.
        parameter: its name.
        integer: whether the parameter is an int.
    """
    found = [
        Word(path, number, value, integer)
        for path, number, fields in _directives(files, "options", module)
        for value in _values(fields, parameter)
    ]
    setting = re.compile(rf"{module.replace('_', '[-_]')}\.{parameter}(?:=(?P<value>.*))?")
    for word in re.findall(r'(?:[^\s"]|"[^"]*")+', cmdline):  # kernel/params.c: only " quotes
        match = setting.fullmatch(word.replace('"', ""))
        if match:
            found.append(Word(COMMAND_LINE, 0, match["value"] or "", integer))
    return found


def install_lines(files: Mapping[str, str], module: str) -> list[str]:
    """Where an ``install`` line says how the module is loaded: ``path:line``."""
    return [f"{path}:{number}" for path, number, _ in _directives(files, "install", module)]


def blacklist_lines(files: Mapping[str, str], module: str) -> list[str]:
    """Where a ``blacklist`` line keeps it from being loaded by itself, as at a boot: ``path:line``."""
    return [f"{path}:{number}" for path, number, _ in _directives(files, "blacklist", module)]


def file_after(files: Mapping[str, str], words_set: list[Word], name: str, mark: str) -> str:
    """A path in /etc/modprobe.d that is read after all files that set the parameter, and is nobody else's.

    Args:
        files: path to text of all files in the folders.
        words_set: the places that set the parameter.
        name: what it is called where nothing stands against it.
        mark: the text by which a file of ours is known.
    """
    last = max((word.path.rpartition("/")[2] for word in words_set if word.line), default="")
    foreign = {path.rpartition("/")[2] for path, text in files.items() if mark not in text}
    stem = last.removesuffix(".conf")
    while name < last or name in foreign:
        stem += "z"
        name = f"{stem}-nestvirt.conf"
    return f"{FOLDERS[0]}/{name}"


def _directives(files: Mapping[str, str], kind: str, module: str) -> Iterator[tuple[str, int, list[str]]]:
    """Path, number and further fields of the lines of one kind for a module."""
    for path in in_order(files):
        for number, line in _lines(files[path]):
            fields = line.split()
            if len(fields) > 1 and fields[0] == kind and fields[1].replace("-", "_") == module:
                yield path, number, fields[2:]


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, continued ones joined. A comment begins with # and is a line of its own."""
    begun, number = "", 0
    for current, line in enumerate(text.split("\n"), 1):
        number = number or current
        if line.endswith("\\"):
            begun += line[:-1] + " "
            continue
        yield number, begun + line
        begun, number = "", 0


def _values(fields: list[str], parameter: str) -> Iterator[str]:
    for word in fields:
        name, _, value = word.replace('"', "").partition("=")
        if name == parameter:
            yield value
