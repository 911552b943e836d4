"""The ``<cpu>`` element of a libvirt domain: read it, rewrite it, put it back, and touch no other byte.

Format: https://libvirt.org/formatdomain.html#cpu-model-and-topology
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from xml.parsers import expat
from xml.sax.saxutils import escape

NESTING_FEATURES = ("vmx", "svm")
DEFAULT_MODEL = "qemu64"
"""What QEMU gives an x86 guest whose definition names no CPU."""
_QUOTE = {"'": "&apos;"}
_START_TAG = re.compile(rb"""<cpu(?:[^>"']|"[^"]*"|'[^']*')*>""")
_HAS = {"require": True, "force": True, "disable": False, "forbid": False}
_OF_A_MODEL = ("model", "vendor")


@dataclass(frozen=True)
class Cpu:
    """One ``<cpu>`` element, as far as nesting is concerned.

    Attributes:
        mode: custom, host-model, host-passthrough, maximum; "" where there is no element.
        policies: every (feature, policy) of vmx and svm, in order, doubles kept.
    """

    mode: str = ""
    model: str | None = None
    policies: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str | None) -> Cpu:
        """Read an element's text; None stands for a domain without one."""
        if text is None:
            return cls()
        element = ET.fromstring(text)  # noqa: S314 - libvirt's own output
        model = element.findtext("model")
        policies = tuple(
            (name, f.get("policy", "require"))
            for f in element.findall("feature")
            if (name := f.get("name", "")) in NESTING_FEATURES
        )
        return cls(element.get("mode", "custom"), model and model.strip(), policies)

    def policy(self, feature: str) -> str | None:
        """The last policy given for a feature, or None."""
        return dict(self.policies).get(feature)

    @property
    def doubled(self) -> bool:
        """True where vmx or svm is listed more than once, which libvirt refuses to start."""
        names = [name for name, _ in self.policies]
        return len(names) != len(set(names))

    def states(self, feature: str) -> bool | None:
        """What the element itself says of a feature: True, False, or None where it leaves it open."""
        policy = self.policy(feature)
        if policy in _HAS:
            return _HAS[policy]
        return True if self.mode in ("host-passthrough", "maximum") else None  # also with policy optional


def split(domain: str) -> tuple[str, str | None, str]:
    """Cut a domain's XML into what is before its ``<cpu>`` element, the element, and what is after.

    Raises:
        ValueError: it is no XML, or has more than one such element.
    """
    data = domain.encode()
    starts: list[int] = []
    ends: list[int] = []
    depth = 0
    parser = expat.ParserCreate()

    def opened(name: str, _attributes: dict[str, str]) -> None:
        nonlocal depth
        if depth == 1 and name == "cpu":
            starts.append(parser.CurrentByteIndex)
        depth += 1

    def closed(name: str) -> None:
        nonlocal depth
        depth -= 1
        if depth == 1 and name == "cpu":
            ends.append(parser.CurrentByteIndex)

    parser.StartElementHandler = opened
    parser.EndElementHandler = closed
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise ValueError(f"the domain's XML cannot be read: {error}") from error
    if not starts:
        return domain, None, ""
    if len(starts) > 1:
        raise ValueError("the domain has more than one <cpu> element")
    tag = _START_TAG.match(data, starts[0])
    if tag is None:
        raise ValueError("the <cpu> element cannot be read")
    end = tag.end() if tag[0].endswith(b"/>") else data.index(b">", ends[0]) + 1
    return data[: starts[0]].decode(), data[starts[0] : end].decode(), data[end:].decode()


def replaced(domain: str, cpu: str | None) -> str:
    """The domain's XML with another ``<cpu>`` element (None: without one); every other byte stays."""
    before, old, after = split(domain)
    if old is not None:
        return before.rstrip() + after if cpu is None else before + cpu + after
    if cpu is None:
        return domain
    head, tag, tail = domain.rpartition("</domain>")
    return f"{head}  {cpu}\n{tag}{tail}"


def without_cpu(domain: str) -> str:
    """The domain's XML less its ``<cpu>`` element and the white space around: what must not change."""
    before, old, after = split(domain)
    return domain if old is None else before.rstrip() + after


def same_but_cpu(one: str, other: str) -> bool:
    """Are two definitions the same outside ``<cpu>``?

    libvirt sorts devices whenever it reads a definition, and does not when it adds one itself: a definition
    that has never been read back may come back in another order of devices, and is the same all the same.
    """
    bare = [without_cpu(one), without_cpu(other)]
    return bare[0] == bare[1] or _sorted(bare[0]) == _sorted(bare[1])


def _sorted(domain: str) -> str:
    """The definition in canonical form, with its parts and its devices in alphabetical order."""
    root = ET.fromstring(domain)  # noqa: S314 - libvirt's own output
    for parent in (root.find("devices"), root):
        if parent is not None:
            parent[:] = sorted(parent, key=_canonical)
    return _canonical(root)


def _canonical(element: ET.Element) -> str:
    return ET.canonicalize(ET.tostring(element), strip_text=True)


def enabled(
    current: str | None, feature: str, *, mode: str, model: str | None = None, check: str | None = None
) -> str:
    """A ``<cpu>`` element that shows the guest a feature, keeping topology, NUMA, cache and all else.

    Args:
        current: the present element, or None.
        feature: vmx or svm; any mention of the other one is dropped.
        mode: custom, host-model, host-passthrough or maximum.
        model: the named model, with mode custom.
        check: libvirt's ``check`` attribute where it must be a certain one; None keeps the present one.
    """
    element = ET.fromstring(current or "<cpu/>")  # noqa: S314 - libvirt's own output
    old = Cpu.parse(current)
    if (old.mode, old.model) != (mode, model):
        for child in [c for c in element if c.tag in _OF_A_MODEL]:
            element.remove(child)
        for attribute in ("match", "check", "migratable"):
            element.attrib.pop(attribute, None)
        element.set("mode", mode)
        if model is not None:
            element.set("match", "exact")
            name = ET.Element("model", fallback="forbid")
            name.text = model
            element.insert(0, name)
    if check is not None:
        element.set("check", check)
    _drop_nesting(element)
    if mode not in ("host-passthrough", "maximum"):
        ET.SubElement(element, "feature", policy="require", name=feature)
    return _text(element)


def disabled(current: str | None, feature: str) -> str:
    """The same ``<cpu>`` element with a feature explicitly off."""
    if current is None:  # then QEMU gives the guest its default model, which has to be named to be qualified
        model = f"<model fallback='forbid'>{DEFAULT_MODEL}</model>"
        current = f"<cpu mode='custom' match='exact' check='none'>{model}</cpu>"
    element = ET.fromstring(current)  # noqa: S314 - libvirt's own output
    _drop_nesting(element)
    ET.SubElement(element, "feature", policy="disable", name=feature)
    return _text(element)


def _drop_nesting(element: ET.Element) -> None:
    for child in [c for c in element.findall("feature") if c.get("name") in NESTING_FEATURES]:
        element.remove(child)


def _text(element: ET.Element, indent: str = "  ") -> str:
    """The element as libvirt itself writes it, so that a diff shows nothing but what changes."""
    inner = f"{indent}  "
    attributes = "".join(f" {name}='{escape(value, _QUOTE)}'" for name, value in element.attrib.items())
    opening = f"<{element.tag}{attributes}"
    text = escape((element.text or "").strip())
    children = "".join(f"\n{inner}{_text(child, inner)}" for child in element)
    if not children and not text:
        return f"{opening}/>"
    return f"{opening}>{text}{children}{chr(10) + indent if children else ''}</{element.tag}>"
