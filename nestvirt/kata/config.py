"""The user's own configuration of Kata: the key ``kataContainers`` of a YAML file, read strictly.

The chart ignores what it does not know, and its keys have changed many times; so the file has keys of its
own, each of which means the same for every release. chart.py translates them. Each is described in
docs/reference/kata-config.md.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from nestvirt.errors import SettingsError
from nestvirt.kata import shims
from nestvirt.kata.shims import Release
from nestvirt.printable import printable

if TYPE_CHECKING:
    import yaml

ROOT = "kataContainers"
DEFAULT_VERSION = "3.25.0"
DISTRIBUTIONS = ("rke2", "k8s", "k3s", "k0s", "microk8s")
KEYS = {
    "version": "Kata's release, in quotes",
    "k8sDistribution": f"{', '.join(DISTRIBUTIONS)}; told from the nodes where it is not given",
    "debug": "whether Kata's parts log all that they do",
    "createDefaultRuntimeClass": "whether there is a RuntimeClass kata beside those of the shims",
    "shims": "which shims are on: NAME: {enabled: true}; what is not named is off",
    "image": "reference and tag of kata-deploy's image, where it comes from a mirror",
    "imagePullSecrets": "names of secrets to pull it with",
    "nodeSelector": "labels of the nodes to install on",
}
"""Every key under ``kataContainers``, and what it is for."""
IMAGE_KEYS = ("reference", "tag")
NOT_OURS = {
    "multiInstallSuffix": "nestvirt looks after one installation of Kata in a cluster",
    "installationPrefix": "nestvirt looks for Kata in /opt/kata, and cleans that",
}
"""Keys of the chart that one may miss here, and why they are not taken."""
MOST_BYTES = 1024 * 1024

_VERSION = re.compile(r"(\d{1,4})\.(\d{1,4})\.(\d{1,4})")


class _Form(NamedTuple):
    """What a word has to be, for the program and for people."""

    pattern: str
    words: str


_LABEL = _Form(
    r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?",
    "a label's name: letters, digits, - _ and ., with or without a domain and / before it",
)
_VALUE = _Form(r"([A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?)?", "up to 63 letters, digits, - _ and .")
_NAME = _Form(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", "a secret's name: lower-case letters, digits, - and .")
_REFERENCE = _Form(
    r"[a-zA-Z0-9][\w.-]{0,250}(:\d{1,5}(?=/))?[\w./-]{0,250}",
    "an image without its tag, such as registry.example.com/kata-deploy, and the tag below the key tag",
)
_TAG = _Form(r"\w[\w.-]{0,127}", "an image's tag: letters, digits, - _ and .")
_T = TypeVar("_T")


@dataclass(frozen=True)
class KataConfig:
    """What the user wants of Kata.

    Attributes:
        version: the release of Kata and of its chart, such as 3.25.0.
        distribution: one of ``DISTRIBUTIONS``; None to tell it from the nodes.
        debug: Kata's parts log all that they do.
        default_runtime_class: there is to be a RuntimeClass ``kata``.
        shims: the names of those that are to be on, sorted; there is at least one.
        image: where kata-deploy's image comes from; empty for the chart's own.
        image_tag: its tag; empty for the release's.
        pull_secrets: names of Kubernetes secrets to pull it with.
        node_selector: labels that a node needs to have.
    """

    version: str = DEFAULT_VERSION
    distribution: str | None = None
    debug: bool = False
    default_runtime_class: bool = False
    shims: tuple[str, ...] = ("qemu",)
    image: str = ""
    image_tag: str = ""
    pull_secrets: tuple[str, ...] = ()
    node_selector: tuple[tuple[str, str], ...] = ()

    @property
    def release(self) -> Release:
        """Major and minor number."""
        major, minor, _ = self.version.split(".")
        return int(major), int(minor)


def load(path: Path) -> KataConfig:
    """Read the file.

    Raises:
        SettingsError: it cannot be read, or says something that nestvirt does not know or cannot do.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        seen = error.strerror or "the system does not say why"
        raise _ill(f"the configuration {path} cannot be read", seen, "name a file with --config") from error
    if len(content) > MOST_BYTES:
        raise _ill(f"the configuration {path} is too large", "more than 1 MiB", "name the right file")
    return parse(content, str(path))


def parse(content: bytes, name: str) -> KataConfig:
    """The same, of text that was read already.

    Args:
        name: what to call it in errors.

    Raises:
        SettingsError: see ``load``.
    """
    found, lines = _yaml(content, name)
    document = _Reader(name, lines)
    top = document.mapping(found, "")
    if ROOT not in top:
        near = difflib.get_close_matches(ROOT, map(str, top), 1, 0.7)
        cure = f"rename {near[0]} to {ROOT}" if near else f"write Kata's settings below the key {ROOT}"
        raise _ill(f"{name} has no key {ROOT}", f"it has: {_listed(top) or 'nothing'}", cure)
    return document.config(document.mapping(top[ROOT], ROOT))


@dataclass(frozen=True)
class _Reader:
    """One file; every complaint names the key, and its line.

    Attributes:
        lines: the path of a key, with dots, to its line.
    """

    name: str
    lines: Mapping[str, int] = field(default_factory=dict)

    def config(self, keys: Mapping[object, object]) -> KataConfig:
        self.known(keys, KEYS, ROOT)
        given = {str(key): value for key, value in keys.items() if value is not None}
        version = self.version(given.get("version", DEFAULT_VERSION))
        image = self.image(given.get("image", {}))
        self.known(image, IMAGE_KEYS, f"{ROOT}.image")
        selector = self.mapping(
            given.get("nodeSelector", {}), f"{ROOT}.nodeSelector", "write nodeSelector: {pool: kata}"
        )
        config = KataConfig(
            version=version,
            distribution=self.distribution(given.get("k8sDistribution")),
            debug=self.flag(given, "debug"),
            default_runtime_class=self.flag(given, "createDefaultRuntimeClass"),
            image=self.word(image.get("reference"), f"{ROOT}.image.reference", _REFERENCE),
            image_tag=self.word(image.get("tag"), f"{ROOT}.image.tag", _TAG),
            pull_secrets=self.secrets(given.get("imagePullSecrets", [])),
            node_selector=tuple(sorted(self.label(key, value) for key, value in selector.items())),
        )
        names = self.switched_on(given.get("shims", {"qemu": {"enabled": True}}), config.release, version)
        return KataConfig(**{**vars(config), "shims": names})

    def image(self, value: object) -> dict[object, object]:
        """The keys of the image, which many write as one text, as the other tools do."""
        name, colon, tag = value.rpartition(":") if isinstance(value, str) else ("", "", "")
        split = colon and re.fullmatch(_REFERENCE.pattern, name) and re.fullmatch(_TAG.pattern, tag)
        if not split:
            name, tag = "registry.example.com/kata-deploy", DEFAULT_VERSION
        cure = f'write image: {{reference: {name}, tag: "{tag}"}}'
        return self.mapping(value, f"{ROOT}.image", cure)

    def known(self, keys: Mapping[object, object], allowed: Collection[str], where: str) -> None:
        for key in keys:
            if key in allowed:
                continue
            shown = printable(str(key), 60)
            if key in NOT_OURS:
                said = f"{where}.{shown} is not supported"
                raise self.ill(f"{where}.{key}", said, NOT_OURS[str(key)], f"remove {shown}")
            near = difflib.get_close_matches(str(key).lower(), [a.lower() for a in allowed], 1, 0.5)
            right = next((a for a in allowed if near and a.lower() == near[0]), None)
            cure = f"write {right}" if right else f"remove it, or write one of: {', '.join(allowed)}"
            said = f"{where} has no key {shown!r}"
            raise self.ill(f"{where}.{key}", said, f"it knows: {', '.join(allowed)}", cure)

    def version(self, value: object) -> str:
        where = f"{ROOT}.version"
        if isinstance(value, int | float) and not isinstance(value, bool):
            raise self.ill(
                where,
                f"{where} is a number, {value}, and not text",
                "YAML reads 3.30 as 3.3: without quotes a release cannot be told",
                f'write all three parts in quotes, such as version: "{DEFAULT_VERSION}"',
            )
        text = self.of(value, str, where, "text in quotes")
        match = _VERSION.fullmatch(text)
        if match is None:
            cure = f'write all three parts, without a v, such as version: "{DEFAULT_VERSION}"'
            raise self.ill(where, f"{where} is no release", _shown(text), cure)
        release = int(match[1]), int(match[2])
        if release < shims.FIRST:
            raise self.ill(
                where,
                f"Kata {text} cannot be installed by nestvirt",
                "it has no Helm chart: the first release with one is 3.8.0",
                "choose a newer release",
            )
        return ".".join(str(int(part)) for part in match.groups())

    def distribution(self, value: object) -> str | None:
        if value is None or value in DISTRIBUTIONS:
            return None if value is None else str(value)
        near = difflib.get_close_matches(str(value).lower(), DISTRIBUTIONS, 1, 0.5)
        where = f"{ROOT}.k8sDistribution"
        raise self.ill(
            where,
            f"{where} is {_shown(value)}, which the chart would take for k8s",
            f"it knows: {', '.join(DISTRIBUTIONS)}",
            f"write {near[0] if near else 'one of these'}, or leave it out: it is told from the nodes",
        )

    def flag(self, given: Mapping[str, object], key: str) -> bool:
        return self.of(given.get(key, False), bool, f"{ROOT}.{key}", "true or false, without quotes")

    def switched_on(self, value: object, release: Release, version: str) -> tuple[str, ...]:
        where, offered, on = f"{ROOT}.shims", shims.of(release), []
        for name, of in self.mapping(value, where, "write shims: {qemu: {enabled: true}}").items():
            place = f"{where}.{printable(str(name), 60)}"
            keys = self.mapping({} if of is None else of, place, "write it as {enabled: true}")
            self.known(keys, ("enabled",), place)
            enabled = self.of(
                keys.get("enabled", False), bool, f"{place}.enabled", "true or false, without quotes"
            )
            if name not in shims.SHIMS:
                near = difflib.get_close_matches(str(name), offered, 1, 0.5)
                cure = f"write {near[0]}" if near else f"remove it, or write one of: {', '.join(offered)}"
                raise self.ill(place, f"there is no shim {place.rpartition('.')[2]!r}", f"in {where}", cure)
            if enabled and name not in offered:
                raise self._absent(str(name), version)
            on += [str(name)] if enabled else []
        if not on:
            cure = "switch at least one on: qemu: {enabled: true}"
            raise self.ill(where, "no shim is switched on", f"in {where}", cure)
        return tuple(sorted(on))

    def _absent(self, name: str, version: str) -> SettingsError:
        shim = shims.SHIMS[name]
        gone = shim.gone is not None and tuple(map(int, version.split(".")[:2])) >= shim.gone
        since = shim.gone if gone and shim.gone else shim.since
        release = ".".join(map(str, since))
        seen = f"it was dropped in {release}" if gone else f"the first known release with it is {release}"
        cure = (
            f"use {shim.successor}" if gone and shim.successor else "switch it off, or choose another release"
        )
        return self.ill(f"{ROOT}.shims.{name}", f"Kata {version} has no shim {name}", seen, cure)

    def secrets(self, value: object) -> tuple[str, ...]:
        where = f"{ROOT}.imagePullSecrets"
        names = self.of(value, list, where, "a list of names")
        return tuple(self.word(name, where, _NAME) for name in names)

    def label(self, key: object, value: object) -> tuple[str, str]:
        where = f"{ROOT}.nodeSelector"
        return self.word(key, where, _LABEL), self.word(value, f"{where}.{printable(str(key), 100)}", _VALUE)

    def word(self, value: object, where: str, form: _Form) -> str:
        if value is None:
            return ""
        text = self.of(value, str, where, "text in quotes")
        if re.fullmatch(form.pattern, text) is None:
            said = f"{where} cannot be {printable(text, 100)!r}"
            raise self.ill(where, said, "a character or the length is wrong", f"write {form.words}")
        return text

    def mapping(self, value: object, where: str, cure: str = "") -> dict[object, object]:
        return self.of({} if value is None else value, dict, where or "the file", cure or "keys with values")

    def of(self, value: object, kind: type[_T], where: str, wanted: str) -> _T:
        if isinstance(value, kind):
            return value
        cure = wanted if wanted.startswith("write ") else f"write {wanted}"
        raise self.ill(where, f"{where} is {_shown(value)}, and not {_KINDS[kind]}", "", cure)

    def ill(self, where: str, message: str, seen: str, cure: str) -> SettingsError:
        """The error; ``where`` is the key, whose line (or that of the key above it) is told."""
        while where and where not in self.lines:
            where = where.rpartition(".")[0]
        place = f"{self.name}, line {self.lines[where]}" if where else self.name
        return _ill(message, f"{place}: {seen}" if seen else place, cure)


_KINDS: Mapping[type, str] = {str: "text", bool: "true or false", list: "a list", dict: "keys with values"}


def _shown(value: object) -> str:
    """A value in the words of those who write YAML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {printable(value, 60)!r}"
    if isinstance(value, int | float | date):
        return f"the {'date' if isinstance(value, date) else 'number'} {printable(str(value), 60)}"
    return _KINDS.get(type(value), "empty" if value is None else "something else")


def _ill(message: str, seen: str, cure: str) -> SettingsError:
    return SettingsError(message, evidence=seen, cure=cure)


def _listed(keys: Mapping[object, object]) -> str:
    return printable(", ".join(map(str, keys)), 200)


def _yaml(content: bytes, name: str) -> tuple[Any, dict[str, int]]:
    """The document, and the lines of its keys.

    Duplicate keys are refused, which YAML forbids and PyYAML takes the last of.
    """
    import yaml  # not needed by commands that have nothing to do with clusters

    class Strict(yaml.SafeLoader):
        pass

    def mapping(loader: Strict, node: yaml.MappingNode) -> dict[Any, Any]:
        seen: set[object] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":  # <<: *other, whose keys may be overruled
                continue
            found = loader.construct_object(key)
            if not isinstance(found, str | int | float | bool | None) or found in seen:
                said = f"the key {printable(str(found), 60)!r} is there twice, or is no plain word"
                raise yaml.constructor.ConstructorError(None, None, said, key.start_mark)
            seen.add(found)
        return loader.construct_mapping(node, deep=True)

    Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    try:
        loader = Strict(content.decode())
        tree = loader.get_single_node()
        lines: dict[str, int] = {}
        _note_lines(tree, "", lines, set())
        return (None if tree is None else loader.construct_document(tree)), lines
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _ill(f"{name} is no UTF-8", f"line {line}", "save it as UTF-8") from error
    except (yaml.YAMLError, RecursionError, ValueError, LookupError, AttributeError) as error:
        # The last three are PyYAML's own, of a value that is not what it looks like, such as 2026-99-99.
        seen = printable(_problem(error), 300)
        raise _ill(f"{name} is no YAML that can be used", seen, "correct it") from error


def _problem(error: Exception) -> str:
    """What is wrong with the YAML, and where, as far as PyYAML knows."""
    mark = getattr(error, "problem_mark", None)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, ValueError | LookupError | AttributeError):
        return "a date, a number or a tagged value in it cannot be read as one"
    if getattr(error, "reason", None):  # of a reader, which has no line
        return f"character {getattr(error, 'position', 0) + 1} of the file may not be in YAML"
    return f"{place}{getattr(error, 'problem', None) or error}"


def _note_lines(node: yaml.Node | None, above: str, lines: dict[str, int], seen: set[int]) -> None:
    """Note the line of each key by its path; nodes may hold themselves, by aliases."""
    import yaml

    if not isinstance(node, yaml.MappingNode) or id(node) in seen:
        return
    seen.add(id(node))
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode):
            path = f"{above}.{key.value}".removeprefix(".")
            lines.setdefault(path, key.start_mark.line + 1)
            _note_lines(value, path, lines, seen)
