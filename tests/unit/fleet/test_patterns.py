"""How many VMs are named at once."""

from __future__ import annotations

import pytest

from nestvirt.backends.base import Listed
from nestvirt.errors import TargetError
from nestvirt.fleet.patterns import Pattern, parse
from nestvirt.model import Power, Target, Vm

WEB = Listed(
    Vm("u-1", "web-01"),
    "100",
    Power.RUNNING,
    "off",
    {"tag": ("k8s-worker", "prod"), "node": ("pve1",), "folder": ("/DC0/vm/k8s", "/DC0/vm/k8s/web-01")},
)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("libvirt:web-01", Target("libvirt", "web-01")),
        ("libvirt@lab:web-01", Target("libvirt", "web-01", "lab")),
        ("proxmox: 100", Target("proxmox", "100")),
        ("vsphere:/DC0/vm/k8s/web-01", Target("vsphere", "/DC0/vm/k8s/web-01")),
        ("host:ssh://root@node1", Target("host", "ssh://root@node1")),
        ("libvirt:a name=b", Target("libvirt", "a name=b")),
    ],
)
def test_one_vm(text: str, target: Target) -> None:
    assert parse(text) == target


@pytest.mark.parametrize(
    ("text", "conditions"),
    [
        ("libvirt: name=node-*", (("name", "node-*"),)),
        ("libvirt:name=node-*", (("name", "node-*"),)),
        ("libvirt: *", (("name", "*"),)),
        ("libvirt:node-?", (("name", "node-?"),)),
        ("proxmox@lab: tag=k8s-worker node=pve1", (("tag", "k8s-worker"), ("node", "pve1"))),
        ("vsphere: folder=/DC0/vm/my k8s/*", (("folder", "/DC0/vm/my k8s/*"),)),
    ],
)
def test_many_vms(text: str, conditions: tuple[tuple[str, str], ...]) -> None:
    found = parse(text)
    assert isinstance(found, Pattern)
    assert found.conditions == conditions
    assert str(found) == text
    assert found.profile == ("lab" if "@lab" in text else None)


@pytest.mark.parametrize("text", ["web-01", "", "libvirt:", "libvirt: ", "nope:web-01", "libvirt: name="])
def test_what_names_nothing_is_refused(text: str) -> None:
    with pytest.raises(TargetError) as caught:
        parse(text)
    assert caught.value.cure


@pytest.mark.parametrize(
    ("condition", "meant"),
    [
        ("name=web-*", True),
        ("name=WEB-*", False),
        ("name=db-*", False),
        ("tag=prod", True),
        ("tag=pro", False),
        ("tag=k8s-* node=pve1", True),
        ("tag=k8s-* node=pve2", False),
        ("folder=/DC0/vm/k8s", True),
        ("folder=/DC0/vm/k8s/*", True),
        ("folder=/DC0/*", True),
        ("folder=/DC0/vm", False),
        ("*", True),
    ],
)
def test_all_conditions_have_to_hold(condition: str, meant: bool) -> None:
    found = parse(f"proxmox: {condition}")
    assert isinstance(found, Pattern)
    assert found.matches(WEB) is meant


def test_a_key_that_the_backend_does_not_tell_is_refused_with_those_that_it_tells() -> None:
    found = parse("proxmox: color=red")
    assert isinstance(found, Pattern)
    with pytest.raises(TargetError, match="color") as caught:
        found.matches(WEB)
    assert "folder, name, node, tag" in caught.value.evidence
