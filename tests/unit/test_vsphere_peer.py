"""The vSphere peer by itself, asked by pyvmomi alone: it refuses what the products refuse."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyVim import connect
from pyVmomi import vim, vmodl

from tests.lab import vcsim, wait_for
from tests.peers.vsphere import VSphere

PYVIM: Any = connect  # its stubs have no types
GO_LINES = 400


@pytest.fixture
def content(vcenter: VSphere) -> Iterator[Any]:
    """A session of pyvmomi's own."""
    host, _, port = vcenter.address.partition(":")
    context = ssl.create_default_context(cafile=vcenter.ca_file)
    login = {"user": vcenter.user, "pwd": vcenter.password, "sslContext": context}
    connection = PYVIM.SmartConnect(host=host, port=int(port), **login)
    yield connection.RetrieveContent()
    PYVIM.Disconnect(connection)


def vm_of(content: Any, vcenter: VSphere, **wanted: Any) -> Any:
    """A new VM, as pyvmomi's object."""
    name = vcenter.make(**wanted)
    return content.searchIndex.FindByInventoryPath(f"DC0/vm/{name}")


def spec(**values: Any) -> Any:
    return vim.vm.ConfigSpec(**values)


def fault(task: Any) -> str:
    """What a task has ended with; empty where that was well."""
    wait_for(lambda: task.info.state in ("success", "error"), 10, "the task to end")
    return type(task.info.error).__name__.rpartition(".")[2] if task.info.state == "error" else ""


def test_its_sources_are_sound_and_short(vcenter: VSphere) -> None:
    assert vcenter.address
    vcsim.vet()
    sources = sorted(Path(vcsim.SOURCES).glob("*.go"))
    assert len(sources) > 5
    assert all(len(source.read_text().splitlines()) <= GO_LINES for source in sources)


def test_running_vm_takes_the_advanced_setting_and_not_the_property(content: Any, vcenter: VSphere) -> None:
    vm = vm_of(content, vcenter)
    assert fault(vm.ReconfigVM_Task(spec(nestedHVEnabled=True))) == "InvalidPowerState"
    option: Any = vim.option.OptionValue
    key = option(key="vhv.enable", value="TRUE")
    for _ in range(2):
        assert fault(vm.ReconfigVM_Task(spec(extraConfig=[key]))) == ""
    assert [each.value for each in vm.config.extraConfig if each.key == key.key] == ["TRUE"]
    assert not vcenter.see(vm.name)["live"]
    key.value = ""
    assert fault(vm.ReconfigVM_Task(spec(extraConfig=[key]))) == ""
    assert key.key not in [each.key for each in vm.config.extraConfig]


REFUSED: dict[str, tuple[dict[str, Any], bool, str]] = {
    "too old": ({"config.version": "vmx-08"}, True, "InvalidVmConfig"),
    "protected": ({"runtime.faultToleranceState": "running"}, True, "InvalidVmConfig"),
    "template": ({"config.template": True}, True, "NotSupported"),
    "VBS": ({"config.flags.vbsEnabled": True, "config.nestedHVEnabled": True}, False, "InvalidVmConfig"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_change_that_vsphere_would_refuse_is_refused(content: Any, vcenter: VSphere, why: str) -> None:
    values, wanted, expected = REFUSED[why]
    vm = vm_of(content, vcenter, running=False)
    vcenter.set(vm.name, values)
    assert fault(vm.ReconfigVM_Task(spec(nestedHVEnabled=wanted))) == expected


def test_host_without_nesting_refuses(content: Any, vcenter: VSphere) -> None:
    vm = vm_of(content, vcenter, running=False)
    vcenter.set_host(vm.runtime.host.name, {"capability.nestedHVSupported": False})
    assert fault(vm.ReconfigVM_Task(spec(nestedHVEnabled=True))) == "NotSupported"


def test_version_that_is_not_the_present_one_is_refused(content: Any, vcenter: VSphere) -> None:
    vm = vm_of(content, vcenter, running=False)
    known = vm.config.changeVersion
    assert fault(vm.ReconfigVM_Task(spec(nestedHVEnabled=True, changeVersion=known))) == ""
    assert fault(vm.ReconfigVM_Task(spec(nestedHVEnabled=False, changeVersion=known))) == "ConcurrentAccess"
    assert vm.config.nestedHVEnabled


def test_hardware_is_raised_only_while_off_and_never_lowered(content: Any, vcenter: VSphere) -> None:
    vm = vm_of(content, vcenter, hardware="vmx-08")
    assert fault(vm.UpgradeVM_Task("vmx-13")) == "InvalidPowerState"
    vcenter.power(vm.name, "off")
    assert fault(vm.UpgradeVM_Task("vmx-99")) == "NotSupported"
    assert fault(vm.UpgradeVM_Task("vmx-13")) == ""
    assert fault(vm.UpgradeVM_Task("vmx-10")) == "AlreadyUpgraded"
    assert vm.config.version == "vmx-13"


def test_what_a_vm_was_started_with_outlives_all_but_power_off(content: Any, vcenter: VSphere) -> None:
    vm = vm_of(content, vcenter, running=False)
    assert fault(vm.PowerOnVM_Task()) == ""
    vcenter.set(vm.name, {"config.nestedHVEnabled": True})
    vcenter.reboot_inside(vm.name)
    assert not vcenter.see(vm.name)["live"]
    vcenter.suspend(vm.name)
    assert fault(vm.PowerOnVM_Task()) == ""
    assert not vcenter.see(vm.name)["live"]
    assert "cpuid.VMX" not in [feature.key for feature in vm.runtime.featureRequirement]
    vcenter.power(vm.name, "off")
    assert fault(vm.PowerOnVM_Task()) == ""
    assert vcenter.see(vm.name)["live"]
    assert "cpuid.VMX" in [feature.key for feature in vm.runtime.featureRequirement]


def test_unknown_property_refuses_the_whole_query(content: Any, vcenter: VSphere) -> None:
    vm = vm_of(content, vcenter)
    query: Any = vmodl.query
    collector = query.PropertyCollector
    wanted = collector.FilterSpec(
        objectSet=[collector.ObjectSpec(obj=vm)],
        propSet=[collector.PropertySpec(type=vim.VirtualMachine, pathSet=["name", "config.noSuchThing"])],
    )
    with pytest.raises(query.InvalidProperty):
        content.propertyCollector.RetrievePropertiesEx([wanted], collector.RetrieveOptions())


def test_nothing_but_nesting_can_be_written(content: Any, vcenter: VSphere) -> None:
    vm = vm_of(content, vcenter, running=False)
    assert fault(vm.ReconfigVM_Task(spec(nestedHVEnabled=True, numCPUs=4))) == "InvalidArgument"
    assert not vm.config.nestedHVEnabled
