"""That nothing goes to the wrong VM or to the wrong server, and nothing is left changed unseen."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fakepve.model import PveError

from nestvirt import backends, engine
from nestvirt.engine import Manner, Step
from nestvirt.errors import ChangeRejected, ConnectionFailed, Interrupted, PowerError, TargetError
from nestvirt.journal import Journal
from nestvirt.model import Goal, Plan, Power, Status, Target
from tests.contract.basis import MANNER, OFF, ON, agree
from tests.contract.runs import enable, found, session
from tests.peers.proxmox_rig import LocalRig, PasswordRig, ProxmoxRig
from tests.peers.pve_cpu import PVE_7, PVE_8
from tests.peers.pve_node import Node
from tests.peers.pve_server import Served, serve

WRONG = ":".join(["AB"] * 32)


# --- the right server


@contextmanager
def proxy() -> Iterator[tuple[str, list[bytes]]]:
    """A proxy on loopback that connects to whatever it is told, and notes what it is told."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve_one(client: socket.socket) -> None:
            request = client.recv(65536)
            heard.append(request)
            host, _, port = request.split()[1].decode().rpartition(":")
            with client, socket.create_connection((host, int(port))) as upstream:
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=copy, args=(upstream, client), daemon=True)
                back.start()
                copy(client, upstream)
                back.join(5)

        def copy(source: socket.socket, sink: socket.socket) -> None:
            try:
                while data := source.recv(65536):
                    sink.sendall(data)
                sink.shutdown(socket.SHUT_WR)
            except OSError:
                return

        def listen() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=serve_one, args=(client,), daemon=True).start()

        threading.Thread(target=listen, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", heard


@pytest.mark.parametrize("kind", [ProxmoxRig, PasswordRig])
def test_pinned_certificate_is_compared_through_a_proxy_too(
    served: Served, kind: type[ProxmoxRig], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = kind(served)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    credentials = {k: v for k, v in rig.endpoint.items() if k not in ("ca_file",)}
    with proxy() as (address, heard):
        monkeypatch.setenv("HTTPS_PROXY", address)
        backends.connect(Target("proxmox", "x"), {**credentials, "fingerprint": served.fingerprint}).close()
        assert heard
        served.pve.traffic.clear()
        with pytest.raises(ConnectionFailed, match="fingerprint"):
            backends.connect(Target("proxmox", "x"), {**credentials, "fingerprint": WRONG})
    assert served.pve.traffic.counts.total() == 0


# --- the right VM


@pytest.fixture
def other() -> Iterator[ProxmoxRig]:
    """Another cluster, behind the same address but for its port, whose VMs have the same numbers."""
    with serve() as served:
        yield ProxmoxRig(served)


def test_undo_by_way_of_another_cluster_is_refused(
    rig: ProxmoxRig, other: ProxmoxRig, journal: Journal
) -> None:
    name = rig.make()
    other.pve.add(name, running=True, cpu="host")
    run = journal.find(enable(rig, journal, name).run)
    assert other.vm(name).vmid == rig.vm(name).vmid
    before = other.see(name)
    with pytest.raises(TargetError, match="another one now"):
        session(other, journal, run.vm.id)
    assert other.see(name) == before


def test_what_was_done_on_another_cluster_is_not_owed_or_put_back_here(
    rig: ProxmoxRig, other: ProxmoxRig, journal: Journal
) -> None:
    name = rig.make(cpu="EPYC,hidden=1")
    enable(rig, journal, name)
    here = session(rig, journal, name)
    journal.begin("enable", here.target, here.vm, Power.RUNNING, {})  # it died, and owes a start
    other.pve.add(name, cpu="host,hidden=1")
    result = engine.reach(session(other, journal, name), OFF, MANNER)
    assert [c.after for c in result.changes] == ["host,hidden=1,flags=-nested-virt"]
    assert not other.see(name).running


def test_vm_that_has_taken_over_a_number_is_not_undone(rig: ProxmoxRig, journal: Journal) -> None:
    name = rig.make()
    run = journal.find(enable(rig, journal, name).run)
    vmid = rig.vm(name).vmid
    rig.pve.vms.remove(rig.vm(name))
    rig.pve.add("payroll-db", vmid=vmid, running=True, cpu="host")
    with pytest.raises(TargetError, match="another one now"):
        session(rig, journal, run.vm.id)


# --- nothing left changed unseen


def test_write_that_lands_after_it_was_looked_for_is_known_for_ours(
    rig: ProxmoxRig, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = rig.make()
    now = session(rig, journal, name)
    rig.pve.lose.append(("PUT", "/config", False))
    read = now.backend.read
    looks: list[Any] = []

    def late(vm: Any) -> Any:
        facts = read(vm)
        if rig.pve.traffic.writes and not looks:
            looks.append(facts)
            rig.vm(name).change({"cpu": "host"})
        return facts

    monkeypatch.setattr(now.backend, "read", late)
    result = engine.reach(now, ON, MANNER)
    assert result.conclusion is Status.PASS
    assert result.run is not None


def test_write_that_is_followed_by_a_complaint_about_another_option_is_seen(
    rig: ProxmoxRig, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """qemu-server writes first, and says last which other pending options it could not apply."""
    name = rig.make()
    before = rig.see(name)
    original = rig.pve._apply_config

    async def complain(vm: Any, user: str, values: dict[str, Any]) -> None:
        await original(vm, user, values)
        if values.get("cpu") == "host":
            raise PveError(400, "Parameter verification failed.", {"net0": "hotplug problem"})

    monkeypatch.setattr(rig.pve, "_apply_config", complain)
    result = enable(rig, journal, name)
    assert result.conclusion is Status.PASS
    engine.undo(session(rig, journal, name), journal.find(result.run), MANNER)
    assert rig.see(name).stored == before.stored


def test_pending_cpu_that_does_not_start_is_put_back_to_the_one_that_ran(
    rig: ProxmoxRig, journal: Journal
) -> None:
    name = rig.make(quirk="fragile")
    before = rig.see(name)
    rig.edit(name, nested=True)
    with pytest.raises(PowerError) as caught:
        enable(rig, journal, name)
    assert "put back" in caught.value.cure
    assert rig.see(name).running
    assert rig.see(name).stored == before.stored


def test_vm_that_somebody_else_starts_meanwhile_keeps_its_power(rig: ProxmoxRig, journal: Journal) -> None:
    name = rig.make()

    def meddle(step: Step, _detail: str) -> None:
        if step is Step.APPLY:
            rig.vm(name).power_on()

    with pytest.raises(PowerError, match="by somebody else"):
        engine.reach(session(rig, journal, name, tell=meddle), ON, MANNER)
    assert rig.see(name).running
    assert not rig.see(name).nested
    assert {t["type"] for t in rig.pve.tasklog} == {"qmshutdown"}


def test_start_that_was_not_heard_is_asked_for_again(rig: ProxmoxRig, journal: Journal) -> None:
    name = rig.make()
    rig.pve.lose.append(("POST", "/status/start", False))
    assert enable(rig, journal, name).conclusion is Status.PASS


def test_running_vm_that_has_it_already_is_not_power_cycled(rig: ProxmoxRig, journal: Journal) -> None:
    """Somebody has set another CPU for the next start; to take that back changes nothing that runs."""
    name = rig.make(nested=True)
    before = rig.see(name)
    rig.edit(name, nested=False)
    result = enable(rig, journal, name)
    assert (result.conclusion, result.remains) == (Status.PASS, ())
    assert rig.see(name) == before


def test_what_there_is_to_mind_is_shown_before_consent(rig: ProxmoxRig, journal: Journal) -> None:
    name = rig.make(ostype="win11")
    rig.vm(name).change({"memory": "1024"})
    shown: list[str] = []

    def consent(plan: Plan) -> None:
        shown.extend(warning.check for warning in plan.warnings)
        agree(plan)

    engine.reach(session(rig, journal, name), ON, Manner(consent))
    assert shown == ["vm-pending-others", "vm-windows-host", "vm-agent"]


def test_passing_trouble_while_waiting_is_waited_out(rig: ProxmoxRig, journal: Journal) -> None:
    name = rig.make()

    def trouble(step: Step, _detail: str) -> None:
        if step in (Step.STOP, Step.START):
            rig.pve.fail("GET", "/status", 500, "a passing trouble", times=1)
            rig.pve.fail("GET", "/status/current", 500, "a passing trouble", times=1)

    result = engine.reach(session(rig, journal, name, tell=trouble), ON, MANNER)
    assert result.conclusion is Status.PASS
    assert rig.pve.failures == {}


@pytest.mark.parametrize(
    ("status", "text", "cure"),
    [
        (500, "cluster not ready - no quorum?", "mend what Proxmox says"),
        (500, "VM is locked (backup)", "qm unlock"),
        (400, "Parameter verification failed.", "name a type"),
    ],
)
def test_refusal_of_a_write_is_told_with_a_cure_that_fits(
    rig: ProxmoxRig, journal: Journal, status: int, text: str, cure: str
) -> None:
    name = rig.make()
    before = rig.see(name)
    rig.pve.fail("PUT", "/config", status, text)
    with pytest.raises(ChangeRejected) as caught:
        enable(rig, journal, name)
    assert text in caught.value.evidence
    assert cure in caught.value.cure
    assert "off in between" in caught.value.cure
    assert rig.see(name).stored == before.stored
    assert rig.see(name).running


@pytest.mark.parametrize("release", [PVE_7, PVE_8], ids=lambda r: r.release)
def test_exec_takes_its_command_in_the_form_of_the_version(rig: ProxmoxRig, journal: Journal) -> None:
    name = rig.make(cpu="host")
    sent: list[Any] = []
    note = rig.pve.traffic.note

    def noting(method: str, path: str, values: Any, *, old: bool) -> None:
        if path.endswith("/agent/exec"):
            sent.append(values["command"])
        note(method, path, values, old=old)

    rig.pve.traffic.note = noting  # type: ignore[method-assign]
    assert engine.check(session(rig, journal, name), ON).conclusion is Status.PASS
    if rig.pve.version.startswith("7"):
        assert sent == ["/usr/bin/env python3 -I -"]
    else:
        assert sent == [["/bin/sh", "-c", 'exec "$@"', "sh", "python3", "-I", "-"]]


@pytest.mark.parametrize("word", ["checksum mismatch", "checksum missmatch"])
def test_changed_digest_is_known_in_both_spellings(rig: ProxmoxRig, journal: Journal, word: str) -> None:
    name = rig.make()
    rig.pve.fail("PUT", "/config", 500, f"{word} (file change by other user?)", times=1)
    assert enable(rig, journal, name).conclusion is Status.PASS


def test_rights_that_are_not_inherited_are_rights(
    rig: ProxmoxRig, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The value beside a privilege says whether it propagates."""
    original = rig.pve._permissions

    async def flat(values: dict[str, Any], user: str) -> object:
        held: Any = await original(values, user)
        return {path: dict.fromkeys(rights, 0) for path, rights in held.items()}

    name = rig.make()
    monkeypatch.setattr(rig.pve, "_permissions", flat)
    now = session(rig, journal, name)
    assert "vm-permission" not in {f.check for f in now.backend.read(now.vm).judge(ON)}


@pytest.mark.parametrize("cpu", ["foo bar", "a;b", "host,flags=+svm", "EPYC-Roma"])
def test_no_vm_is_stopped_for_a_slip_of_the_pen(rig: ProxmoxRig, journal: Journal, cpu: str) -> None:
    name = rig.make()
    before = rig.see(name)
    result = enable(rig, journal, name, Goal(cpu=cpu))
    assert "vm-cpu-choice" in [f.check for f in result.blockers]
    assert rig.see(name) == before


def test_disable_of_a_custom_model_claims_nothing(rig: ProxmoxRig, journal: Journal) -> None:
    rig.pve.custom["nested"] = "+svm"
    name = rig.make(cpu="custom-nested", running=False)
    result = engine.reach(session(rig, journal, name), OFF, MANNER)
    assert result.conclusion is Status.UNKNOWN
    assert found(result, "vm-cpu").status is Status.UNKNOWN
    assert "not known" in found(result, "guest-withdrawn").evidence


def test_file_that_the_guest_lacks_is_none_by_pvesh_too(
    served: Served, journal: Journal, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:" + os.environ["PATH"])
    rig = LocalRig(served, node)
    name = rig.make()
    now = session(rig, journal, name)
    now.backend.read(now.vm)
    channel = now.backend.channel(now.vm)
    assert channel.file("/dev/kvm") is None  # type: ignore[union-attr]


def test_ctrl_c_while_it_shuts_down_says_that_the_vm_was_off(
    rig: ProxmoxRig, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = rig.make()
    now = session(rig, journal, name)
    stop = now.backend.stop

    def press(vm: Any, *, timeout: float) -> None:
        stop(vm, timeout=timeout)
        raise KeyboardInterrupt

    monkeypatch.setattr(now.backend, "stop", press)
    with pytest.raises(Interrupted, match=f"off in between: {name}"):
        engine.reach(now, ON, MANNER)
    assert rig.see(name).running
