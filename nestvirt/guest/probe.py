#!/usr/bin/env python3
"""Prove that this machine can run virtual machines, by running guest code through /dev/kvm.

Stands alone, Python 3.6, standard library only: it can be sent into any guest with  python3 -I - < probe.py
Usage: probe.py [--root DIR] [--load-modules] [--pretty]      prints one JSON object
Exit:  0 works   1 works-emulated or off   2 usage   3 unknown
Changes nothing and loads nothing unless --load-modules asks. With --root the files of a saved machine are judged.
"""

import errno
import fcntl
import json
import mmap
import os
import select
import signal
import stat
import struct
import sys
import time

TYPE_CHECKING = False  # importing typing would take longer than the proof
if TYPE_CHECKING:
    from typing import Any, Callable, Iterator

    Work = Callable[[], Iterator[tuple[str, Any]]]

DEADLINE = 8.0  # seconds for all that may hang
FILE_LIMIT = 4 << 20
TEXT_LIMIT = 300
EMULATED_RATIO = 20  # native over guest speed; hardware stays below 3, emulation is in the hundreds
EMULATED_RATE = 10e6  # loops/s: the limit where native speed cannot be measured
SLOW_EXIT_NS = 1000000
EXITS = 300

CURES = {
    "confidential-guest": "use an ordinary VM: a confidential guest cannot run VMs",
    "container": "start the container with --device /dev/kvm",
    "no-cpu-flag": "give this VM {flag} (nested virtualization) on its hypervisor, then power it off and on",
    "firmware-locked": "turn on virtualization (VT-x, AMD-V) in the firmware setup, then power off and on",
    "module-absent": "install the package with {module} for kernel {kernel}, or boot a kernel that has it",
    "module-blacklisted": "remove that line, then: modprobe {module}",
    "module-not-loaded": "modprobe {module}",
    "device-missing": "mknod -m 660 /dev/kvm c 10 232",
    "device-stale": "modprobe {module}",
    "device-denied": "usermod -aG {group} {user}, then log in again",
    "kvm-api": "boot a kernel whose KVM speaks API version 12",
    "kvm-busy": "stop the other hypervisor and unload its module: modprobe -r vboxdrv vmmon",
    "kvm-refused": "see the kernel's reason: dmesg | grep -i kvm",
    "entry-failed": "update the hypervisor below, or change this VM's CPU model; see: dmesg | grep -i kvm",
    "wrong-result": "update the hypervisor below: it runs guest code wrongly",
    "hung": "update the hypervisor below: guest code did not come back",
    "crashed": "run the probe again, and report it if it crashes again",
    "emulated": "give this VM {flag} (nested virtualization) on its hypervisor, then power it off and on",
    "slow-exits": "update the hypervisor below, or give it idle CPUs",
    "shadow-paging": "reload {module} with {paging}=1, and have the hypervisor below expose {paging}",
    "not-run": "run the probe on the machine itself: python3 -I probe.py",
    "unsupported-arch": "run the probe on x86-64; elsewhere start a small VM by hand",
    "unreadable": "run the probe as root, with /proc and /sys mounted and the msr module loaded",
    "vhost-missing": "modprobe -a vhost_net vhost_vsock tun",
}
HYPERVISORS = {  # by their CPUID signature
    "KVMKVMKVM": "kvm",
    "Microsoft Hv": "hyperv",
    "VMwareVMware": "vmware",
    "XenVMMXenVMM": "xen",
    "TCGTCGTCGTCG": "qemu",
    "VBoxVBoxVBox": "virtualbox",
    "bhyve bhyve": "bhyve",
    "prl hyperv": "parallels",
}
DMI = {"qemu": "qemu", "vmware": "vmware", "virtualbox": "virtualbox", "xen": "xen", "bochs": "bochs", "kvm": "kvm"}
CONTAINER_GROUPS = ("docker", "kubepods", "containerd", "libpod", "/lxc")
PARAMETERS = ("nested", "ept", "npt", "unrestricted_guest", "enable_shadow_vmcs", "enable_apicv", "avic", "vgif")
VHOST = {"vhost_net": "/dev/vhost-net", "vhost_vsock": "/dev/vhost-vsock", "tun": "/dev/net/tun"}


class Machine:
    """The files of one machine below a root: "/" is this machine, anything else a saved one."""

    def __init__(self, root: str) -> None:
        self.root = os.path.realpath(root)
        self.live = self.root == "/"
        lines = self.read("/proc/cpuinfo").split("\n\n")[0].splitlines()
        self.cpu = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        self.flags = self.cpu.get("flags", "").split()
        self.kernel = os.uname().release if self.live else self.read("/proc/sys/kernel/osrelease").strip()
        self.arch = os.uname().machine if self.live else "x86_64" if "vendor_id" in self.cpu else "unknown"
        makers = {"GenuineIntel": "intel", "AuthenticAMD": "amd", "HygonGenuine": "amd"}
        self.vendor = makers.get(self.cpu.get("vendor_id", ""), "other")
        self.flag = "svm" if self.vendor == "amd" else "vmx"
        self.module = "kvm_amd" if self.vendor == "amd" else "kvm_intel"
        self.paging = "npt" if self.vendor == "amd" else "ept"
        self.user = self.group = ""
        self.log = [line.partition(";")[2] for line in self.read("/dev/kmsg").splitlines()]

    def path(self, name: str) -> str:
        """Where `name` is found; the links of a saved machine do not lead out of it."""
        path = os.path.realpath(self.root + name)
        return name if self.live else path if path.startswith(self.root + os.sep) else self.root + "/outside"

    def has(self, name: str) -> bool:
        """True where there is such a file."""
        return os.path.exists(self.path(name))

    def names(self, folder: str) -> "list[str]":
        """What a directory holds, sorted; nothing where it cannot be read."""
        try:
            return sorted(os.listdir(self.path(folder)))
        except OSError:
            return []

    def link(self, name: str) -> str:
        """Where a link points; empty where it cannot be read."""
        try:
            return os.readlink(self.path(name))
        except OSError:
            return ""

    def name_of(self, table: str, number: int) -> str:
        """The name that /etc/passwd or /etc/group has for a number, else the number."""
        rows = [line.split(":") for line in self.read(table).splitlines()]
        return next((row[0] for row in rows if row[2:] and row[2] == str(number)), str(number))

    def raw(self, name: str, offset: int = 0, size: int = FILE_LIMIT) -> bytes:
        """Bytes of a file, never waiting for more (the kernel log has no end); none where it cannot be read."""
        chunks = []  # type: list[bytes]
        try:
            fd = os.open(self.path(name), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return b""
        try:
            if offset:
                return os.pread(fd, size, offset)
            while size > 0:
                chunks.append(os.read(fd, 65536))
                size -= len(chunks[-1]) or size
        except OSError:
            pass  # EAGAIN is the end of the kernel log; other files gave what they had
        finally:
            os.close(fd)
        return b"".join(chunks)

    def read(self, name: str) -> str:
        """The text of a file; empty where it cannot be read."""
        return self.raw(name).decode("utf-8", "replace")

    def providers(self) -> "list[str]":
        """The loaded modules that can stand behind /dev/kvm: kvm_intel, kvm_amd, kvm_pvm and the like."""
        return [name for name in self.names("/sys/module") if name.startswith("kvm_")]

    def parameters(self) -> "dict[str, str]":
        """The parameters of the loaded provider."""
        folders = ["/sys/module/{}/parameters/".format(provider) for provider in self.providers()]
        return {name: self.read(folder + name).strip() for folder in folders for name in self.names(folder)}

    def on_disk(self, module: str) -> str:
        """Which index of this kernel's modules lists `module`; empty where none does."""
        files = ["/{}.ko".format(name) for name in (module, module.replace("_", "-"))]
        for index in ("modules.builtin", "modules.dep"):
            for folder in ("/lib/modules/", "/usr/lib/modules/"):
                text = self.read(folder + self.kernel + "/" + index)
                if any(file in text for file in files):
                    return folder + self.kernel + "/" + index
        return ""

    def blacklisting(self) -> str:
        """What keeps the module from loading, and where it is written; empty where nothing does."""
        for word in self.read("/proc/cmdline").split():
            key, _, value = word.replace("-", "_").partition("=")
            if key in ("module_blacklist", "modprobe.blacklist") and {self.module, "kvm"} & set(value.split(",")):
                return word + " in /proc/cmdline"
        paths = {}  # type: dict[str, str]
        for folder in ("/lib", "/usr/lib", "/usr/local/lib", "/run", "/etc"):  # the last file of a name counts
            paths.update({name: "{}/modprobe.d/{}".format(folder, name) for name in self.names(folder + "/modprobe.d")})
        for path in paths.values():
            for line in self.read(path).splitlines():
                words = line.replace("-", "_").split() + ["", "", ""]
                off = words[0] == "install" and os.path.basename(words[2]) in ("false", "true")
                if words[:2] == ["blacklist", self.module] or (off and words[1] in (self.module, "kvm")):
                    return "'{}' in {}".format(line.strip(), path)
        return ""

    def cpuid(self, leaf: int) -> "tuple[int, ...] | None":
        """EAX, EBX, ECX, EDX of a CPUID leaf from the kernel's cpuid device; None where that is not there."""
        data = self.raw("/dev/cpu/0/cpuid", leaf, 16)
        return struct.unpack("<4I", data) if len(data) == 16 else None

    def node(self) -> "tuple[str, str]":
        """One word for /dev/kvm, and the evidence. Never opens a node without a driver: that would load one."""
        try:
            info = os.stat(self.path("/dev/kvm"))
        except OSError as e:
            return "missing", "/dev/kvm: {}".format(e.strerror)
        if not stat.S_ISCHR(info.st_mode) or info.st_rdev != os.makedev(10, 232):
            return "wrong", "/dev/kvm is not character device 10:232 (mode {:o})".format(info.st_mode)
        misc = self.read("/proc/misc")
        if " kvm\n" not in misc and (misc or not self.providers()):
            return "stale", "/dev/kvm has no driver behind it: kvm is not in /proc/misc, nor kvm_* in /sys/module"
        if not self.live:
            return "closed", "/dev/kvm is character device 10:232"
        try:
            os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
        except OSError as e:
            word = "denied" if e.errno in (errno.EACCES, errno.EPERM) else "stale"
            return word, "opening /dev/kvm: {}".format(e.strerror)
        return "open", "/dev/kvm is character device 10:232 and opens"


class Broken(Exception):
    """The step that was tried went wrong: a cause, and the evidence."""


def apart(work: "Work", deadline: float) -> "dict[str, Any]":
    """Do `work` in a child process, which may hang or die. What its steps found; "broken" holds what went wrong."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            tell(work, lambda *step: os.write(writer, json.dumps(step).encode() + b"\n"))
        finally:
            os._exit(0)
    os.close(writer)
    said, end = b"", time.monotonic() + deadline
    while select.select([reader], [], [], max(0, end - time.monotonic()))[0]:
        chunk = os.read(reader, 65536)
        if not chunk:
            break
        said += chunk
    os.close(reader)
    hung = time.monotonic() >= end
    os.kill(child, signal.SIGKILL)
    for _ in range(100):  # a process stuck in the kernel is left to it
        if os.waitpid(child, os.WNOHANG)[0]:
            break
        time.sleep(0.01)
    steps = dict(json.loads(line.decode()) for line in said.split(b"\n")[:-1])
    if "end" not in steps:
        steps["broken"] = ("hung", "no answer within {:g} s".format(deadline)) if hung else ("crashed", "it died")
    return steps


def tell(work: "Work", say: "Callable[..., Any]") -> None:
    """Say each step of `work` as soon as it is done, and what broke it."""
    try:
        for name, found in work():
            say(name, found)
    except Broken as e:
        say("broken", e.args)
    except OSError as e:
        cause = "kvm-busy" if e.errno == errno.EBUSY else "kvm-refused"
        say("broken", (cause, "the kernel answered {}".format(e)))
    except (ImportError, MemoryError) as e:  # no ctypes, or none allowed
        say("broken", ("not-run", "Python cannot do it here: {!r}".format(e)))
    say("end", True)


def native(code: bytes) -> "Callable[..., int]":
    """Machine code as a function of this process. Raises OSError where memory may not be executable."""
    import ctypes  # needed only where something is run

    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    call = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64, ctypes.c_char_p)(address(page))
    return lambda number, text=b"": (call(number, text), page)[0]  # the page lives as long as the function


def address(memory: mmap.mmap) -> int:
    """Where memory lies in this process."""
    import ctypes

    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def native_steps() -> "Iterator[tuple[str, Any]]":
    """CPUID as the processor says it, and the speed of this machine's own loops."""
    try:
        # push rbx; mov eax,edi; xor ecx,ecx; cpuid; mov [rsi],eax; [rsi+4],ebx; [rsi+8],ecx; [rsi+12],edx; pop rbx; ret
        cpuid = native(bytes.fromhex("5389f831c90fa28906895e04894e0889560c5bc3"))
        for leaf in (0x1, 0x40000000, 0x80000001):
            registers = bytes(bytearray(16))
            cpuid(leaf, registers)
            yield "cpuid-{:x}".format(leaf), struct.unpack("<4I", registers)
        yield "native", loops_per_s(native(bytes.fromhex("4889f9" + SPIN + "c3")))  # mov rcx,rdi; the loop; ret
    except OSError:
        pass  # executable memory is refused here: the absolute limit decides


def loops_per_s(spin: "Callable[[int], Any]") -> float:
    """The best of three timings, each long enough to count: a busy machine must not look like an emulated one."""
    count, rates = 5000, []  # type: int, list[float]
    while len(rates) < 3:
        start = time.perf_counter()
        spin(count)
        seconds = time.perf_counter() - start
        if seconds < 0.002 and count < 20000000:
            count *= 4
        else:
            rates.append(count / seconds if seconds > 0 else 0.0)
    return max(rates)


SPIN = "48ffc975fb"  # dec rcx; jnz to the dec. The same bytes are timed here and in the guest
REAL, LONG, LOOP, TICK, DATA = 0x4000, 0x5000, 0x6000, 0x7000, 0x8000  # the guest's pages
ALIAS = 0x200000  # a second virtual address of the guest's memory: only paging leads there
CODE = {
    REAL: "01d8eff4",  # add ax,bx; out dx,ax; hlt
    LONG: "488b03480fafc648894308eff4",  # mov rax,[rbx]; imul rax,rsi; mov [rbx+8],rax; out dx,eax; hlt
    LOOP: SPIN + "f4",  # the loop; hlt
    TICK: "ee48ffc975fa" + "f4",  # out dx,al; dec rcx; jnz to the out; hlt
}
TABLES = {0x1000: (0x2003,), 0x2000: (0x3003,), 0x3000: (0x83, 0x83)}  # 2 MiB pages at 0 and ALIAS, both on 0
IO, HLT = 2, 5  # exit reasons
PORT = 0x3F8


class Guest:
    """A VM with one vCPU and 64 KiB of memory."""

    def __init__(self, kvm: int, vm: int, vcpu: int) -> None:
        self.vcpu = vcpu
        self.memory = mmap.mmap(-1, 0x10000)
        for at, code in CODE.items():
            self.memory[at : at + len(code) // 2] = bytes.fromhex(code)
        for at, entries in TABLES.items():
            self.memory[at : at + 8 * len(entries)] = struct.pack("<{}Q".format(len(entries)), *entries)
        fcntl.ioctl(vm, 0xAE47, 0x7FFBD000)  # KVM_SET_TSS_ADDR
        fcntl.ioctl(vm, 0x4020AE46, struct.pack("<IIQQQ", 0, 0, 0, 0x10000, address(self.memory)))  # .._MEMORY_REGION
        self.state = mmap.mmap(vcpu, fcntl.ioctl(kvm, 0xAE04, 0))  # KVM_GET_VCPU_MMAP_SIZE
        self.cpuid = bytearray(struct.pack("<II", 256, 0)) + bytearray(256 * 40)
        fcntl.ioctl(kvm, 0xC008AE05, self.cpuid)  # KVM_GET_SUPPORTED_CPUID
        fcntl.ioctl(vcpu, 0x4008AE90, self.cpuid)  # KVM_SET_CPUID2
        self.sregs = bytearray(312)
        fcntl.ioctl(vcpu, 0x8138AE83, self.sregs)  # KVM_GET_SREGS
        self.sregs[:8] = bytes(8)  # the code segment begins at 0
        struct.pack_into("<H", self.sregs, 12, 0)
        fcntl.ioctl(vcpu, 0x4138AE84, self.sregs)  # KVM_SET_SREGS

    def enter_long_mode(self) -> None:
        """Switch to 64-bit mode with paging on."""
        data = struct.pack("<QIH10B", 0, 0xFFFFFFFF, 16, 3, 1, 0, 1, 1, 0, 1, 0, 0, 0)
        code = struct.pack("<QIH10B", 0, 0xFFFFFFFF, 8, 11, 1, 0, 0, 1, 1, 1, 0, 0, 0)
        self.sregs[:144] = code + data * 5
        struct.pack_into("<4Q", self.sregs, 224, 0x80050033, 0, 0x1000, 0x20)  # cr0 cr2 cr3 cr4
        struct.pack_into("<Q", self.sregs, 264, 0x500)  # efer: long mode, enabled and active
        fcntl.ioctl(self.vcpu, 0x4138AE84, self.sregs)

    def start(self, at: int, rax: int = 0, rbx: int = 0, rcx: int = 0, rsi: int = 0) -> None:
        """Set the registers."""
        fcntl.ioctl(self.vcpu, 0x4090AE82, struct.pack("<18Q", rax, rbx, rcx, PORT, rsi, *[0] * 11, at, 2))

    def run(self, wanted: int) -> None:
        """KVM_RUN until the guest stops; it has to be for the reason that is wanted."""
        while True:
            try:
                fcntl.ioctl(self.vcpu, 0xAE80, 0)
                break
            except InterruptedError:
                pass
        reason, detail = struct.unpack_from("<I", self.state, 8)[0], struct.unpack_from("<Q", self.state, 32)[0]
        if reason != wanted:
            what = {8: "SHUTDOWN", 9: "FAIL_ENTRY hardware reason", 17: "INTERNAL_ERROR suberror"}.get(reason, reason)
            raise Broken("entry-failed", "KVM_RUN stopped with KVM_EXIT {} {:#x}".format(what, detail))

    def output(self, size: int) -> int:
        """What the guest writes to the port, after which it halts."""
        self.run(IO)
        at = struct.unpack_from("<Q", self.state, 40)[0]
        value = int.from_bytes(self.state[at : at + size], "little")
        self.run(HLT)
        return value

    def prove(self) -> str:
        """Two sums with operands that nobody can guess: in real mode, and in 64-bit mode through page tables."""
        a, b = struct.unpack("<HH", os.urandom(4))
        self.start(REAL, rax=a, rbx=b)
        real, wanted = self.output(2), (a + b) % (1 << 16)
        self.enter_long_mode()
        x, y = struct.unpack("<QQ", os.urandom(16))
        self.memory[DATA : DATA + 8] = struct.pack("<Q", x)
        self.start(LONG, rbx=ALIAS + DATA, rsi=y)
        out = self.output(4)
        product = struct.unpack_from("<Q", self.memory, DATA + 8)[0]
        said = "real mode: {} + {} = {}; 64-bit with paging: {} * {} = {}".format(a, b, real, x, y, product)
        if (real, product, out) != (wanted, x * y % (1 << 64), x * y % (1 << 32)):
            raise Broken("wrong-result", "the guest computed wrongly. " + said)
        return "guest code ran, and computed rightly (modulo its width). " + said

    def spin(self, count: int) -> None:
        """Run the loop."""
        self.start(LOOP, rcx=count)
        self.run(HLT)

    def exit_ns(self) -> int:
        """The median time of an exit to here and back."""
        self.start(TICK, rcx=EXITS)
        times = []
        for _ in range(EXITS):
            start = time.perf_counter()
            self.run(IO)
            times.append(time.perf_counter() - start)
        return int(sorted(times)[EXITS // 2] * 1e9)

    def nests(self) -> bool:
        """True where KVM offers svm or vmx to its guests."""
        count = struct.unpack_from("<I", self.cpuid)[0]
        entries = [struct.unpack_from("<7I", self.cpuid, 8 + 40 * i) for i in range(count)]
        return any((e[0] == 1 and e[5] >> 5 & 1) or (e[0] == 0x80000001 and e[5] >> 2 & 1) for e in entries)


def kvm_steps() -> "Iterator[tuple[str, Any]]":
    """The proof, step by step."""
    kvm = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    version = fcntl.ioctl(kvm, 0xAE00, 0)
    if version != 12:
        raise Broken("kvm-api", "KVM_GET_API_VERSION says {}, not 12".format(version))
    yield "api", "KVM_GET_API_VERSION says 12"
    vm = fcntl.ioctl(kvm, 0xAE01, 0)
    yield "create", "KVM_CREATE_VM made a VM"
    vcpu = fcntl.ioctl(vm, 0xAE41, 0)
    yield "vcpu", "KVM_CREATE_VCPU made a vCPU"
    guest = Guest(kvm, vm, vcpu)
    yield "run", guest.prove()
    yield "nests", guest.nests()
    yield "speed", loops_per_s(guest.spin)
    yield "exit", guest.exit_ns()


class Case:
    """What is known of one machine, and the findings made of it, in the order of the chain."""

    def __init__(self, machine: Machine, steps: "dict[str, Any]") -> None:
        self.machine = machine
        self.steps = steps
        self.node, self.node_evidence = machine.node()
        self.hidden = False
        self.findings = []  # type: list[dict[str, Any]]

    def add(self, check: str, status: str, evidence: str, cause: "str | None" = None, cure: str = "") -> None:
        """Add a finding; its cure is the cause's."""
        cure = cure or (CURES[cause].format(**vars(self.machine)) if cause else "")
        values = ("guest-" + check, status, clean(evidence), cause, cure)
        self.findings.append(dict(zip(("check", "status", "evidence", "cause", "cure"), values)))

    def broken(self) -> "str | None":
        """The cause of the first broken link so far."""
        return next((finding["cause"] for finding in self.findings if finding["status"] == "fail"), None)

    def logged(self, *words: str) -> str:
        """The last line of the kernel log on KVM that holds one of the words."""
        about = [line for line in self.machine.log if any(name in line.lower() for name in ("kvm", "vmx", "svm"))]
        return next((line for line in reversed(about) if any(word in line.lower() for word in words)), "")

    def cpuid(self, leaf: int) -> "tuple[int, ...] | None":
        """A CPUID leaf from the processor itself, else from the kernel's cpuid device."""
        return self.steps.get("cpuid-{:x}".format(leaf)) or self.machine.cpuid(leaf)

    def hypervisor(self) -> "tuple[str, str]":
        """The hypervisor below, and where it says so."""
        leaf, m = self.cpuid(0x40000000), self.machine
        present = self.cpuid(0x1)
        if leaf and present and present[2] >> 31:
            signature = struct.pack("<3I", *leaf[1:]).decode("ascii", "replace").strip("\0 ")
            return HYPERVISORS.get(signature, signature), "CPUID leaf 0x40000000 says " + signature
        for path in ("/sys/hypervisor/type", "/sys/class/dmi/id/sys_vendor", "/sys/class/dmi/id/product_name"):
            text = m.read(path).strip()
            name = next((name for word, name in DMI.items() if word in text.lower()), "")
            if name:
                return name, "{} says {}".format(path, text)
        if "hypervisor" in m.flags:
            return "unnamed", "/proc/cpuinfo has the flag hypervisor"
        return "none", "no sign of one in CPUID, /sys/hypervisor and DMI"

    def check_hypervisor(self) -> None:
        self.add("hypervisor", "pass", "{}: {}".format(*self.hypervisor()))

    def check_confidential(self) -> None:
        m = self.machine
        signs = [path for path in ("/dev/sev-guest", "/dev/tdx_guest", "/sys/devices/system/cpu/sev") if m.has(path)]
        signs += [flag + " in /proc/cpuinfo" for flag in ("sev_guest", "tdx_guest") if flag in m.flags]
        signs += [line for line in m.log if "as an SEV guest" in line or "features active: AMD SEV" in line]
        if signs:
            self.add("confidential", "fail", "this is a confidential guest: " + signs[0], "confidential-guest")
        else:
            self.add("confidential", "pass", "no sign of SEV or TDX in /proc/cpuinfo, /dev and the kernel log")

    def container(self) -> str:
        """The sign that this is a container; empty where there is none."""
        m = self.machine
        for path in ("/run/.containerenv", "/.dockerenv", "/run/systemd/container"):
            if m.has(path):
                return path
        for path, words in (("/proc/1/environ", ("container=",)), ("/proc/1/cgroup", CONTAINER_GROUPS)):
            word = next((word for word in words if word in m.read(path)), "")
            if word:
                return "{} in {}".format(word, path)
        return ""

    def check_container(self) -> None:
        sign = self.container()
        if sign:
            cure = "none is needed while /dev/kvm opens; else start the container with --device /dev/kvm"
            self.add("container", "warn", "this looks like a container: " + sign, None, cure)
        else:
            self.add("container", "pass", "no sign of a container")

    def check_cpu_flag(self) -> None:
        m = self.machine
        leaf, bit = (0x80000001, 2) if m.flag == "svm" else (0x1, 5)
        raw = self.cpuid(leaf)
        self.hidden = bool(raw and raw[2] >> bit & 1) and m.flag not in m.flags
        if m.flag in m.flags:
            self.add("cpu-flag", "pass", "{} in /proc/cpuinfo".format(m.flag))
        elif self.hidden:
            self.add("cpu-flag", "pass", "CPUID has {}, though /proc/cpuinfo hides it".format(m.flag))
        elif not m.cpu:
            self.add("cpu-flag", "unknown", "/proc/cpuinfo cannot be read", "unreadable")
        else:
            log = self.logged("no hardware support", "not available", "not supported by cpu")
            text = "no {} in /proc/cpuinfo ({}). {}".format(m.flag, m.cpu.get("vendor_id"), log)
            self.add("cpu-flag", "fail", text, "no-cpu-flag")

    def check_firmware(self) -> None:
        m = self.machine
        register, locked = (0xC0010114, lambda v: v & 16) if m.vendor == "amd" else (0x3A, lambda v: v & 5 == 1)
        raw = m.raw("/dev/cpu/0/msr", register, 8)
        log = self.logged("disabled by bios", "disabled (by bios)", "not enabled (by bios)")
        if self.broken() == "no-cpu-flag":
            self.add("firmware", "skip", "not asked: the CPU flag is missing")
        elif len(raw) == 8:
            value = struct.unpack("<Q", raw)[0]
            text = "MSR {:#x} = {:#x} in /dev/cpu/0/msr".format(register, value)
            self.add("firmware", *(("fail", text, "firmware-locked") if locked(value) else ("pass", text)))
        elif m.module in m.providers():
            self.add("firmware", "pass", m.module + " is loaded, which a locked firmware would not allow")
        elif log or self.hidden:
            text = log or "CPUID has {}, /proc/cpuinfo does not: the kernel hides what firmware locked".format(m.flag)
            self.add("firmware", "fail", text, "firmware-locked")
        else:
            self.add("firmware", "unknown", "/dev/cpu/0/msr cannot be read; the log is silent", "unreadable")

    def check_module(self) -> None:
        m = self.machine
        providers, disk, ban = m.providers(), m.on_disk(m.module), m.blacklisting()
        if providers:
            self.add("module", "pass", "/sys/module has " + ", ".join(providers))
        elif ban:
            self.add("module", "fail", "{} is not loaded: {}".format(m.module, ban), "module-blacklisted")
        elif disk:
            status = "skip" if self.broken() else "warn" if self.node == "stale" else "fail"
            text = "{} is not in /sys/module, and {} lists it. {}".format(m.module, disk, self.logged("kvm"))
            self.add("module", status, text, "module-not-loaded")
        elif self.node in ("open", "closed"):
            self.add("module", "pass", "/proc/misc lists kvm")
        else:
            text = "{} is not in /sys/module, nor in the module lists of kernel {}".format(m.module, m.kernel)
            self.add("module", "fail", text, "module-absent")

    def check_module_params(self) -> None:
        shown = ["{}={}".format(*pair) for pair in self.machine.parameters().items() if pair[0] in PARAMETERS]
        text = "{}: {}".format(", ".join(self.machine.providers()), ", ".join(shown) or "none that matter")
        self.add("module-params", "pass" if shown else "skip", text if self.machine.providers() else "not asked: none loaded")

    def check_device(self) -> None:
        loaded = bool(self.machine.providers())
        if self.node in ("open", "closed", "denied"):
            self.add("device", "pass", self.node_evidence if self.node != "denied" else "character device 10:232")
        elif self.node == "wrong":
            self.add("device", "fail", self.node_evidence, "device-stale", "rm /dev/kvm && mknod -m 660 /dev/kvm c 10 232")
        elif self.node == "stale":
            self.add("device", "fail", self.node_evidence, "device-stale")
        elif self.broken() and not loaded:
            self.add("device", "skip", "not asked: no KVM is loaded. " + self.node_evidence)
        else:
            self.add("device", "fail", self.node_evidence, "container" if self.container() else "device-missing")

    def check_device_access(self) -> None:
        m = self.machine
        if self.node not in ("open", "closed", "denied"):
            return self.add("device-access", "skip", "not asked: no usable /dev/kvm")
        info = os.stat(m.path("/dev/kvm"))
        m.user, m.group = m.name_of("/etc/passwd", os.getuid()), m.name_of("/etc/group", info.st_gid)
        owner = m.name_of("/etc/passwd", info.st_uid)
        text = "/dev/kvm is {:o} {}:{}".format(stat.S_IMODE(info.st_mode), owner, m.group)
        others = "everybody" if info.st_mode & 6 == 6 else "group " + m.group if info.st_mode & 0o60 == 0o60 else "nobody"
        text += "; besides {}, {} may open it".format(owner, others)
        if m.live:
            text += "; this is {} with groups {}. {}".format(m.user, sorted(os.getgroups()), self.node_evidence)
        if self.node == "denied":
            cure = "" if os.getuid() else "allow device 10:232 to this container: --device /dev/kvm"
            self.add("device-access", "fail", text, "device-denied", cure)
        else:
            self.add("device-access", "pass" if m.live else "skip", text)
        return None

    def asked(self, check: str, step: str) -> bool:
        """True where a step came back. Else says why not: the first that did not carries the cause."""
        if step in self.steps:
            return True
        cause, text = self.steps.get("broken", ("not-run", "no guest code was run"))
        settled = any(finding["cause"] == cause for finding in self.findings)
        unknown = cause in ("not-run", "crashed")
        if self.node not in ("open", "closed") or settled or (unknown and step != "run"):
            self.add(check, "skip", "not asked: " + ("no usable /dev/kvm" if self.node not in ("open", "closed") else text))
        else:
            rivals = [name for name in ("vboxdrv", "vmmon") if self.machine.has("/sys/module/" + name)]
            text += "; {} loaded".format(" and ".join(rivals)) if cause == "kvm-busy" and rivals else ""
            self.add(check, "unknown" if unknown else "fail", "{}: {}".format(step, text), cause)
        return False

    def check_kvm(self) -> None:
        for step in ("api", "create", "vcpu", "run"):
            if self.asked("kvm-" + step, step):
                self.add("kvm-" + step, "pass", self.steps[step])

    def check_speed(self) -> None:
        if self.asked("kvm-speed", "speed"):
            guest, own = self.steps["speed"], self.steps.get("native")
            emulated = own > guest * EMULATED_RATIO if own else guest < EMULATED_RATE
            text = "{:.1f} M loops/s in the guest; ".format(guest / 1e6)
            text += "{:.0f} M/s here; ".format(own / 1e6) if own else "not measured here; "
            text += "{:.1f} us an exit".format(self.steps.get("exit", 0) / 1e3)
            self.add("kvm-speed", *(("fail", text, "emulated") if emulated else ("pass", text)))

    def check_exit_latency(self) -> None:
        if self.asked("kvm-exit-latency", "exit"):
            ns = self.steps["exit"]
            text = "{:.1f} us an exit, the median of {}".format(ns / 1e3, EXITS)
            self.add("kvm-exit-latency", *(("warn", text, "slow-exits") if ns > SLOW_EXIT_NS else ("pass", text)))

    def check_paging(self) -> None:
        name = self.machine.paging
        value = self.machine.parameters().get(name)
        if value is None:
            self.add("paging", "skip", "the loaded KVM has no parameter " + name)
        elif value in ("Y", "1"):
            self.add("paging", "pass", "{}={}: second-level paging".format(name, value))
        else:
            self.add("paging", "warn", "{}={}: guests run on slow shadow paging".format(name, value), "shadow-paging")

    def check_nesting(self) -> None:
        nests = self.steps.get("nests")
        if nests is None:
            self.add("nesting", "skip", "not asked: no guest code was run")
        elif nests:
            self.add("nesting", "pass", "KVM_GET_SUPPORTED_CPUID has svm or vmx: this machine's VMs can nest in turn")
        else:
            self.add("nesting", "skip", "KVM_GET_SUPPORTED_CPUID lacks it: its own VMs work; theirs cannot")

    def check_users(self) -> None:
        m, holders = self.machine, []
        count = next((m.read("/sys/module/{}/refcnt".format(p)).strip() for p in m.providers()), "")
        for pid in m.names("/proc") if count != "0" else []:
            for fd in m.names("/proc/{}/fd".format(pid)) if pid.isdigit() else []:
                if m.link("/proc/{}/fd/{}".format(pid, fd)) in ("/dev/kvm", "anon_inode:kvm-vm"):
                    holders.append("{} ({})".format(m.read("/proc/{}/comm".format(pid)).strip(), pid))
                    break
        self.steps["users"] = len(holders)
        text = "{} processes hold KVM, as far as may be seen: {}; refcnt {}"
        self.add("kvm-users", "pass", text.format(len(holders), ", ".join(holders) or "none", count or "not shown"))

    def check_vhost(self) -> None:
        m = self.machine
        missing = [name for name, path in VHOST.items() if not m.has(path)]
        ready = [name for name in missing if m.on_disk(name)]
        if not missing:
            self.add("vhost", "pass", "present: " + " ".join(VHOST.values()))
        elif ready:
            self.add("vhost", "warn", "not loaded: " + " ".join(ready), "vhost-missing")
        else:
            self.add("vhost", "skip", "this kernel has no " + " ".join(missing))


def clean(text: str) -> str:
    """Text of the machine's own as one bounded line without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * TEXT_LIMIT]).split())[:TEXT_LIMIT]


def load(module: str) -> "Iterator[tuple[str, Any]]":
    """Ask for the module. What modprobe answers is not believed: /sys/module is read afterwards."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    yield "modprobe", os.spawnvpe(os.P_WAIT, "modprobe", ["modprobe", module], dict(os.environ, PATH=path))


def conclude(findings: "list[dict[str, Any]]") -> "tuple[str, str | None, str]":
    """Verdict, cause and the evidence that decided. What ran is believed over what the flags say."""
    names = [finding["check"] for finding in findings]
    proof = names.index("guest-kvm-run") if "guest-kvm-run" in names else 0
    if findings[proof]["check"] == "guest-kvm-run" and findings[proof]["status"] == "pass":
        for finding in findings[:proof]:
            finding["status"] = "warn" if finding["status"] == "fail" else finding["status"]
    first = next((finding for finding in findings if finding["status"] == "fail"), None)
    if first:
        return "works-emulated" if first["cause"] == "emulated" else "off", first["cause"], first["evidence"]
    if findings[proof]["status"] == "pass":
        return "works", None, findings[proof]["evidence"]
    return "unknown", findings[proof]["cause"] or "not-run", findings[proof]["evidence"]


SUMMARIES = {
    "works": "Virtual machines run here: {}",
    "works-emulated": "Guest code runs, but emulated; ordinary virtual machines do not work: {}",
    "off": "Virtual machines cannot run here: {}",
    "unknown": "It was not found out whether virtual machines run here: {}",
}


def examine(
    root: str = "/", load_modules: bool = False, work: "Work | None" = None, deadline: float = DEADLINE
) -> "dict[str, Any]":
    """Judge one machine. `work` takes the place of the part that runs code, which a saved machine does not have."""
    start = time.monotonic()
    machine = Machine(root)
    if load_modules and machine.live:
        apart(lambda: load(machine.module), deadline)
    known = machine.arch == "x86_64" and sys.maxsize > 1 << 32
    if known and machine.live and work is None:
        work = live_steps if machine.node()[0] == "open" else native_steps
    case = Case(machine, apart(work, deadline) if known and work else {})
    if known:
        for check in CHAIN:
            check(case)
    else:
        case.add("kvm-run", "unknown", "the probe knows no guest code for " + machine.arch, "unsupported-arch")
    verdict, cause, evidence = conclude(case.findings)
    facts = {"arch": machine.arch, "kernel": machine.kernel, "vendor": machine.vendor}
    facts.update(hypervisor=case.hypervisor()[0], model=machine.cpu.get("model name", ""))
    found = {"exit_ns": "exit", "loops_per_s": "speed", "native_loops_per_s": "native", "kvm_users": "users"}
    numbers = {name: round(case.steps[step]) for name, step in found.items() if step in case.steps}
    numbers["elapsed_ms"] = round((time.monotonic() - start) * 1e3, 1)
    report = {"schema_version": 1, "probe": "1", "verdict": verdict, "cause": cause}
    report.update(summary=SUMMARIES[verdict].format(evidence), machine={k: clean(v) for k, v in facts.items()})
    report.update(numbers=numbers, findings=case.findings)
    return report


def live_steps() -> "Iterator[tuple[str, Any]]":
    """All that is run on this machine."""
    yield from native_steps()
    yield from kvm_steps()


CHAIN = (
    Case.check_hypervisor,
    Case.check_confidential,
    Case.check_container,
    Case.check_cpu_flag,
    Case.check_firmware,
    Case.check_module,
    Case.check_module_params,
    Case.check_device,
    Case.check_device_access,
    Case.check_kvm,
    Case.check_speed,
    Case.check_exit_latency,
    Case.check_paging,
    Case.check_nesting,
    Case.check_users,
    Case.check_vhost,
)


def main(argv: "list[str]") -> int:
    """The command line."""
    root, flags, words = "/", set(), list(argv)
    while words:
        word = words.pop(0)
        if word == "--root" and words and os.path.isdir(words[0]):
            root = words.pop(0)
        elif word in ("--load-modules", "--pretty"):
            flags.add(word)
        else:
            print("usage: probe.py [--root DIR] [--load-modules] [--pretty]", file=sys.stderr)
            return 2
    report = examine(root, "--load-modules" in flags)
    print(json.dumps(report, indent=2 if "--pretty" in flags else None))
    return {"works": 0, "unknown": 3}.get(report["verdict"], 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
