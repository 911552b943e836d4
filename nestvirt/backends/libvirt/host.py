"""What libvirt tells about a host, and about saved states of a domain. Reads only."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nestvirt.backends.libvirt import cpu_xml
from nestvirt.backends.libvirt.facts import HostFacts

_SYS_MODULE = Path("/sys/module")


def read_host(libvirt: Any, connection: Any, domain: str) -> HostFacts:
    """Read what concerns a domain of that XML: vendor, KVM, nesting, CPU models."""
    root = _tree(domain or "<domain/>")
    kind = root.find("os/type")
    arch = kind.get("arch", "x86_64") if kind is not None else "x86_64"
    virt_type = root.get("type", "kvm")
    capabilities = _tree(connection.getCapabilities())
    domains = [
        guest.get("type")
        for element in capabilities.findall("guest/arch")
        if element.get("name") == arch
        for guest in element.findall("domain")
    ]
    nested, source = _local_nested(connection)
    host_model, models = _cpu_capabilities(libvirt, connection, root, arch, virt_type)
    return HostFacts(
        vendor=capabilities.findtext("host/cpu/vendor"),
        kvm="kvm" in domains,
        nested=nested,
        nested_source=source,
        host_model=host_model,
        models=models,
    )


def _local_nested(connection: Any) -> tuple[str | None, str]:
    """The kvm module's own parameter, which only a local connection's host shows."""
    if urlsplit(connection.getURI()).hostname:
        return None, ""
    for module in ("kvm_intel", "kvm_amd"):
        path = _SYS_MODULE / module / "parameters" / "nested"
        try:
            return path.read_text(encoding="ascii").strip(), str(path)
        except OSError:
            continue
    return None, ""


def _cpu_capabilities(
    libvirt: Any, connection: Any, root: ET.Element, arch: str, virt_type: str
) -> tuple[dict[str, str] | None, dict[str, str] | None]:
    kind = root.find("os/type")
    machine = kind.get("machine") if kind is not None else None
    try:
        text = connection.getDomainCapabilities(
            root.findtext("devices/emulator"), arch, machine, virt_type, 0
        )
    except libvirt.libvirtError:
        return None, None  # libvirt would not say: a test driver, a missing emulator, or no KVM at all
    modes = {mode.get("name"): mode for mode in _tree(text).findall("cpu/mode")}
    host_model, custom = modes.get("host-model"), modes.get("custom")
    features = None
    if host_model is not None and host_model.get("supported") == "yes":
        features = {f.get("name", ""): f.get("policy", "require") for f in host_model.findall("feature")}
    models = None
    if custom is not None and custom.get("supported") == "yes":
        models = {
            (model.text or "").strip(): model.get("vendor", "")
            for model in custom.findall("model")
            if virt_type == "qemu" or model.get("usable") == "yes"
        }
    return features, models


def model_features(libvirt: Any, connection: Any, definition: str | None) -> frozenset[str] | None:
    """What libvirt expands the definition's named CPU model to; None where it names none, or is not told."""
    if definition is None:
        return None
    cpu, root = cpu_xml.split(definition)[1], _tree(definition)
    if cpu_xml.Cpu.parse(cpu).mode != "custom" or cpu_xml.Cpu.parse(cpu).model is None:
        return None
    kind = root.find("os/type")
    arch, machine = (kind.get("arch"), kind.get("machine")) if kind is not None else (None, None)
    flags = libvirt.VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES
    emulator, virt_type = root.findtext("devices/emulator"), root.get("type")
    try:
        text = connection.baselineHypervisorCPU(emulator, arch, machine, virt_type, [cpu], flags)
    except libvirt.libvirtError:
        return None
    features = _tree(text).findall("feature")
    return frozenset(
        f.get("name", "") for f in features if f.get("policy", "require") in ("require", "force")
    )


def memory_snapshots(libvirt: Any, domain: Any) -> tuple[str, ...]:
    """Names of the domain's snapshots that hold its memory, and with it the CPU it ran on."""
    try:
        snapshots = domain.listAllSnapshots(0)
    except libvirt.libvirtError:
        return ()  # this driver has no snapshots
    return tuple(s.getName() for s in snapshots if re.search(r"<memory snapshot='(?!no)", s.getXMLDesc(0)))


def _tree(text: str) -> ET.Element:
    return ET.fromstring(text)  # noqa: S314 - libvirt's own output
