"""What a host's facts mean: one row a situation, findings and a plan out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from nestvirt.backends.host.facts import CHECKS, MARK, HostFacts, content, rebuild
from nestvirt.backends.host.modprobe import Word, install_lines, words
from nestvirt.backends.host.situation import Image, User
from nestvirt.model import Change, Goal, Power
from nestvirt.plan import make_plan

ETC = "/etc/modprobe.d"
OURS = f"{ETC}/zz-nestvirt.conf"
ON, OFF = Goal(), Goal(nested=False)
GOOD = {
    "host-cpu": "pass",
    "host-module": "pass",
    "host-nested": "pass",
    "host-nested-next-boot": "pass",
    "host-kvm-offers": "pass",
}
ILL = {"host-cpu": "pass", "host-module": "pass", "host-nested": "fail", "host-nested-next-boot": "fail"}
VM = User(4711, "qemu-system-x86", "web-01", "libvirt", "c0ffee00-0000-4000-8000-000000000001")
OTHER_VM = User(4712, "kvm", "web-02", "proxmox", "102")


def host(**fields: Any) -> HostFacts:
    """An AMD host whose VMs may nest, with other fields."""
    facts = HostFacts(
        hostname="node1",
        machine="x86_64",
        kernel="6.1.0-1-amd64",
        vendor="amd",
        model="AMD EPYC 7543",
        flags=frozenset({"svm", "npt"}),
        cmdline="",
        loaded={"kvm": 1, "kvm_amd": 0},
        nested="1",
        paging="Y",
        module_file="/lib/modules/6.1.0-1-amd64/kernel/arch/x86/kvm/kvm-amd.ko",
        configs={},
        loading=("insmod /lib/modules/6.1.0-1-amd64/kernel/arch/x86/kvm/kvm-amd.ko",),
        writable=True,
        users=(),
        image=None,
        tools=frozenset({"update-initramfs", "grub-mkconfig"}),
        offers=True,
        offers_evidence="KVM was asked",
    )
    facts = replace(facts, **fields)
    module = facts.module or ""
    integer = facts.vendor == "amd"  # as in Linux 6.1
    return replace(
        facts,
        words=tuple(words(facts.configs, facts.cmdline, module, "nested", integer=integer)),
        install=tuple(install_lines(facts.configs, module)),
    )


def off(**fields: Any) -> HostFacts:
    return host(**{"nested": "0", "offers": None, "offers_evidence": "", **fields})


@dataclass(frozen=True)
class Row:
    """One situation, and what has to be said of it.

    Attributes:
        change: path and nested of the drop-in that is planned.
    """

    facts: HostFacts
    found: dict[str, str]
    change: Change | None = None
    cold_boot: bool = False
    blocks: tuple[str, ...] = ()
    goal: Goal = ON


def drop_in(
    path: str = OURS, before: str | None = None, *, module: str = "kvm_amd", nested: bool = True
) -> Change:
    return Change(path, before, content(module, nested=nested))


def conf(text: str, name: str = "kvm.conf") -> dict[str, str]:
    return {f"{ETC}/{name}": f"{text}\n"}


ZERO, ONE = "options kvm_amd nested=0", "options kvm_amd nested=1"
BUILT_IN = {"module_file": "(builtin)", "loaded": {}}
IMAGE = Image("/boot/initrd.img", frozenset({"kvm_amd"}), frozenset({"kvm.conf"}))
INTEL = {
    "vendor": "intel",
    "flags": frozenset({"vmx"}),
    "loaded": {"kvm_intel": 0},
    "module_file": "/lib/modules/x/kvm-intel.ko",
}

ROWS = {
    "well": Row(host(), GOOD),
    "well, and a file says so": Row(host(configs=conf(ONE)), GOOD),
    "Intel": Row(host(**INTEL, nested="Y"), GOOD),
    "Intel off": Row(off(**INTEL, nested="N"), ILL, drop_in(module="kvm_intel")),
    "off, nothing says so": Row(off(), ILL, drop_in()),
    "off by a file": Row(off(configs=conf(ZERO)), ILL, drop_in()),
    "off by a file that sorts late": Row(
        off(configs=conf(ZERO, "zzz.conf")), ILL, drop_in(f"{ETC}/zzzz-nestvirt.conf")
    ),
    "off by a file of another folder": Row(
        off(configs={"/usr/lib/modprobe.d/zz-zfs.conf": ZERO}), ILL, drop_in(f"{ETC}/zz-zfsz-nestvirt.conf")
    ),
    "off by our own file": Row(
        off(configs={OURS: content("kvm_amd", nested=False)}),
        ILL,
        drop_in(before=content("kvm_amd", nested=False)),
    ),
    "right in the files, not loaded anew": Row(
        off(configs=conf(ONE)), ILL | {"host-nested-next-boot": "pass"}, cold_boot=True
    ),
    "on now, off after the next boot": Row(
        host(configs=conf(ZERO)), GOOD | {"host-nested-next-boot": "fail"}, drop_in()
    ),
    "command line says off": Row(
        off(cmdline="ro kvm_amd.nested=0", configs=conf(ONE)),
        ILL,
        blocks=("host-nested", "host-nested-next-boot"),
    ),
    "command line says on": Row(
        off(cmdline="kvm_amd.nested=1", configs=conf(ZERO)),
        ILL | {"host-nested-next-boot": "pass"},
        cold_boot=True,
    ),
    "built in and on": Row(host(**BUILT_IN), GOOD),
    "built in and off": Row(off(**BUILT_IN), ILL, blocks=("host-nested", "host-nested-next-boot")),
    "built in, and a file that does not count": Row(
        off(**BUILT_IN, configs=conf(ONE)), ILL, blocks=("host-nested", "host-nested-next-boot")
    ),
    "the module could not be loaded again": Row(
        off(loading=("modprobe: FATAL: Module kvm_amd not found in directory /lib/modules/6.1.0-1-amd64",)),
        ILL | {"host-module": "fail"},
        drop_in(),
        blocks=("host-module",),
    ),
    "an install line stands in place of loading": Row(
        off(configs=conf("install kvm_amd /bin/true"), loading=("install /bin/true",)),
        ILL | {"host-module": "fail", "host-nested-next-boot": "unknown"},
        blocks=("host-module", "host-nested"),
    ),
    "a word that the module refuses": Row(
        off(configs=conf("options kvm_amd nested=Y")), ILL, blocks=("host-nested", "host-nested-next-boot")
    ),
    "on by another number": Row(host(nested="2"), GOOD),
    "VMs run": Row(off(users=(VM,), loaded={"kvm_amd": 5}), ILL | {"host-users": "warn"}, drop_in()),
    "VMs run that are not seen": Row(off(loaded={"kvm_amd": 5}), ILL | {"host-users": "warn"}, drop_in()),
    "VMs run, nothing to do": Row(host(users=(VM,), loaded={"kvm_amd": 5}), GOOD),
    "read-only /etc": Row(
        off(writable=False), ILL | {"host-writable": "fail"}, drop_in(), blocks=("host-writable",)
    ),
    "read-only /etc, nothing to do": Row(host(writable=False), GOOD),
    "no svm": Row(
        host(flags=frozenset({"sse"}), loaded={}, nested=None),
        {"host-cpu": "fail", "host-module": "fail", "host-nested-next-boot": "unknown"},
        cold_boot=True,
        blocks=("host-cpu",),
    ),
    "another maker": Row(host(vendor=None, nested=None), {"host-cpu": "fail"}, blocks=("host-cpu",)),
    "Arm": Row(host(vendor=None, machine="aarch64", nested=None), {"host-cpu": "fail"}, blocks=("host-cpu",)),
    "module not loaded": Row(
        host(loaded={}, nested=None, configs=conf(ONE)),
        {"host-cpu": "pass", "host-module": "fail", "host-nested-next-boot": "pass"},
        cold_boot=True,
    ),
    "module on the blacklist": Row(
        host(blacklist=("/etc/modprobe.d/no-kvm.conf:1",)), GOOD | {"host-module": "warn"}
    ),
    "module locked by the firmware": Row(
        host(loaded={}, nested=None, configs=conf(ONE), said=("kvm: disabled by bios",)),
        {"host-cpu": "pass", "host-module": "fail", "host-nested-next-boot": "pass"},
        blocks=("host-module",),
    ),
    "no such module": Row(
        host(loaded={}, nested=None, module_file=""),
        {"host-cpu": "pass", "host-module": "fail"},
        blocks=("host-module",),
    ),
    "VirtualBox": Row(host(loaded={"kvm_amd": 0, "vboxdrv": 2}), GOOD | {"host-other-hypervisor": "warn"}),
    "initramfs has it": Row(host(configs=conf(ONE), image=IMAGE), GOOD | {"host-initramfs": "pass"}),
    "initramfs lacks the file that decides": Row(
        host(configs=conf(ONE, "new.conf"), image=IMAGE), GOOD | {"host-initramfs": "warn"}, drop_in()
    ),
    "initramfs is older than the file that decides": Row(
        host(configs=conf(ONE), image=replace(IMAGE, newer=frozenset({f"{ETC}/kvm.conf"}))),
        GOOD | {"host-initramfs": "warn"},
        drop_in(),
    ),
    "initramfs is older than our own file": Row(
        host(configs={OURS: content("kvm_amd", nested=True)}, image=IMAGE),
        GOOD | {"host-initramfs": "warn"},
    ),
    "a VM that is drained": Row(
        off(users=(VM,), loaded={"kvm_amd": 5}, drain=(VM.key,)), ILL | {"host-users": "warn"}, drop_in()
    ),
    "a VM that is drained, and one that is not": Row(
        off(users=(VM, OTHER_VM), loaded={"kvm_amd": 9}, drain=(VM.key,)),
        ILL | {"host-users": "fail"},
        drop_in(),
        blocks=("host-users",),
    ),
    "initramfs has a file that is gone": Row(
        host(image=replace(IMAGE, configs=frozenset({"old.conf"}))),
        GOOD | {"host-initramfs": "warn"},
        drop_in(),
    ),
    "initramfs without the module": Row(host(image=replace(IMAGE, modules=frozenset())), GOOD),
    "no nested paging": Row(host(paging="0"), GOOD | {"host-paging": "warn"}),
    "KVM offers nothing": Row(
        host(offers=False), GOOD | {"host-kvm-offers": "fail"}, blocks=("host-kvm-offers",)
    ),
    "KVM was not asked": Row(host(offers=None, offers_evidence=""), GOOD | {"host-kvm-offers": "unknown"}),
    # disable
    "take it": Row(
        host(),
        {"host-nested": "fail", "host-nested-next-boot": "fail"},
        drop_in(nested=False),
        goal=OFF,
    ),
    "put back that there was no file": Row(
        host(configs={OURS: content("kvm_amd", nested=True)}),
        {"host-nested": "fail", "host-nested-next-boot": "fail"},
        Change(OURS, content("kvm_amd", nested=True), None),
        goal=replace(OFF, former=Change(OURS, None, content("kvm_amd", nested=True))),
    ),
    "take it, and the module could not be loaded again": Row(
        host(loading=("modprobe: FATAL: Module kvm_amd not found",)),
        {"host-module": "fail", "host-nested": "fail", "host-nested-next-boot": "fail"},
        drop_in(nested=False),
        blocks=("host-module",),
        goal=OFF,
    ),
    "off already": Row(
        off(configs=conf(ZERO)),
        {"host-nested": "pass", "host-nested-next-boot": "pass"},
        goal=OFF,
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_situation(name: str) -> None:
    row = ROWS[name]
    findings = row.facts.judge(row.goal)
    assert {f.check: f.status.value for f in findings} == row.found
    plan = make_plan(findings)
    assert plan.changes == ((row.change,) if row.change else ())
    assert plan.cold_boot is row.cold_boot
    assert tuple(f.check for f in plan.blockers) == row.blocks


@pytest.mark.parametrize("name", ROWS)
def test_every_ill_finding_has_evidence_and_a_cure(name: str) -> None:
    for finding in ROWS[name].facts.judge(ROWS[name].goal):
        assert finding.evidence
        assert bool(finding.cure) is finding.ill


def test_every_check_is_seen() -> None:
    assert {check for row in ROWS.values() for check in row.found} == set(CHECKS)


@pytest.mark.parametrize(
    ("facts", "names"),
    [
        (off(configs=conf(f"# x\n{ZERO}")), "/etc/modprobe.d/kvm.conf:2"),
        (off(cmdline="kvm_amd.nested=0"), "the kernel's command line (/proc/cmdline)"),
        (
            off(cmdline="kvm_amd.nested=0", sources=("/etc/default/grub:7",)),
            "the kernel's command line (/proc/cmdline), from /etc/default/grub:7",
        ),
        (host(configs=conf(ONE)), "/etc/modprobe.d/kvm.conf:1"),
        (host(), "no file and no word of the kernel's command line"),
    ],
)
def test_finding_names_what_decides(facts: HostFacts, names: str) -> None:
    [finding] = [f for f in facts.judge(ON) if f.check == "host-nested"]
    assert names in finding.evidence


@pytest.mark.parametrize(
    ("facts", "check"),
    [
        (host(blacklist=(f"{ETC}/x.conf:2",)), "host-module"),
        (host(blacklist=(f"{ETC}/x.conf:2",), loaded={}, nested=None), "host-module"),
        (host(paging="0", paging_words=(Word(f"{ETC}/x.conf", 2, "0"),)), "host-paging"),
    ],
)
def test_file_and_line_are_named_by_other_findings_as_well(facts: HostFacts, check: str) -> None:
    [finding] = [f for f in facts.judge(ON) if f.check == check]
    assert "/etc/modprobe.d/x.conf:2" in finding.evidence


def test_overruled_files_are_named() -> None:
    facts = host(configs={**conf(ZERO), **conf(ONE, "zz.conf")})
    [finding] = [f for f in facts.judge(ON) if f.check == "host-nested-next-boot"]
    assert "/etc/modprobe.d/zz.conf:1 says" in finding.evidence
    assert "it overrules /etc/modprobe.d/kvm.conf:1" in finding.evidence


def test_vms_that_hold_the_module_are_named() -> None:
    facts = off(users=(VM, replace(VM, pid=5, name="")), loaded={"kvm_amd": 9})
    [finding] = [f for f in facts.judge(ON) if f.check == "host-users"]
    assert "web-01 (pid 4711), qemu-system-x86 (pid 5)" in finding.evidence
    assert facts.busy


@pytest.mark.parametrize(
    ("tools", "words_of_it"),
    [
        ({"grub-mkconfig"}, "/etc/default/grub"),
        ({"proxmox-boot-tool"}, "proxmox-boot-tool refresh"),
        ({"bootctl"}, "/boot/loader/entries"),
    ],
)
def test_command_line_is_told_and_not_edited(tools: set[str], words_of_it: str) -> None:
    facts = off(**BUILT_IN, tools=frozenset(tools))
    [cure] = {f.cure for f in facts.judge(ON) if f.check.startswith("host-nested")}
    assert "kvm_amd.nested=1" in cure
    assert words_of_it in cure


@pytest.mark.parametrize(
    ("tools", "command"),
    [
        ({"update-initramfs", "dracut"}, ["update-initramfs", "-u", "-k", "6.1.0-1-amd64"]),
        ({"dracut"}, ["dracut", "--force", "--kver", "6.1.0-1-amd64"]),
        ({"mkinitcpio"}, ["mkinitcpio", "-P"]),
        (set(), []),
    ],
)
def test_initramfs_is_built_by_the_distributions_tool(tools: set[str], command: list[str]) -> None:
    assert rebuild(host(tools=frozenset(tools))) == command


def test_power_is_the_modules() -> None:
    assert host().power is Power.RUNNING
    assert host(nested=None).power is Power.STOPPED


def test_drained_vms_that_are_off_are_waited_for() -> None:
    running = off(users=(VM,), loaded={"kvm_amd": 5}, drain=(VM.key,))
    gone = replace(running, users=())
    assert (running.power, running.busy, running.waiting) == (Power.RUNNING, "", "")
    assert (gone.power, gone.waiting, gone.value(gone.parameter)) == (Power.RUNNING, VM.key, "0")


def test_what_is_in_effect_already_needs_no_reload() -> None:
    assert host().has(drop_in())
    assert not off().has(drop_in())
    assert off().has(drop_in(nested=False))
    assert not host().has(Change(OURS, content("kvm_amd", nested=True), None))


@pytest.mark.parametrize(("vendor", "on", "off_"), [("intel", "Y", "N"), ("amd", "1", "0")])
def test_parameter_is_written_as_it_reads(vendor: str, on: str, off_: str) -> None:
    facts = host(vendor=vendor)
    assert (facts.loaded_with(on=True), facts.loaded_with(on=False)) == (on, off_)


def test_our_file_says_whose_it_is() -> None:
    assert content("kvm_intel", nested=True) == f"{MARK}\noptions kvm_intel nested=1\n"
