"""PowerShell Direct, and the Windows at its other end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.peers.hyperv.cim import GUARD, VIRTUALIZATION, Instance, Wrong
from tests.peers.hyperv.model import Host, Machine
from tests.peers.pwsh.cmdlet import CMDLETS, Call, cmdlet
from tests.peers.pwsh.engine import Engine
from tests.peers.pwsh.raising import Raised, failure
from tests.peers.pwsh.unknown import NotKnown
from tests.peers.pwsh.values import ErrorRecord, Net, NetException, Secure

SPACE = "System.Management.Automation"
COMMAND = "Microsoft.PowerShell.Commands.InvokeCommandCommand"
NAME, WORKER = "GUEST01", 4242
FAILED_EVENT = {"GenuineIntel": 41, "AuthenticAMD": 42}


class Inside:
    """A Windows guest, as its own PowerShell sees it.

    While its own hypervisor runs, that one hides the CPU's extensions, as on any Windows.
    """

    def __init__(self, host: Host, machine: Machine) -> None:
        self.host, self.machine, self.guest = host, machine, machine.guest

    @property
    def own(self) -> bool:
        """Whether its own hypervisor runs."""
        return self.machine.received and self.guest.role

    @property
    def runs(self) -> bool:
        """Whether the VM inside does."""
        return self.own and self.guest.inner

    def has_module(self, name: str) -> bool:
        return name.lower() == "hyper-v" and self.guest.role

    def instances(self, namespace: str, name: str) -> list[Instance]:
        """See Instances."""
        if name in self.guest.other:
            return [Instance(name, about) for about in self.guest.other[name]]
        if namespace == VIRTUALIZATION and not self.guest.role:
            raise Wrong("namespace")
        known = {
            (r"root\cimv2", "win32_operatingsystem"): self._system,
            (r"root\cimv2", "win32_computersystem"): self._computer,
            (r"root\cimv2", "win32_processor"): self._processors,
            (r"root\cimv2", "win32_optionalfeature"): self._features,
            (GUARD, "win32_deviceguard"): self._guard,
            (VIRTUALIZATION, "msvm_computersystem"): self._machines,
        }.get((namespace, name))
        if known is None:
            raise NotKnown(f"the class {name} in {namespace}")
        return [Instance(name, about) for about in known()]

    def _system(self) -> list[dict[str, Any]]:
        booted = datetime.now(UTC) - timedelta(minutes=3)
        about = {"Caption": f"Microsoft {self.guest.name}", "BuildNumber": "20348", "ProductType": 3}
        return [{**about, "DataExecutionPrevention_Available": True, "LastBootUpTime": booted}]

    def _computer(self) -> list[dict[str, Any]]:
        about = {"Name": NAME, "Manufacturer": "Microsoft Corporation", "Model": "Virtual Machine"}
        return [{**about, "HypervisorPresent": True}]

    def _processors(self) -> list[dict[str, Any]]:
        shown = self.machine.received and not self.own
        return [
            {
                "Manufacturer": self.host.vendor,
                "VMMonitorModeExtensions": shown,
                "VirtualizationFirmwareEnabled": shown,
                "SecondLevelAddressTranslationExtensions": shown,
            }
        ]

    def _features(self) -> list[dict[str, Any]]:
        return [{"Name": "Microsoft-Hyper-V", "InstallState": 1 if self.guest.role else 2}]

    def _guard(self) -> list[dict[str, Any]]:
        return [{"VirtualizationBasedSecurityStatus": self.guest.vbs, "SecurityServicesRunning": [0]}]

    def _machines(self) -> list[dict[str, Any]]:
        """The machine itself is listed beside its VMs."""
        itself = {"Name": NAME, "ElementName": NAME, "EnabledState": 2, "ProcessID": None}
        itself["OnTimeInMilliseconds"] = 180_000
        inner = {"Name": "11111111-2222-3333-4444-555555555555", "ElementName": "inner"}
        running = {"EnabledState": 2, "ProcessID": WORKER, "OnTimeInMilliseconds": 60_000}
        stopped = {"EnabledState": 3, "ProcessID": None, "OnTimeInMilliseconds": 0}
        return [itself, {**inner, **(running if self.runs else stopped)}]

    def events(self) -> list[Net]:
        """What its own hypervisor has written since it booted."""
        if "events" in self.guest.other:
            pairs = self.guest.other["events"]
        elif not self.guest.role:
            pairs = []
        else:
            pairs = [(1, 4)] if self.own else [(FAILED_EVENT[self.host.vendor], 2)]
        full = "System.Diagnostics.Eventing.Reader.EventLogRecord"
        return [Net(full, {"Id": number, "Level": level}) for number, level in pairs]

    def processes(self) -> list[tuple[str, int]]:
        other: list[tuple[str, int]] = self.guest.other.get(
            "processes", [("vmwp", WORKER)] if self.runs else []
        )
        return [("System", 4), ("vmms", 2400), *other]


@cmdlet("Get-WinEvent [-FilterHashtable] <hashtable[]> [-MaxEvents <long>]")
def _events(call: Call) -> None:
    for wanted in call["FilterHashtable"]:
        if set(map(str.lower, wanted)) - {"logname", "providername", "starttime", "id"}:
            raise NotKnown(f"Get-WinEvent for {sorted(wanted)}")
        if not isinstance(wanted["StartTime"], datetime):
            raise NotKnown("Get-WinEvent since something that is no date")
    found = call.engine.machine.events()[: call["MaxEvents"]]
    if not found:
        words = "No events were found that match the specified selection criteria."
        exception = NetException("System.Exception", words)
        error_id = "NoMatchingEventsFound,Microsoft.PowerShell.Commands.GetWinEventCommand"
        call.fail(ErrorRecord(exception, error_id, "ObjectNotFound"))
    call.out += found


@cmdlet("Get-Process")
def _processes(call: Call) -> None:
    for name, number in call.engine.machine.processes():
        about = {"ProcessName": name, "Name": name, "Id": number}
        call.out.append(Net("System.Diagnostics.Process", about, f"System.Diagnostics.Process ({name})"))


class Job(Net):
    """A job in the background: what it wrote, how it failed, or neither while it hangs."""

    def __init__(self, written: list[Any], failed: ErrorRecord | None, hangs: bool) -> None:
        super().__init__(f"{SPACE}.Job", {"Id": 1, "HasMoreData": bool(written)})
        self.written, self.failed, self.hangs = written, failed, hangs


@cmdlet(
    "Invoke-Command [-VMId] <guid[]> [-ScriptBlock] <scriptblock> -Credential <pscredential> [-AsJob] "
    "[-ArgumentList <object[]>]"
)
def _direct(call: Call) -> None:
    host: Host = call.engine.machine
    host.tick()
    [identity] = call["VMId"]
    machine = host.find(identity)
    if machine is None or host.denied:
        words = f"The input VMId {identity} does not resolve to a single virtual machine."
        raise failure(f"InvalidVMIdNotSingle,{COMMAND}", words, "InvalidArgument", "System.ArgumentException")
    if machine.state != "Running":
        words = f"The virtual machine {machine.name} is not in running state."
        raise failure(f"InvalidVMState,{COMMAND}", words, "InvalidOperation", "System.ArgumentException")
    if not call["AsJob"]:
        host.wrongs.append("Invoke-Command without -AsJob waits for a guest for ever")
    job = _asked(call, host, machine)
    host.jobs.append(job)
    call.out.append(job)


def _asked(call: Call, host: Host, machine: Machine) -> Job:
    guest, credential = machine.guest, call["Credential"]
    if guest.system != "windows" or not guest.listens:
        return Job(
            [], _broken("PSRemotingTransportException", "The Hyper-V socket target process has ended."), False
        )
    password: Secure = credential.password
    guest.tried.append(password.value)
    if guest.hangs:
        return Job([], None, True)
    user = credential.properties["UserName"].rpartition("\\")[2]
    if (user.lower(), password.value) != (guest.user.lower(), guest.password):
        return Job([], _broken("PSDirectException", "The credential is invalid."), False)
    if guest.answer is not None:
        return Job([guest.answer], None, False)
    inside = Engine(CMDLETS, Inside(host, machine), environment={"COMPUTERNAME": NAME})
    try:
        written = inside.invoke(call["ScriptBlock"], inside.globals, rest=call["ArgumentList"] or ())
    except Raised as raised:
        return Job([], raised.record, False)
    return Job(written, None, False)


def _broken(exception: str, words: str) -> ErrorRecord:
    made = NetException(f"{SPACE}.Remoting.{exception}", words)
    return ErrorRecord(made, "PSSessionStateBroken", "OpenError")


@cmdlet("Wait-Job [-Job] <Job[]|> [-Timeout <int>]")
def _wait(call: Call) -> None:
    """It does not let a test wait for what never comes."""
    for job in call["Job"]:
        if job.hangs and call["Timeout"] is None:
            raise NotKnown("Wait-Job without -Timeout: this guest hangs for ever")
        if not job.hangs:
            call.out.append(job)


@cmdlet("Receive-Job [-Job] <Job[]|> [-Wait] [-AutoRemoveJob]")
def _receive(call: Call) -> None:
    for job in call["Job"]:
        call.out += job.written
        if job.failed is not None:
            call.fail(job.failed)


@cmdlet("Remove-Job [-Job] <Job[]|> [-Force]")
def _remove(call: Call) -> None:
    host: Host = call.engine.machine
    for job in call["Job"]:
        if job.hangs and not call["Force"]:
            words = "The command cannot remove the job because the job is not finished."
            raise failure("InvalidOperation,Microsoft.PowerShell.Commands.RemoveJobCommand", words)
        host.jobs.remove(job)
