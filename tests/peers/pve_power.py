"""Power and tasks of the Proxmox peer. No clock: what takes a while takes a number of questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from aiohttp import web
from fakepve.model import TaskError
from fakepve.server import FakePve, ok

from tests.peers.pve_vm import Failed, PveVm

Body = Callable[[], Awaitable[object]]


class Power(FakePve):  # type: ignore[misc]
    """A part of PvePeer.

    Attributes:
        task_polls: how often a task that is asked for says that it still runs.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.task_polls = 0
        self._still_running: Counter[str] = Counter()

    # --- tasks

    async def task(
        self,
        node: str,
        ttype: str,
        tid: object,
        user: str,
        body: Body,
        vm: object = None,
        lock: bool = True,
        log: Iterable[str] = (),
    ) -> str:
        """Run a task to its end; its log and end are as PVE's own."""
        upid, pid, start = self._upid(node, ttype, tid, user)
        lines = list(log)
        try:
            printed = await body()
            lines += [printed] if isinstance(printed, str) else printed if isinstance(printed, list) else []
            warnings = sum(line.startswith("WARN:") for line in lines)
            status = f"WARNINGS: {warnings}" if warnings else "OK"
            lines.append(f"TASK {status}")
        except TaskError as error:
            status = str(error)
            lines += [*getattr(error, "log", ()), f"TASK ERROR: {status}"]
        record = {
            "upid": upid,
            "node": node,
            "pid": pid,
            "pstart": pid * 7,
            "starttime": start,
            "type": ttype,
        }
        record |= {"id": str(tid), "user": user, "status": "stopped", "exitstatus": status, "endtime": start}
        self.tasks[upid] = record | {"log": lines}
        self.tasklog.append(self.tasks[upid])
        self._still_running[upid] = self.task_polls
        return str(upid)

    async def _task_status(self, request: web.Request) -> web.Response:
        view = self._task_view(self._get_task(request))
        if self._still_running[view["upid"]] > 0:
            self._still_running[view["upid"]] -= 1
            view["status"] = "running"
            del view["exitstatus"]
        answer: web.Response = ok(view)
        return answer

    async def _task_log(self, request: web.Request) -> web.Response:
        lines = self._get_task(request)["log"]
        first, limit = int(request.query.get("start", 0)), int(request.query.get("limit", 50))
        rows = [{"n": number, "t": line} for number, line in enumerate(lines, 1)]
        return web.json_response({"data": rows[first : first + limit], "total": len(lines)})

    # --- status

    async def _status_current(self, request: web.Request) -> web.Response:
        vm: PveVm = self._vm(request, "VM.Audit")
        self._let_ha_work(vm)
        answer: web.Response = ok(self._vm_status(vm))
        return answer

    def _vm_status(self, vm: PveVm, listing: bool = False) -> dict[str, Any]:
        usage = self._vm_usage(vm)
        status = {"vmid": vm.vmid, "name": vm.name, "status": vm.status, "cpus": usage.pop("maxcpu"), **usage}
        if listing:
            return status
        status |= {"qmpstatus": vm.qmpstatus, "ha": {"managed": 0}}
        if vm.ha_managed:
            status["ha"] = {"managed": 1, "state": vm.ha_state}
        if vm.has_agent:
            status["agent"] = 1
        if vm.lock:
            status["lock"] = vm.lock
        if vm.template:
            status["template"] = 1
        if vm.pid is not None:
            pressures = (
                f"pressure{what}{how}" for what in ("cpu", "io", "memory") for how in ("some", "full")
            )
            status |= {"pid": vm.pid, **dict.fromkeys(pressures, 0)}
        return status

    # --- on and off

    async def _do_start(self, vm: PveVm, user: str, _values: object) -> str:
        if vm.ha_managed and not vm.template:
            return await self._ask_ha(vm, user, "started")

        async def body() -> list[str]:
            if vm.template:
                raise Failed("you can't start a vm if it's a template")
            if vm.lock and vm.lock != "suspended":
                raise Failed(f"VM is locked ({vm.lock})")
            if vm.status == "running":
                raise Failed(f"VM {vm.vmid} already running")
            return vm.power_on()

        return await self.task(vm.node, "qmstart", vm.vmid, user, body)

    async def _do_stop(self, vm: PveVm, user: str, _values: object) -> str:
        self._check_lock(vm)
        if vm.ha_managed:
            return await self._ask_ha(vm, user, "stopped")

        async def body() -> None:
            vm.power_off()

        return await self.task(vm.node, "qmstop", vm.vmid, user, body)

    async def _do_shutdown(self, vm: PveVm, user: str, _values: object) -> str:
        self._need_running(vm)
        self._check_lock(vm)
        if vm.ha_managed:
            return await self._ask_ha(vm, user, "stopped")

        async def body() -> None:
            if not vm.acpi or vm.qmpstatus == "paused":
                raise Failed("VM quit/powerdown failed - got timeout")
            vm.power_off()

        return await self.task(vm.node, "qmshutdown", vm.vmid, user, body)

    # --- the HA manager, which does later what it was asked

    async def _ask_ha(self, vm: PveVm, user: str, state: str) -> str:
        vm.ha_due = (state, vm.ha_polls)

        async def body() -> str:
            return f"Requesting HA {'start' if state == 'started' else 'stop'} for VM {vm.vmid}"

        kind = "hastart" if state == "started" else "hastop"
        return await self.task(vm.node, kind, vm.vmid, user, body)

    @staticmethod
    def _let_ha_work(vm: PveVm) -> None:
        if vm.ha_due is None:
            return
        state, left = vm.ha_due
        if left:
            vm.ha_due = (state, left - 1)
            return
        vm.ha_due = None
        vm.ha_state = state
        if state == "stopped":
            vm.power_off()
        elif vm.status != "running":
            try:
                vm.power_on()
            except Failed:
                vm.ha_state = "error"
