"""What libvirt tells about a host, and about saved states of a domain. Reads only."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nestvirt.backends.libvirt import cpu_xml
from nestvirt.backends.libvirt.domain import MODULE, VENDOR_FEATURE, HostFacts, HostModel, Platform

_SYS_MODULE = Path("/sys/module")
_ON = ("require", "force")


def login_of(uri: str) -> str | None:
    """How to log in to the host of a libvirt URI: ``local``, ``ssh://USER@HOST``; None for other transports.

    https://libvirt.org/uri.html
    """
    parts = urlsplit(uri)
    if not parts.hostname:
        return "local"
    return f"ssh://{parts.netloc}" if parts.scheme.endswith(("+ssh", "+libssh", "+libssh2")) else None


def read_host(libvirt: Any, connection: Any, platform: Platform) -> HostFacts:
    """Read what concerns a domain of that platform: vendor, KVM, nesting, CPU models."""
    capabilities = _tree(connection.getCapabilities())
    domains = [
        guest.get("type")
        for element in capabilities.findall("guest/arch")
        if element.get("name") == platform.arch
        for guest in element.findall("domain")
    ]
    vendor = capabilities.findtext("host/cpu/vendor")
    nested, source = _local_nested(connection, vendor)
    modes = _cpu_modes(libvirt, connection, platform)
    return HostFacts(
        vendor=vendor,
        kvm="kvm" in domains,
        nested=nested,
        nested_source=source,
        host_model=_host_model(libvirt, connection, platform, modes.get("host-model")),
        models=_models(platform, modes.get("custom")),
    )


def _local_nested(connection: Any, vendor: str | None) -> tuple[str | None, str]:
    """The kvm module's own parameter, which only a local connection's host shows.

    A kernel with both modules built in has both folders, whatever the CPU.
    """
    feature = VENDOR_FEATURE.get(vendor or "")
    if feature is None or urlsplit(connection.getURI()).hostname:
        return None, ""
    path = _SYS_MODULE / MODULE[feature] / "parameters" / "nested"
    try:
        return path.read_text(encoding="ascii").strip(), str(path)
    except OSError:
        return None, ""


def _cpu_modes(libvirt: Any, connection: Any, platform: Platform) -> dict[str, ET.Element]:
    """The CPU modes that libvirt supports for that platform, as its domain capabilities describe them."""
    try:
        text = connection.getDomainCapabilities(
            platform.emulator, platform.arch, platform.machine, platform.virt_type, 0
        )
    except libvirt.libvirtError:
        return {}  # libvirt would not say: a test driver, a missing emulator, or no KVM at all
    modes = _tree(text).findall("cpu/mode")
    return {mode.get("name", ""): mode for mode in modes if mode.get("supported") == "yes"}


def _models(platform: Platform, custom: ET.Element | None) -> dict[str, str] | None:
    if custom is None:
        return None
    return {
        (model.text or "").strip(): model.get("vendor", "")
        for model in custom.findall("model")
        if platform.emulated or model.get("usable") == "yes"
    }


def _host_model(libvirt: Any, connection: Any, platform: Platform, mode: ET.Element | None) -> HostModel:
    if mode is None:
        return HostModel()
    listed = {f.get("name", ""): f.get("policy", "require") in _ON for f in mode.findall("feature")}
    cpu = ET.Element("cpu", mode="custom", match="exact")
    cpu.extend(child for child in mode if child.tag != "maxphysaddr")
    expanded = _expanded(libvirt, connection, platform, ET.tostring(cpu, encoding="unicode"))
    return HostModel(listed, expanded)


def model_features(libvirt: Any, connection: Any, definition: str | None) -> frozenset[str] | None:
    """What libvirt expands the definition's named CPU model to; None where it names none, or is not told."""
    element = cpu_xml.split(definition)[1] if definition is not None else None
    cpu = cpu_xml.Cpu.parse(element)
    if definition is None or element is None or cpu.mode != "custom" or cpu.model is None:
        return None
    return _expanded(libvirt, connection, Platform.parse(definition), element)


def _expanded(libvirt: Any, connection: Any, platform: Platform, cpu: str) -> frozenset[str] | None:
    """All features of a ``<cpu>`` with a named model, those too that the model implies; None: not told."""
    flags = libvirt.VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES
    try:
        text = connection.baselineHypervisorCPU(
            platform.emulator, platform.arch, platform.machine, platform.virt_type, [cpu], flags
        )
    except libvirt.libvirtError:
        return None
    features = _tree(text).findall("feature")
    return frozenset(f.get("name", "") for f in features if f.get("policy", "require") in _ON)


def memory_snapshots(libvirt: Any, domain: Any) -> tuple[str, ...]:
    """Names of the domain's snapshots that hold its memory, and with it the CPU it ran on."""
    try:
        snapshots = domain.listAllSnapshots(0)
    except libvirt.libvirtError:
        return ()  # this driver has no snapshots
    return tuple(s.getName() for s in snapshots if re.search(r"<memory snapshot='(?!no)", s.getXMLDesc(0)))


def _tree(text: str) -> ET.Element:
    return ET.fromstring(text)  # noqa: S314 - libvirt's own output
