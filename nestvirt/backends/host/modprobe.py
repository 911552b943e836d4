"""Which line decides a module's parameter at the next load: modprobe.d and the kernel's command line. Pure.

Order (modprobe.d(5), libkmod): the files of all folders together by their names, where a name in an earlier
folder hides the same in a later one; then the kernel's command line. The last word counts.
"""

from __future__ import annotations

import re
import shlex
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
        value: as it is written, such as 1, N or off.
    """

    path: str
    line: int
    value: str

    @property
    def on(self) -> bool:
        """Whether the kernel takes the value for true (lib/kstrtox.c, kstrtobool)."""
        return self.value[:1].lower() in ("y", "1", "t") or self.value[:2].lower() == "on"

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


def words(files: Mapping[str, str], cmdline: str, module: str, parameter: str) -> list[Word]:
    """Every place that sets a module's parameter, the one that decides last.

    Args:
        files: path to text of all files in the folders.
        cmdline: the kernel's command line.
        module: with underscores, such as kvm_amd.
    """
    found = [
        Word(path, number, value)
        for path in in_order(files)
        for number, line in _lines(files[path])
        for value in _values(line, module, parameter)
    ]
    setting = re.compile(rf"^{module.replace('_', '[-_]')}\.{parameter}(?:=(?P<value>.*))?$")
    for word in _split(cmdline):
        match = setting.match(word)
        if match:
            found.append(Word(COMMAND_LINE, 0, match["value"] or "1"))
    return found


def file_after(files: Mapping[str, str], words_set: list[Word], name: str, mark: str) -> str:
    """A path in /etc/modprobe.d that is read after all files that set the parameter, and is nobody else's.

    Args:
        name: what it is called where nothing stands against it.
        mark: the text by which a file of ours is known.
    """
    last = max((word.path.rpartition("/")[2] for word in words_set if word.line), default="")
    path = f"{FOLDERS[0]}/{name}"
    while name < last or (path in files and mark not in files[path]):
        name = f"z{name}"
        path = f"{FOLDERS[0]}/{name}"
    return path


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, continued ones joined, less comments."""
    begun, number = "", 0
    for current, line in enumerate(text.split("\n"), 1):
        number = number or current
        if line.endswith("\\"):
            begun += line[:-1] + " "
            continue
        yield number, begun + line
        begun, number = "", 0


def _values(line: str, module: str, parameter: str) -> Iterator[str]:
    fields = _split(line)
    kind = fields[0] if fields else ""
    if kind not in ("options", "install") or len(fields) < 3 or fields[1].replace("-", "_") != module:
        return  # an install line may hand options to modprobe itself
    for word in fields[2:]:
        name, equals, value = word.partition("=")
        if name == parameter:
            yield value if equals else "1"


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text, comments=True)
    except ValueError:  # a quote without its end: taken as it stands
        return text.split()
