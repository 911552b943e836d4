"""What a host says of itself: read strictly, and nothing of it trusted."""

from __future__ import annotations

import pytest

from nestvirt.backends.host.situation import Image, parse
from nestvirt.errors import ConnectionFailed

ETC = "/etc/modprobe.d"

SAID = """@ hostname
 node1
@ id
 3d1219c7
@ machine
 x86_64
@ kernel
 6.1.0-1-amd64
@ cpu
 vendor_id\t: GenuineIntel
 model name\t: Intel(R) Xeon(R) \x1b[2J
 flags\t\t: fpu vmx sse
@ cmdline
 quiet kvm-intel.nested=1
@ sources
 /etc/default/grub:9
@ said
 [    1.5] kvm: Nested Virtualization enabled
@ modules
 kvm_intel 380928 4 - Live 0x0
 kvm 1146880 1 kvm_intel, Live 0x0
@ parameter /sys/module/kvm_intel/parameters/nested
 Y
@ parameter /sys/module/kvm_intel/parameters/ept
 N
@ type
 nested: (bool)
@ loading
 insmod /lib/modules/6.1.0-1-amd64/kernel/arch/x86/kvm/kvm.ko
 insmod /lib/modules/6.1.0-1-amd64/kernel/arch/x86/kvm/kvm-intel.ko nested=0
@ file kvm_intel
 /lib/modules/6.1.0-1-amd64/kernel/arch/x86/kvm/kvm-intel.ko
@ file kvm_amd
 /lib/modules/6.1.0-1-amd64/kernel/arch/x86/kvm/kvm-amd.ko
@ config /etc/modprobe.d/a.conf
@ config /etc/modprobe.d/kvm.conf
 options kvm_intel nested=0
@ writable
 /etc/modprobe.d
@ proxmox 100
 4711
@ libvirt db,eu
 12
 <uuid>c0ffee00-0000-4000-8000-000000000002</uuid>
@ libvirt gone
 99
@ user 4711
 kvm
 -name
 web-01,debug-threads=on
@ user 12
 qemu-system-x86
 -name
 guest=whatever
@ user 13
 -name
 -name
 guest=a,,b,debug-threads=on
@ initramfs /boot/initrd.img-6.1.0-1-amd64
 usr/lib/modules/6.1.0-1-amd64/kernel/arch/x86/kvm/kvm-intel.ko
 etc/modprobe.d/kvm.conf
 newer /etc/modprobe.d/a.conf
@ tool dracut
@ end
"""


def test_what_a_host_says_is_read() -> None:
    identity, said = parse(SAID)
    assert (identity, said.hostname, said.vendor, said.module) == ("3d1219c7", "node1", "intel", "kvm_intel")
    assert "\x1b" not in said.model
    assert (said.nested, said.on, said.paging, said.writable) == ("Y", True, "N", True)
    assert said.loaded == {"kvm_intel": 4, "kvm": 1}
    assert [(w.path, w.line, w.value) for w in said.words] == [
        (f"{ETC}/kvm.conf", 1, "0"),
        ("/proc/cmdline", 0, "1"),
    ]
    assert [str(user) for user in said.users] == ["web-01 (pid 4711)", "db,eu (pid 12)", "a,b (pid 13)"]
    assert [user.key for user in said.users] == [
        "proxmox:100",
        "libvirt:c0ffee00-0000-4000-8000-000000000002",
        "",
    ]
    assert said.sources == ("/etc/default/grub:9",)
    assert said.said == ("[ 1.5] kvm: Nested Virtualization enabled",)
    assert said.image == Image(
        "/boot/initrd.img-6.1.0-1-amd64",
        frozenset({"kvm_intel"}),
        frozenset({"kvm.conf"}),
        frozenset({f"{ETC}/a.conf"}),
    )
    assert set(said.configs) == {f"{ETC}/a.conf", f"{ETC}/kvm.conf"}
    assert said.tools == {"dracut"}


@pytest.mark.parametrize(
    "text",
    [
        SAID.replace("@ end", "@ config /etc/modprobe.d/kvm.conf\n install kvm_intel /tmp/x\n@ end"),
        SAID.replace(" kvm\n", "kvm\n"),
        SAID.replace("@ end", "@ id\n 0\n@ end"),
    ],
    ids=["a file twice", "a line of its own", "an identity twice"],
)
def test_forged_answers_are_refused(text: str) -> None:
    with pytest.raises(ConnectionFailed):
        parse(text)


def test_a_login_may_greet() -> None:
    assert parse(f"Welcome to node1!\n\n{SAID}") == parse(SAID)


def test_a_process_that_calls_itself_a_vm_is_nobodys() -> None:
    forged = SAID.replace("@ user 13\n -name\n -name\n", "@ user 13\n x\n -name\n")
    forged = forged.replace("guest=a,,b,debug-threads=on", "guest=db,,eu")
    users = parse(forged)[1].users
    assert [user.name for user in users] == ["web-01", "db,eu", "db,eu"]
    assert [bool(user.key) for user in users] == [True, True, False]


@pytest.mark.parametrize(
    ("part", "body"),
    [
        ("proxmox 1x0", "4711"),
        ("proxmox \u0661\u0662\u0663", "4711"),
        ("libvirt web-01", "4711\n <uuid>--help</uuid>"),
        ("libvirt web-01", "4711"),
        ("libvirt web-01", "pid\n <uuid>c0ffee00-0000-4000-8000-000000000002</uuid>"),
    ],
)
def test_an_identity_is_a_number_or_a_uuid(part: str, body: str) -> None:
    users = parse(SAID.replace("@ proxmox 100\n 4711\n", f"@ {part}\n {body}\n"))[1].users
    assert users[0].key == ""


@pytest.mark.parametrize("text", ["", "Welcome to node1!\n", SAID.replace("@ end\n", "")])
def test_other_answers_are_refused(text: str) -> None:
    with pytest.raises(ConnectionFailed) as caught:
        parse(text)
    assert caught.value.evidence
