#!/usr/bin/env python3
"""Prove that this machine can run virtual machines, by running guest code through /dev/kvm.

Stands alone, Python 3.6, standard library only: it can be sent into any guest with  python3 -I - < probe.py
Usage: probe.py [--root DIR] [--load-modules] [--pretty]      prints one JSON object
Exit:  0 works   1 works-emulated or off   2 usage   3 unknown
Changes nothing, and loads nothing unless --load-modules asks. --root judges the files of a saved machine.
"""

import errno
import fcntl
import json
import math
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

    Steps = Iterator[tuple[str, Any]]
    Work = Callable[[], Steps]
    Answer = tuple[Any, ...]  # status and evidence; then the cause, and a cure if it is not the cause's own

DEADLINE = 8.0  # seconds for all that may hang
FILE_LIMIT, TEXT_LIMIT = 4 << 20, 300
EMULATED_RATIO = 20  # native over guest speed: hardware stays below 3, emulation is in the hundreds
EMULATED_RATE = 10e6  # loops/s: the limit where native speed cannot be measured
NUMBERS = ("exit_ns", "loops_per_s", "native_loops_per_s", "kvm_users")
EXITS, SLOW_EXIT_NS = 300, 1e6
UNPROVEN = ("not-run", "crashed", "unsupported-arch")  # causes that say nothing about the machine

CURES = {
    "confidential-guest": "use an ordinary VM: a confidential guest cannot run VMs",
    "container": "start the container with --device /dev/kvm",
    "no-cpu-flag": "give this VM {flag} (nested virtualization) on its hypervisor, then power it off and on",
    "emulated": "give this VM {flag} (nested virtualization) on its hypervisor, then power it off and on",
    "firmware-locked": "turn on virtualization (VT-x, AMD-V) in the firmware setup, then power off and on",
    "module-absent": "install the package with {driver} for kernel {kernel}, or boot a kernel that has it",
    "module-blacklisted": "remove that line, then: modprobe {driver}",
    "module-not-loaded": "modprobe {driver}",
    "device-missing": "mknod -m 660 /dev/kvm c 10 232",
    "device-stale": "modprobe {driver}",
    "device-denied": "as root: chgrp kvm /dev/kvm; chmod 660 /dev/kvm; usermod -aG kvm USER; log in again",
    "kvm-busy": "stop the other hypervisor and unload its module: modprobe -r vboxdrv vmmon",
    "shadow-paging": "reload {driver} with {second}=1, and have the hypervisor below expose {second}",
    "not-run": "run the probe on the machine itself: python3 -I probe.py",
    "crashed": "run the probe again, and report it if it crashes again",
    "unsupported-arch": "run the probe on x86-64, or start a small VM by hand",
    "unreadable": "run the probe as root, with /proc mounted and the msr module loaded",
    "vhost-missing": "modprobe -a vhost_net vhost_vsock tun",
}
KVM_CURE = "update the hypervisor below, or change this VM's CPU model; the reason: dmesg | grep -i kvm"

# Signs: a path, or a path and words in that file; a variable begins after a NUL.
CONFIDENTIAL = """/dev/sev-guest; /dev/tdx_guest; /proc/cpuinfo: sev_guest; /proc/cpuinfo: tdx_guest;
    /dev/kmsg: as an SEV guest; /dev/kmsg: Features active: AMD SEV; /dev/kmsg: Features active: Intel TDX;
    /dev/kmsg: Features active: SEV; /dev/kmsg: Secure Encrypted Virtualization (SEV) active"""
CONTAINER = """/run/.containerenv; /.dockerenv; /run/systemd/container; /proc/1/environ: \0container=;
    /proc/1/cgroup: docker; /proc/1/cgroup: kubepods; /proc/1/cgroup: containerd; /proc/1/cgroup: lxc"""
DMI = ("/sys/hypervisor/type", "/sys/class/dmi/id/sys_vendor", "/sys/class/dmi/id/product_name")
HYPERVISORS = ("kvm", "vmware", "microsoft", "xen", "tcg", "qemu", "vbox", "virtualbox", "bhyve", "bochs")
PARAMETERS = "nested ept npt unrestricted_guest enable_shadow_vmcs enable_apicv avic vgif"
VHOST = {"vhost_net": "/dev/vhost-net", "vhost_vsock": "/dev/vhost-vsock", "tun": "/dev/net/tun"}


def attempt(default: "Any", call: "Callable[..., Any]", *arguments: "Any") -> "Any":
    """What a call returns; the default where the system refuses."""
    try:
        return call(*arguments)
    except OSError:
        return default


def clean(text: str) -> str:
    """Foreign text as one bounded line without control characters."""
    printable = "".join(c if c.isprintable() else " " for c in text[: 2 * TEXT_LIMIT])
    return " ".join(printable.split())[:TEXT_LIMIT]


class _Machine:
    """The files of one machine below a root: "/" is this machine. What cannot be read is empty."""

    def __init__(self, root: str) -> None:
        self.root = os.path.realpath(root)
        self.live = self.root == "/"
        lines = self.read("/proc/cpuinfo").split("\n\n")[0].splitlines()
        self.cpu = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        self.kernel = os.uname().release if self.live else self.read("/proc/sys/kernel/osrelease").strip()
        self.arch = os.uname().machine if self.live else "x86_64" if "vendor_id" in self.cpu else "unknown"
        makers = {"GenuineIntel": "intel", "AuthenticAMD": "amd", "HygonGenuine": "amd"}
        self.known = self.arch == "x86_64" and sys.maxsize > 2**32
        self.vendor = makers.get(self.cpu.get("vendor_id", ""), "other")
        self.flags = self.cpu.get("flags", "").split()
        # VIA, Zhaoxin and others have Intel's kind: what the CPU shows counts for more than who made it.
        amd = self.vendor == "amd" and ("svm" in self.flags or "vmx" not in self.flags)
        names = ("svm", "kvm_amd", "npt") if amd else ("vmx", "kvm_intel", "ept")
        self.flag, self.driver, self.second = names
        # Of built-in drivers /sys/module has every maker's, even if it did not start: /proc/misc decides.
        found = {name for name in self.names("/sys/module") if name.startswith("kvm_")}  # also kvm_pvm
        self.misc = self.read("/proc/misc")
        self.running = " kvm\n" in self.misc if self.misc else bool(found)
        if self.driver in found:
            found -= {"kvm_intel", "kvm_amd"} - {self.driver}
        self.drivers = sorted(found if self.running else (), key=lambda name: (name != self.driver, name))
        folders = ["/sys/module/{}/parameters/".format(driver) for driver in reversed(self.drivers)]
        shown = {name: self.read(folder + name).strip() for folder in folders for name in self.names(folder)}
        self.parameters = {name: shown[name] for name in PARAMETERS.split() if name in shown}

    def path(self, name: str) -> str:  # the links of a saved machine do not lead out of it
        if self.live:
            return name
        path = os.path.realpath(self.root + name)
        return path if path.startswith(self.root + "/") else self.root + "/outside"

    def names(self, folder: str) -> "list[str]":
        return sorted(attempt([], os.listdir, self.path(folder)))

    def raw(self, name: str, offset: int = 0, size: int = FILE_LIMIT) -> bytes:
        fd = attempt(None, os.open, self.path(name), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if fd is None:
            return b""
        data = bytearray(attempt(b"", os.pread, fd, size, offset) if offset else b"")
        while not offset and len(data) < size:
            chunk = attempt(b"", os.read, fd, 65536)
            if not chunk:  # or, at the end of the kernel's log, it would have to wait
                break
            data += chunk
        os.close(fd)
        return bytes(data)

    def read(self, name: str) -> str:
        return self.raw(name).decode("utf-8", "replace")

    def sign(self, table: str) -> str:
        for path, _, words in (sign.strip().partition(": ") for sign in table.split(";")):
            if os.path.exists(self.path(path)) and words in "\0" + self.read(path):
                return "{} in {}".format(words, path) if words else path
        return ""

    def logged(self, *words: str) -> str:  # the last line about virtualization with one of the words
        lines = [line.partition(";")[2] for line in reversed(self.read("/dev/kmsg").splitlines())]
        about = (line for line in lines if any(name in line.lower() for name in ("kvm", "vmx", "svm")))
        return next((line for line in about if any(word in line.lower() for word in words)), "")

    def on_disk(self, module: str) -> "str | None":  # which index lists the module; None: there is no index
        folders = [folder + self.kernel for folder in ("/lib/modules/", "/usr/lib/modules/")]
        paths = [folder + name for name in ("/modules.builtin", "/modules.dep") for folder in folders]
        indexes = [(path, text) for path, text in ((path, self.read(path)) for path in paths) if text]
        listing = (path for path, text in indexes if "/" + module + ".ko" in text.replace("-", "_"))
        return next(listing, "") if indexes else None

    def blacklisting(self) -> str:  # what keeps the module from loading, and where that is written
        for word in self.read("/proc/cmdline").split():
            key, _, value = word.replace("-", "_").partition("=")
            named = {self.driver, "kvm"} & set(value.split(","))
            if named and key in ("module_blacklist", "modprobe.blacklist"):
                return word + " in /proc/cmdline"
        folders = [top + "/modprobe.d/" for top in ("/lib", "/usr/lib", "/usr/local/lib", "/run", "/etc")]
        paths = {name: folder + name for folder in folders for name in self.names(folder)}
        for path in paths.values():  # of files with one name the last counts
            for line in self.read(path).splitlines():
                verb, name, program = [*line.replace("-", "_").split(), "", "", ""][:3]
                barred = verb == "install" and os.path.basename(program) in ("false", "true")
                if (verb, name) == ("blacklist", self.driver) or (barred and name in (self.driver, "kvm")):
                    return "'{}' in {}".format(line.strip(), path)
        return ""

    def find_node(self) -> "tuple[str, str]":
        """A word for /dev/kvm, and the evidence. Without a driver it is not opened: that would load one."""
        text = "/dev/kvm"
        try:
            info = os.stat(self.path("/dev/kvm"))
            self.mode, self.group = info.st_mode, info.st_gid
            text += " is {} {}:{}".format(stat.filemode(info.st_mode), info.st_uid, info.st_gid)
            if not stat.S_ISCHR(info.st_mode) or info.st_rdev != os.makedev(10, 232):
                return "wrong", text + ", which is not character device 10:232"
            if not self.running:
                where = "/proc/misc" if self.misc else "/sys/module"
                return "stale", text + ", without a driver in " + where
            if self.live:
                groups = sorted({os.getgid(), *os.getgroups()})
                text += "; this is {} of groups {}".format(os.getuid(), groups)
                os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
            return "usable", text
        except OSError as e:
            words = {errno.ENOENT: "missing", errno.EACCES: "denied", errno.EPERM: "denied"}
            return words.get(e.errno or 0, "stale"), "{}: {}".format(text, e.strerror)

    def find_users(self) -> "tuple[list[str], str]":
        """Who has KVM open, and the driver's count of that; to be asked before the probe itself opens it."""
        counts = [self.read("/sys/module/{}/refcnt".format(driver)).strip() for driver in self.drivers]
        count, users = "+".join(text for text in counts if text), []
        for pid in self.names("/proc") if count.strip("0+") or not count else []:
            folder = "/proc/{}/fd".format(pid)
            links = [attempt("", os.readlink, self.path(folder) + "/" + fd) for fd in self.names(folder)]
            if "/dev/kvm" in links or "anon_inode:kvm-vm" in links:
                users.append("{} {}".format(pid, self.read("/proc/{}/comm".format(pid)).strip()))
        return users, count


def admission(mode: int, gid: int) -> str:
    """How a user who is kept out gets in, if not as device-denied says: never by joining root's group."""
    import grp  # where it is needed only: it costs time

    if not os.getuid():
        return CURES["container"]  # nothing else keeps root out
    opens = gid and mode & 0o60 == 0o60
    names = [group.gr_name for group in grp.getgrall() if opens and group.gr_gid == gid]
    return "usermod -aG {} USER, then log in again".format(names[0]) if names else ""


class _Broken(Exception):
    """A step went wrong: its cause, and the evidence."""


def apart(work: "Work", deadline: float) -> "dict[str, Any]":
    """Do `work` in a child, which may hang or die: what its steps found, and as "broken" what went wrong."""
    pipe = attempt((), os.pipe)
    child = attempt(None, os.fork) if pipe else None
    if child is None:
        for fd in pipe:
            os.close(fd)
        return {"broken": ("crashed", "the system has no pipe or no process left for the probe's child")}
    reader, writer = pipe
    if child == 0:
        try:
            for step in _told(work):
                os.write(writer, json.dumps(step).encode() + b"\n")
        finally:
            os._exit(0)
    os.close(writer)
    said, end, chunk = bytearray(), time.monotonic() + deadline, b"?"
    try:
        while chunk and select.select([reader], [], [], max(0, end - time.monotonic()))[0]:
            chunk = os.read(reader, 65536)
            said += chunk
    finally:
        os.close(reader)
        if chunk:  # it did not end by itself
            attempt(None, os.kill, child, signal.SIGKILL)
        for _ in range(1000):  # a child stuck in the kernel is left to it
            if attempt((child, 0), os.waitpid, child, os.WNOHANG)[0]:  # refused where SIGCHLD is ignored
                break
            time.sleep(0.001)
    steps = dict(json.loads(line.decode()) for line in said.split(b"\n")[:-1])
    if "end" not in steps:
        late = "no answer in {:g} s".format(deadline)
        steps["broken"] = ("hung", late) if chunk else ("crashed", "the child died")
    return steps


def _told(work: "Work") -> "Steps":
    try:
        yield from work()
    except _Broken as e:
        yield "broken", e.args
    except OSError as e:
        causes = {errno.EBUSY: "kvm-busy", errno.EINTR: "crashed"}
        yield "broken", (causes.get(e.errno or 0, "kvm-refused"), str(e))
    except (ImportError, MemoryError) as e:
        yield "broken", ("not-run", "this Python has no usable ctypes: {!r}".format(e))
    yield "end", True


EXECUTABLE = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC


def _memory(size: int, protection: int = mmap.PROT_READ | mmap.PROT_WRITE) -> "tuple[mmap.mmap, int]":
    import ctypes  # in the child only: it costs time, and some Pythons lack it

    block = mmap.mmap(-1, size, prot=protection)
    return block, ctypes.addressof(ctypes.c_char.from_buffer(block))


def _seconds(spin: "Callable[[int], Any]", count: int) -> float:
    start = time.perf_counter()
    spin(count)
    return time.perf_counter() - start


def _loops_per_s(spin: "Callable[[int], Any]") -> float:
    """By the best of several timings: neither a busy machine nor slow exits must look emulated."""
    end = time.perf_counter() + 1  # then the count that was reached has to do
    cost = min(_seconds(spin, 1) for _ in range(3))  # of entering and leaving the guest
    count, before = 500, 0.0
    while True:
        # Four times the loops have to take twice as long: else exits are timed, and those scatter.
        least = max(cost + max(0.0015, 3 * cost), 2 * before or math.inf)
        now = min(_seconds(spin, count) for _ in range(3))
        if now >= least:  # or somebody else had the processor each time
            now = min(now, min(_seconds(spin, count) for _ in range(3)))
        if now >= least or count > 500000000 or time.perf_counter() > end:
            return count / (now - cost) if now > cost else 0.0
        count, before = 4 * count, now


SPIN = "48ffc975fb"  # dec rcx; jnz back: timed here and in the guest
COUNT = "4889f9" + SPIN + "c3"  # mov rcx,rdi; the loop; ret
CPUID = "5389f831c90fa28906895e04894e0889560c5bc3"  # push rbx; cpuid of edi; stored at rsi; pop rbx; ret
PAGES = {  # the guest's memory
    0x1000: "0320",  # page tables: one entry each, but two pages of 2 MiB, both on 0
    0x2000: "0330",
    0x3000: "8300000000000000" * 2,
    0x4000: "01d8eff4",  # add ax,bx; out dx,ax; hlt
    0x5000: "488b03480fafc648894308eff4",  # mov rax,[rbx]; imul rax,rsi; mov [rbx+8],rax; out dx,eax; hlt
    0x6000: SPIN + "f4",  # the loop; hlt
    0x7000: "ee48ffc975faf4",  # out dx,al; dec rcx; jnz back; hlt
}
SUM, PRODUCT, LOOP, TICK, DATA, PAGING, PORT = 0x4000, 0x5000, 0x6000, 0x7000, 0x8000, 0x200000, 0x3F8
IO, HLT, INTERNAL = 2, 5, 17
STOPS = {8: "SHUTDOWN", 9: "FAIL_ENTRY, hardware reason", INTERNAL: "INTERNAL_ERROR, suberror"}


def _native_steps() -> "Steps":
    """CPUID as the processor tells it, and the speed of this machine's own loops."""
    import ctypes

    page, at = _memory(mmap.PAGESIZE, EXECUTABLE)
    page[:73] = bytes.fromhex(CPUID).ljust(64) + bytes.fromhex(COUNT)
    function = ctypes.CFUNCTYPE(None, ctypes.c_uint64, ctypes.c_uint64)
    for leaf in (0x1, 0x40000000, 0x80000001):
        function(at)(leaf, at + 128)
        yield "cpuid-{:x}".format(leaf), struct.unpack_from("<4I", page, 128)
    yield "native_loops_per_s", _loops_per_s(lambda count: function(at + 64)(count, 0))


class _Guest:
    """A VM with one vCPU and 64 KiB of memory."""

    def __init__(self, kvm: int, vm: int, vcpu: int) -> None:
        self.vcpu = vcpu
        self.memory, address = _memory(0x10000)
        for at, code in PAGES.items():
            self.memory[at : at + len(code) // 2] = bytes.fromhex(code)
        fcntl.ioctl(vm, 0xAE47, 0x7FFBD000)  # KVM_SET_TSS_ADDR
        region = struct.pack("<IIQQQ", 0, 0, 0, 0x10000, address)
        fcntl.ioctl(vm, 0x4020AE46, region)  # KVM_SET_USER_MEMORY_REGION
        self.state = mmap.mmap(vcpu, fcntl.ioctl(kvm, 0xAE04, 0))  # KVM_GET_VCPU_MMAP_SIZE
        self.cpuid = bytearray(struct.pack("<II10240x", 256, 0))
        fcntl.ioctl(kvm, 0xC008AE05, self.cpuid)  # KVM_GET_SUPPORTED_CPUID
        fcntl.ioctl(vcpu, 0x4008AE90, self.cpuid)  # KVM_SET_CPUID2

    def enter(self, at: int, long: bool, **registers: int) -> None:
        """Set the vCPU to code: in real mode, or in 64-bit mode with paging on."""
        sregs = bytearray(312)
        fcntl.ioctl(self.vcpu, 0x8138AE83, sregs)  # KVM_GET_SREGS
        struct.pack_into("<QIH", sregs, 0, 0, 0xFFFF, 0)  # the code segment begins at 0
        if long:
            code = struct.pack("<QIH10B", 0, 0xFFFFFFFF, 8, 11, 1, 0, 0, 1, 1, 1, 0, 0, 0)
            data = struct.pack("<QIH10B", 0, 0xFFFFFFFF, 16, 3, 1, 0, 1, 1, 0, 1, 0, 0, 0)
            sregs[:144] = code + data * 5
            struct.pack_into("<4Q", sregs, 224, 0x80050033, 0, 0x1000, 0x20)  # cr0, cr2, cr3, cr4
            struct.pack_into("<Q", sregs, 264, 0x500)  # efer
        fcntl.ioctl(self.vcpu, 0x4138AE84, sregs)  # KVM_SET_SREGS
        first = [registers.get(name, 0) for name in ("rax", "rbx", "rcx", "rdx", "rsi")]
        fcntl.ioctl(self.vcpu, 0x4090AE82, struct.pack("<18Q", *first + [0] * 11 + [at, 2]))  # KVM_SET_REGS

    def run(self, wanted: int) -> None:
        """Run the guest until it stops, which has to be for the wanted reason."""
        fcntl.ioctl(self.vcpu, 0xAE80, 0)  # KVM_RUN
        reason, detail = struct.unpack_from("<I20xQ", self.state, 8)
        if reason != wanted:
            detail &= 0xFFFFFFFF if reason == INTERNAL else ~0  # there, a count of data follows
            raise _Broken("entry-failed", "KVM_EXIT {}: {:#x}".format(STOPS.get(reason, reason), detail))

    def output(self, size: int) -> int:
        """What the guest writes to the port before it halts."""
        self.run(IO)
        at = struct.unpack_from("<Q", self.state, 40)[0]
        value = int.from_bytes(self.state[at : at + size], "little")
        self.run(HLT)
        return value

    def prove(self) -> str:
        """A sum in real mode, and a product in 64-bit mode through page tables, of numbers drawn just now."""
        a, b, x, y = struct.unpack("<2H2Q", os.urandom(20))
        self.enter(SUM, False, rax=a, rbx=b, rdx=PORT)
        total = self.output(2)
        self.memory[DATA : DATA + 8] = struct.pack("<Q", x)
        self.enter(PRODUCT, True, rbx=PAGING + DATA, rsi=y, rdx=PORT)
        low, product = self.output(4), struct.unpack_from("<Q", self.memory, DATA + 8)[0]
        text = "real mode {:#x} + {:#x} = {:#x}, 64-bit {:#x} * {:#x} = {:#x}"
        text = text.format(a, b, total, x, y, product)
        if (total, product, low) != ((a + b) % 2**16, x * y % 2**64, x * y % 2**32):
            raise _Broken("wrong-result", "wrong, cut to their widths: " + text)
        return "guest code ran; right, cut to their widths: " + text

    def spin(self, count: int) -> None:
        self.enter(LOOP, True, rcx=count)
        self.run(HLT)

    def exit_ns(self) -> float:
        times, end = [], time.perf_counter() + 1  # type: list[float], float
        self.enter(TICK, True, rcx=EXITS, rdx=PORT)
        while len(times) < EXITS and time.perf_counter() < end:
            times.append(_seconds(self.run, IO))
        return sorted(times)[len(times) // 2] * 1e9

    def nests(self) -> bool:
        """True where KVM offers vmx or svm to its guests."""
        entries = struct.iter_unpack("<7I12x", self.cpuid[8:])
        bits = {1: 32, 0x80000001: 4}  # of ECX, the sixth number of an entry
        return any(entry[5] & bits.get(entry[0], 0) for entry in entries)


def _kvm_steps() -> "Steps":
    kvm = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    version = fcntl.ioctl(kvm, 0xAE00, 0)
    if version != 12:
        raise _Broken("kvm-api", "KVM_GET_API_VERSION is {}, not 12".format(version))
    yield "api", "KVM_GET_API_VERSION is 12"
    vm = fcntl.ioctl(kvm, 0xAE01, 0)
    yield "create", "KVM_CREATE_VM made a VM"
    vcpu = fcntl.ioctl(vm, 0xAE41, 0)
    yield "vcpu", "KVM_CREATE_VCPU made a vCPU"
    guest = _Guest(kvm, vm, vcpu)
    yield "run", guest.prove()
    yield "nests", guest.nests()
    yield "loops_per_s", _loops_per_s(guest.spin)
    yield "exit_ns", guest.exit_ns()


def _asking(step: str) -> "Callable[[_Chain], Answer]":
    return lambda chain: chain.step(step)


class _Chain(_Machine):
    """The checks, in the order in which the links depend on each other: check_x answers guest-x."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.steps, self.findings = {}, []  # type: dict[str, Any], list[dict[str, Any]]
        self.mode, self.group = 0, 0
        self.users, self.count = self.find_users() if self.known else ([], "")
        self.node, self.seen = self.find_node()
        self.in_container = self.sign(CONTAINER)
        self.offered, self.hidden, self.below = False, False, "unknown"

    def judge(self) -> "list[dict[str, Any]]":
        for name, check in vars(_Chain).items():
            if name.startswith("check_"):
                answer = check(self) if self.known else self.step(name[10:])
                status, evidence, cause, cure = (*answer, None, None)[:4]
                if cause and not cure:
                    cure = CURES.get(cause, KVM_CURE).format(**vars(self))
                finding = {"check": "guest-" + name[6:].replace("_", "-"), "status": status}
                finding.update(evidence=clean(evidence), cause=cause, cure=clean(cure or ""))
                self.findings.append(finding)
        return self.findings

    def broken(self, cause: "str | None" = None) -> bool:
        failed = [finding["cause"] for finding in self.findings if finding["status"] == "fail"]
        return cause in failed if cause else bool(failed)

    def cpuid(self, leaf: int) -> "Any":  # EAX, EBX, ECX, EDX; zeros where nobody tells
        device = self.raw("/dev/cpu/0/cpuid", leaf, 16).ljust(16, b"\0")
        return self.steps.get("cpuid-{:x}".format(leaf)) or struct.unpack("<4I", device)

    def live_steps(self) -> "Steps":
        if attempt(None, _memory, mmap.PAGESIZE, EXECUTABLE):  # where it is refused EMULATED_RATE serves
            yield from _native_steps()
        if self.node == "usable":
            yield from _kvm_steps()

    def check_hypervisor(self) -> "Answer":
        signature = struct.pack("<3I", *self.cpuid(0x40000000)[1:]).decode("latin-1")
        shown = self.cpuid(1)[2] >> 31
        virtual = bool(shown) or "hypervisor" in self.flags
        said = [("CPUID", signature)] if shown else []
        said += [
            (path, self.read(path)) for path in (DMI if virtual else DMI[:1])
        ]  # bare metal has makers too
        names = ((name, where, text) for where, text in said for name in HYPERVISORS if name in text.lower())
        bare = "unnamed" if virtual else "none" if self.flags or any(self.cpuid(1)) else "unknown"
        self.below, where, text = next(names, (bare, "/proc/cpuinfo", "no more"))
        return "pass", "{}: {} says {}".format(self.below, where, text)

    def check_confidential(self) -> "Answer":
        sign = self.sign(CONFIDENTIAL)
        no = ("pass", "no sign in /dev, cpuinfo and the log")
        return ("fail", sign, "confidential-guest") if sign else no

    def check_container(self) -> "Answer":
        cure = "if /dev/kvm does not open here, " + CURES["container"]
        return ("warn", self.in_container, None, cure) if self.in_container else ("pass", "no sign of one")

    def check_cpu_flag(self) -> "Answer":
        leaf, bit = (0x80000001, 4) if self.flag == "svm" else (1, 32)
        raw = 0 if self.below == "xen" else self.cpuid(leaf)[2] & bit  # Xen PV leaves the hardware's CPUID
        shown = self.flag in self.flags
        self.hidden = bool(raw and self.flags) and not shown
        self.offered = bool(raw) or shown
        if self.offered:
            where = "/proc/cpuinfo" if shown else "CPUID"
            hidden = ", hidden from /proc/cpuinfo" if self.hidden else ""
            return "pass", "{} in {}{}".format(self.flag, where, hidden)
        if not self.flags:
            return "unknown", "/proc/cpuinfo has no flags", "unreadable"
        log = self.logged("no hardware support", "not available", "not supported by cpu")
        status = "warn" if self.running else "fail"  # kvm_pvm needs no flag
        text = "no {} in /proc/cpuinfo and CPUID. {}".format(self.flag, log)
        return status, text.rstrip(". "), "no-cpu-flag"

    def check_firmware(self) -> "Answer":
        register, mask, locked = (0xC0010114, 16, 16) if self.flag == "svm" else (0x3A, 5, 1)
        raw = self.raw("/dev/cpu/0/msr", register, 8)
        if not self.offered:
            return "skip", "not asked: the CPU flag is missing"
        if raw:
            value = int.from_bytes(raw, "little")
            text = "MSR {:#x} is {:#x}".format(register, value)
            return ("fail", text, "firmware-locked") if value & mask == locked else ("pass", text)
        if self.drivers == [self.driver]:
            return "pass", self.driver + " is loaded, which locked firmware does not allow"
        log = self.logged("disabled by bios", "disabled (by bios)", "not enabled (by bios)")
        if log or self.hidden:
            return "fail", log or "Linux hides the flag that CPUID has: firmware locked it", "firmware-locked"
        return "unknown", "neither /dev/cpu/0/msr nor the kernel log could be read for it", "unreadable"

    def check_module(self) -> "Answer":
        if self.running:
            return "pass", "loaded: " + (", ".join(self.drivers) or "the driver in /proc/misc")
        disk, ban = self.on_disk(self.driver), self.blacklisting()
        if ban:
            return "fail", "{} is not loaded: {}".format(self.driver, ban), "module-blacklisted"
        if disk is None:
            text = "{} is not loaded, and the modules of kernel {} are not on this disk"
            text = text.format(self.driver, self.kernel)
            if self.in_container:  # which shares its host's kernel, and needs none on its own disk
                cure = "on the container's host: modprobe {}; then {}"
                return "unknown", text, "container", cure.format(self.driver, CURES["container"])
            return "fail", text, "module-absent"
        if not disk:
            return "fail", "kernel {} has no {}".format(self.kernel, self.driver), "module-absent"
        status = "skip" if self.broken() else "warn" if self.node == "stale" else "fail"
        text = "{} is in {}, but not loaded. {}".format(self.driver, disk, self.logged("kvm")).rstrip(". ")
        return (status, text) if status == "skip" else (status, text, "module-not-loaded")

    def check_module_params(self) -> "Answer":
        shown = ", ".join(name + "=" + value for name, value in self.parameters.items())
        return ("pass", shown) if shown else ("skip", "no such parameters in /sys/module/kvm_*")

    def check_device(self) -> "Answer":
        if self.node in ("usable", "denied"):
            return "pass", "/dev/kvm is character device 10:232"
        if self.node == "wrong":
            return "fail", self.seen, "device-stale", "rm /dev/kvm && mknod -m 660 /dev/kvm c 10 232"
        if self.node == "stale":
            return "fail", self.seen, "device-stale"
        if self.broken() and not self.running:
            return "skip", "not asked: an earlier link is broken; " + self.seen
        return "fail", self.seen, "container" if self.in_container else "device-missing"

    def check_device_access(self) -> "Answer":
        if self.node == "denied":
            return "fail", self.seen, "device-denied", admission(self.mode, self.group)
        return "pass" if self.node == "usable" and self.live else "skip", self.seen

    def step(self, name: str, text: str = "") -> "Answer":
        """How a step went. Of those that are missing one bears the cause; the others were not asked."""
        if name in self.steps:
            return "pass", text or self.steps[name]
        cause, text = self.steps.get("broken", ("not-run", "a saved machine runs nothing"))
        if not self.known:
            cause, text = "unsupported-arch", "the probe has no code for {!r}".format(self.arch)
        ran = "run" in self.steps
        unproven = cause in UNPROVEN or (ran and cause == "hung")
        bearer = "run" if not ran else "exit_ns" if "loops_per_s" in self.steps else "loops_per_s"
        if self.known and self.node != "usable":
            return "skip", "not asked: /dev/kvm cannot be used"
        if self.broken(cause) or (unproven and name != bearer):
            return "skip", "not asked: " + text
        rivals = [module for module in ("vboxdrv", "vmmon") if self.names("/sys/module/" + module)]
        text = "{}: {} {}".format(name, text, "after guest code ran rightly" if ran else " ".join(rivals))
        return "unknown" if unproven else "fail", text, cause

    check_kvm_api, check_kvm_create = _asking("api"), _asking("create")
    check_kvm_vcpu, check_kvm_run = _asking("vcpu"), _asking("run")

    def check_kvm_speed(self) -> "Answer":
        guest, here = (self.steps.get(name, 0) for name in ("loops_per_s", "native_loops_per_s"))
        text = "{:.1f} M loops/s in the guest, {:.0f} M/s here; {:.1f} us an exit"
        text = text.format(guest / 1e6, here / 1e6, self.steps.get("exit_ns", 0) / 1e3)
        emulated = guest and (here > guest * EMULATED_RATIO if here else guest < EMULATED_RATE)
        return ("fail", text, "emulated") if emulated else self.step("loops_per_s", text)

    def check_kvm_exit_latency(self) -> "Answer":
        ns = self.steps.get("exit_ns", 0)
        text = "{:.1f} us an exit, the median of up to {}".format(ns / 1e3, EXITS)
        return ("warn", text, "slow-exits") if ns > SLOW_EXIT_NS else self.step("exit_ns", text)

    def check_paging(self) -> "Answer":
        value = self.parameters.get(self.second)
        if value is None:
            return "skip", "the loaded KVM has no parameter " + self.second
        text = "{}={}".format(self.second, value)
        return ("pass", text) if value in ("Y", "1") else ("warn", text, "shadow-paging")

    def check_nesting(self) -> "Answer":
        if self.steps.get("nests"):
            return "pass", "KVM_GET_SUPPORTED_CPUID has vmx or svm: this machine's own VMs can nest in turn"
        no = "KVM_GET_SUPPORTED_CPUID has no vmx or svm: this machine's own VMs work, theirs cannot"
        return "skip", no if "nests" in self.steps else "not asked: nothing was run"

    def check_kvm_users(self) -> "Answer":
        unseen = bool(self.count.strip("0+")) and not self.users
        self.steps["kvm_users"] = len(self.users) + unseen
        if unseen:
            return "pass", "refcnt {}, holders not visible to this user".format(self.count)
        users = ", ".join(self.users) or "none seen"
        return "pass", "users: {}; refcnt: {}".format(users, self.count or "not told")

    def check_vhost(self) -> "Answer":
        missing = [module for module, path in VHOST.items() if not os.path.exists(self.path(path))]
        ready = [module for module in missing if self.on_disk(module)]
        if ready:
            return "warn", "not loaded: " + ", ".join(ready), "vhost-missing"
        return "skip" if missing else "pass", "not in this kernel: " + (", ".join(missing) or "none")


def conclude(findings: "list[dict[str, Any]]") -> "tuple[str, str | None, str]":
    """Verdict, cause and the evidence that decides. What ran is believed over what flags and files say."""
    proof = next(index for index, finding in enumerate(findings) if finding["check"] == "guest-kvm-run")
    for finding in findings[:proof] if findings[proof]["status"] == "pass" else []:
        finding["status"] = "warn" if finding["status"] == "fail" else finding["status"]
    telling = [finding for finding in findings if finding["status"] == "fail"]
    telling += [finding for finding in findings[proof:] if finding["status"] == "unknown"]
    first = (telling or [findings[proof]])[0]
    if first["status"] == "pass":
        speed = next(finding for finding in findings if finding["check"] == "guest-kvm-speed")
        return "works", None, speed["evidence"]
    failed = "works-emulated" if first["cause"] == "emulated" else "off"
    verdict = failed if first["status"] == "fail" else "unknown"
    return verdict, first["cause"], first["evidence"]


SUMMARIES = {
    "works": "Virtual machines run here, and computed rightly: ",
    "works-emulated": "Guest code runs here, but emulated, which is too slow for ordinary virtual machines: ",
    "off": "Virtual machines cannot run here: ",
    "unknown": "It was not found out whether virtual machines run here: ",
}


def examine(
    root: str = "/", load_modules: bool = False, work: "Work | None" = None, deadline: float = DEADLINE
) -> "Any":
    """Judge one machine. A saved one runs nothing, unless `work` plays the steps that a run would have."""
    start = time.monotonic()
    chain = _Chain(root)
    if load_modules and chain.known and chain.live:
        apart(lambda: _load(chain.driver), deadline)
        chain = _Chain(root)  # what modprobe answers is not believed
    if chain.known and (work or chain.live):
        chain.steps = apart(work or chain.live_steps, deadline)
    findings = chain.judge()
    verdict, cause, evidence = conclude(findings)
    facts = {"arch": chain.arch, "kernel": chain.kernel, "vendor": chain.vendor, "hypervisor": chain.below}
    facts["model"] = chain.cpu.get("model name", "")
    numbers = {name: round(chain.steps[name]) for name in NUMBERS if name in chain.steps}
    return {
        "schema_version": 1,
        "probe": "1",
        "verdict": verdict,
        "cause": cause,
        "summary": SUMMARIES[verdict] + evidence,
        "machine": {name: clean(text) for name, text in facts.items()},
        "numbers": dict(numbers, elapsed_ms=round((time.monotonic() - start) * 1e3, 1)),
        "findings": findings,
    }


def _load(driver: str) -> "Steps":
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    yield "modprobe", os.spawnvpe(os.P_WAIT, "modprobe", ["modprobe", driver], dict(os.environ, PATH=path))  # noqa: S606


def main(argv: "list[str]") -> int:
    """The command line."""
    root, flags, words = "/", set(), list(argv)
    while words:
        word = words.pop(0)
        if word in ("--load-modules", "--pretty"):
            flags.add(word)
        elif word == "--root" and words and os.path.isdir(words[0]):
            root = words.pop(0)
        else:
            print("usage: probe.py [--root DIR] [--load-modules] [--pretty]", file=sys.stderr)
            return 2
    report = examine(root, "--load-modules" in flags)
    print(json.dumps(report, indent=2 if "--pretty" in flags else None))
    return {"works": 0, "unknown": 3}.get(report["verdict"], 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
