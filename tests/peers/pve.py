"""A Proxmox VE that behaves as 9.2 was seen to: fakepve, with what it does not have.

Its switches stand in the classes: PvePeer for the cluster, Host for a node, PveVm for a VM, Guest for what
is inside. serve() in pve_server.py brings it up.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from fakepve import schema
from fakepve.model import PveError, lock_timeout
from fakepve.server import API, bad_request, error, ok, params
from fakepve.shapes import PRIVILEGES

from tests.peers import pve_agent, pve_cpu
from tests.peers.pve_cpu import PVE_9_2, Host, Release
from tests.peers.pve_power import Power
from tests.peers.pve_traffic import Traffic
from tests.peers.pve_vm import PveVm

NODE_USER = "root@pam!pvesh"
_AGENT_9 = re.compile(r"VM\.GuestAgent\.\w+")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class PvePeer(Power):
    """The cluster.

    Attributes:
        release: the version that all nodes have.
        hosts: the nodes by name.
        custom: custom CPU models, name to flags.
        traffic: what was sent to it.
        node_secret: with it, NODE_USER is root on a node, as pvesh is.
        lose: requests, as (method, end of the path, whether it is done), whose answer is lost; once each.
        stall: seconds after which a lost answer's connection is closed.
        instead: answers every request in place of the API.
        plain_port: the same without TLS, for the programs of a node.
    """

    def __init__(self, release: Release = PVE_9_2) -> None:
        super().__init__(host="127.0.0.1", port=0)
        self.release = release
        self.version, self.release_version = release.version, release.release
        self.hosts = {"pve1": Host()}
        self.custom: dict[str, str] = {}
        self.traffic = Traffic()
        self.node_secret = secrets.token_hex(16)
        self.lose: list[tuple[str, str, bool]] = []
        self.stall = 0.0
        self.instead: Callable[[web.Request], web.Response] | None = None
        self.plain_port = 0

    async def start(self, certfile: str, keyfile: str) -> None:
        """Listen."""
        await super().start(certfile, keyfile)
        await web.TCPSite(self.runner, self.host, 0).start()
        self.plain_port = self.runner.addresses[1][1]

    # --- what a test sets up

    def add_host(self, name: str, host: Host | None = None, *, online: bool = True) -> None:
        """Add a node."""
        self.hosts[name] = host or Host()
        self.add_node(name, online)

    def add(
        self, name: str, *, vmid: int = 0, node: str = "pve1", running: bool = False, **config: Any
    ) -> PveVm:
        """Add a VM, with its agent on."""
        vmid = vmid or 100 + len(self.vms)
        usual = {"agent": "1", "boot": " ", "memory": "512", "ostype": "l26"}
        usual["smbios1"] = f"uuid={uuid.uuid4()}"
        vm = PveVm(vmid, name, node, self.hosts[node], {**usual, **config})
        vm.custom = self.custom
        self.vms.append(vm)
        if running:
            vm.power_on()
        return vm

    def named(self, name: str) -> PveVm:
        """The one VM of that name."""
        [vm] = [vm for vm in self.vms if vm.name == name]
        found: PveVm = vm
        return found

    def add_token(self, token: str, *privileges: str, path: str = "/") -> str:
        """Make an API token with these privileges, and no others; return it with its secret."""
        self.apitokens[token] = secrets.token_hex(16)
        self.grant(token, path, *privileges)
        return f"{token}={self.apitokens[token]}"

    # --- the edge: counting, checking, and what the HTTP server does to answers

    def _build_app(self) -> web.Application:
        app: web.Application = super()._build_app()
        app.middlewares.insert(0, self._edge)
        return app

    @web.middleware
    async def _edge(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self.instead is not None:
            return self.instead(request)
        if request.path.startswith("/sys/module/"):
            return web.Response(text=self._parameter(request.path))
        path = request.path.removeprefix(API)
        self.traffic.note(request.method, path, await params(request), old=self.release.major <= 7)
        if schema.load().match(path) is None:
            return self._as_sent(error(501, f"Method '{request.method} {path}' not implemented"))
        lost = next((e for e in self.lose if e[0] == request.method and path.endswith(e[1])), None)
        if lost is None:
            return self._as_sent(await handler(request))
        self.lose.remove(lost)
        if lost[2]:
            await handler(request)
        await asyncio.sleep(self.stall)
        if request.transport is not None:
            request.transport.close()
        return web.Response()  # goes nowhere

    def _as_sent(self, response: web.StreamResponse) -> web.StreamResponse:
        """The reason phrase has an error's text; its body has it too since http-server 5.2.0, or is empty."""
        if not isinstance(response, web.Response) or response.status < 400:
            return response
        if response.status in (401, 596):
            return web.Response(status=response.status, reason=response.reason)
        body = json.loads(response.text or "{}")
        if not self.release.message and "message" in body:
            del body["message"]
            return web.json_response(body, status=response.status, reason=response.reason)
        return response

    def _authenticate(self, request: web.Request) -> str | None:
        sent = request.headers.get("Authorization", "")
        if sent == f"PVEAPIToken={NODE_USER}={self.node_secret}":
            return "root@pam"
        try:
            user: str | None = super()._authenticate(request)
        except PveError as refused:
            raise (PveError(401, "Authentication failed!") if sent else refused) from refused
        return user

    # --- rights

    async def _permissions(self, values: dict[str, Any], user: str) -> object:
        who = values.get("userid") or user
        path = values.get("path") or "/"
        held = [p for p in map(self._as_named, PRIVILEGES) if self.allowed(who, path, p)]
        return {path: dict.fromkeys(held, 1)}

    def check_permissions(self, user: str, perms: Any, values: Any, declared: Any = None) -> None:
        """Up to 8, one privilege stands for all that the agent does."""
        super().check_permissions(user, json.loads(self._as_named(json.dumps(perms))), values, declared)

    def _as_named(self, text: str) -> str:
        return text if self.release.major >= 9 else _AGENT_9.sub("VM.Monitor", text)

    # --- the cluster and its nodes

    def find(self, node: str, vmid: object) -> PveVm:
        """The VM on this node."""
        if node not in self.nodes:
            text = "failed to get address info for: {0}: Name or service not known"
            raise PveError(500, f"hostname lookup '{node}' failed - {text.format(node)}")
        vm: PveVm = super().find(node, vmid)
        return vm

    async def _resources(self, request: web.Request) -> web.Response:
        rows = json.loads((await super()._resources(request)).text)["data"]
        listed = {vm.vmid: vm.listed for vm in self.vms}
        for row in rows:
            row["node"] = listed.get(row.get("vmid"), row.get("node"))
        return web.json_response({"data": [row for row in rows if row["node"]]})

    def _routes_pve(self) -> list[tuple[str, str, Any]]:
        node = "/nodes/{node}"
        return [
            ("GET", f"{node}/status", self._node_status),
            ("GET", f"{node}/capabilities/qemu/cpu-flags", self._cpu_flags),
        ]

    async def _node_status(self, values: dict[str, Any], _user: str) -> object:
        host = self.hosts[values["node"]]
        kernel = {"machine": host.machine, "sysname": "Linux", "release": "6.17.2-1-pve", "version": "#1 SMP"}
        status = {
            "pveversion": f"pve-manager/{self.version}/deadbeefdeadbeef",
            "cpuinfo": host.cpuinfo,
            "kversion": "Linux 6.17.2-1-pve #1 SMP",
            "uptime": 7935,
            "loadavg": ["0.03", "0.12", "0.35"],
        }
        return status | ({"current-kernel": kernel} if self.release.major >= 8 else {})

    async def _cpu_flags(self, values: dict[str, Any], _user: str) -> object:
        release = self.release
        if release.version < "9.1":
            path = f"/nodes/{values['node']}/capabilities/qemu/cpu-flags"
            raise PveError(501, f"Method 'GET {path}' not implemented")
        rows: list[dict[str, Any]] = [
            {"name": flag, "description": pve_cpu.FLAGS[flag]} for flag in release.flags
        ]
        if release.qemu_server >= (9, 1, 13):
            reporting = [name for name, host in self.hosts.items() if host.reports]
            nesting = [name for name in reporting if self.hosts[name].virt and self.hosts[name].nested]
            on = {"nested-virt": sorted(nesting), "aes": sorted(reporting), "pcid": sorted(reporting)}
            rows = [row | {"supported-on": on.get(row["name"], [])} for row in rows]
        return sorted(rows, key=lambda row: row["name"] != "nested-virt")

    def _parameter(self, path: str) -> str:
        """The kvm module's parameter on pve1, for who is on that node; no part of the API."""
        host = self.hosts["pve1"]
        intel = host.flag == "vmx"
        loaded = path == f"/sys/module/{'kvm_intel' if intel else 'kvm_amd'}/parameters/nested"
        return ("NY" if intel else "01")[host.nested] if loaded else ""

    # --- a VM's configuration

    async def _config_get(self, request: web.Request) -> web.Response:
        vm = self._vm(request, "VM.Audit")
        config = vm.config if request.query.get("current") == "1" else vm.merged
        answer: web.Response = ok({**config, "digest": vm.digest()})
        return answer

    async def _pending(self, request: web.Request) -> web.Response:
        vm = self._vm(request, "VM.Audit")
        rows: list[dict[str, Any]] = [{"key": "digest", "value": vm.digest()}]
        for key in sorted({*vm.config, *vm.pending}):
            row: dict[str, Any] = {"key": key}
            if key in vm.config:
                row["value"] = vm.config[key]
            if key in vm.pending:
                row |= {"delete": 1} if vm.pending[key] is None else {"pending": vm.pending[key]}
            rows.append(row)
        answer: web.Response = ok(rows)
        return answer

    async def _apply_config(self, vm: PveVm, user: str, values: dict[str, Any]) -> None:
        updates = dict(values)
        digest, skiplock = updates.pop("digest", None), updates.pop("skiplock", None)
        updates.pop("force", None)
        deletes, reverts = (
            [key for key in re.split(r"[,; ]+", str(updates.pop(name, ""))) if key]
            for name in ("delete", "revert")
        )
        if skiplock and user != "root@pam":
            raise bad_request(skiplock="Only root may use this option.")
        if "cpu" in updates:
            self._check_cpu(str(updates["cpu"]), user)
        if not (updates or deletes or reverts):
            raise PveError(500, "no options specified")
        for key in [*updates, *deletes, *reverts]:
            if key == "args" and user != "root@pam":
                raise PveError(500, "only root can set 'args' config")
            self.require(user, f"/vms/{vm.vmid}", self._config_priv(key))
        self.need_quorum()
        if vm.lock_timeouts:
            vm.lock_timeouts -= 1
            raise PveError(500, lock_timeout(vm.vmid))
        if digest and digest != vm.digest():
            raise PveError(500, "checksum mismatch (file change by other user?)")
        if not skiplock:
            self._check_lock(vm)
        vm.change(updates, deletes, reverts)

    def _check_cpu(self, cpu: str, user: str) -> None:
        wrong = pve_cpu.refusal(cpu, self.release, self.custom)
        if wrong is not None:
            raise bad_request(cpu=f"invalid format - {wrong}")
        kind = pve_cpu.options(cpu).get("cputype", "")
        if kind.startswith("custom-"):
            if self.release.qemu_server >= (9, 1, 13):
                self.require(user, f"/mapping/cpu/{kind.removeprefix('custom-')}", "Mapping.Use")
            else:
                self.require(user, "/nodes", "Sys.Audit")

    # --- the guest agent

    async def _agent_call(self, match: Any, values: dict[str, Any]) -> object:
        vm = self.find(values["node"], values["vmid"])
        command = match.template.rsplit("/", 1)[1]
        return pve_agent.answer(vm, command, values, old=self.release.major <= 7)
