"""VMs that are nodes of a real control plane: cordoned while they are down, one by one, and back again."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.fleet_runs import run_of
from tests.peers.kubelet import Cluster, Machine
from tests.peers.memory_fleet import MemoryFleet

WORKERS = ("worker-1", "worker-2")
MASTER = "master-1"


class Kubelets:
    """What nodes' kubelets do when their VMs are started; and what was seen of the nodes meanwhile."""

    def __init__(self, cluster: Cluster, fleet: MemoryFleet) -> None:
        self._cluster, self._fleet = cluster, fleet
        self._over = threading.Event()
        self._boots: dict[str, int] = {}
        self.down: list[str] = []
        self.cordoned_when_down: set[tuple[str, ...]] = set()
        self._thread = threading.Thread(target=self._play)
        self._thread.start()

    def cordoned(self) -> tuple[str, ...]:
        nodes = self._cluster.objects("nodes")
        return tuple(sorted(n["metadata"]["name"] for n in nodes if n["spec"].get("unschedulable")))

    def _play(self) -> None:
        while not self._over.wait(0.05):
            for name, vm in self._fleet.vms().items():
                if vm["power"] == "stopped" and name not in self.down:
                    self.down.append(name)
                    self.cordoned_when_down.add((name, *self.cordoned()))
                if vm.get("boots", 0) > self._boots.get(name, 0):
                    self._boots[name] = vm["boots"]
                    info = {"status": {"nodeInfo": {"bootID": f"boot-{vm['boots']}-of-{name}"}}}
                    words = ("--subresource=status", "--type=merge", "-p", json.dumps(info))
                    self._cluster.kubectl("patch", "node", name, *words)

    def end(self) -> None:
        self._over.set()
        self._thread.join()


@pytest.fixture
def fleet(tmp_path: Path, cluster: Cluster) -> MemoryFleet:
    made = MemoryFleet(tmp_path)
    for name in (MASTER, *WORKERS):
        cluster.add(name, Machine(control_plane=name == MASTER))
        made.add(name)
    return made


@pytest.fixture
def played(cluster: Cluster, fleet: MemoryFleet) -> Iterator[Kubelets]:
    kubelets = Kubelets(cluster, fleet)
    yield kubelets
    kubelets.end()


def words(cluster: Cluster, *args: str) -> tuple[str, ...]:
    plane = cluster.plane
    named = ("--context", plane.context, "--kubeconfig", str(plane.kubeconfig))
    return ("enable", "memory: *", "--yes", "--drain-nodes", "--timeout", "60", *named, *args)


def environment(cluster: Cluster) -> dict[str, str]:
    return {"PATH": str(cluster.plane.path("4")), "NESTVIRT_MEMORY_BOOT": "1"}


def test_each_is_cordoned_while_it_is_down_and_the_control_plane_comes_last(
    cluster: Cluster, fleet: MemoryFleet, played: Kubelets
) -> None:
    done = fleet.run(*words(cluster), **environment(cluster))
    assert done.returncode == 0, done.stdout + done.stderr
    assert played.down == [*WORKERS, MASTER]
    assert played.cordoned_when_down == {(name, name) for name in played.down}
    assert played.cordoned() == ()


def test_what_somebody_else_has_cordoned_stays_so(
    cluster: Cluster, fleet: MemoryFleet, played: Kubelets
) -> None:
    cluster.kubectl("cordon", "worker-1")
    done = fleet.run(*words(cluster), **environment(cluster))
    assert done.returncode == 0, done.stdout + done.stderr
    assert played.cordoned() == ("worker-1",)


def test_a_vm_that_is_put_back_has_its_node_uncordoned_and_is_the_last_one(
    cluster: Cluster, fleet: MemoryFleet, played: Kubelets
) -> None:
    vms = json.loads(fleet.path.read_text())
    vms["id-worker-1"]["fragile"] = True
    fleet.path.write_text(json.dumps(vms))
    rows = fleet.rows(*words(cluster), **environment(cluster))
    assert rows["memory:id-worker-1"]["error"]["kind"] == "PowerError"
    assert rows["memory:id-worker-2"]["ending"] == "not-begun"
    assert played.cordoned() == ()


def test_killed_while_a_node_is_cordoned_resume_uncordons_it(
    cluster: Cluster, fleet: MemoryFleet, played: Kubelets
) -> None:
    fleet.run(*words(cluster), **environment(cluster), NESTVIRT_MEMORY_DIE="1")
    assert played.cordoned() == ("worker-1",)
    done = fleet.run("enable", "--resume", "--yes", **environment(cluster))
    assert done.returncode == 0, done.stdout + done.stderr
    assert played.cordoned() == ()
    assert all(vm["boots"] == 1 for vm in fleet.vms().values())


def test_killed_while_a_node_is_cordoned_the_same_command_again_uncordons_it(
    cluster: Cluster, fleet: MemoryFleet, played: Kubelets
) -> None:
    fleet.run(*words(cluster), **environment(cluster), NESTVIRT_MEMORY_DIE="1")
    assert played.cordoned() == ("worker-1",)
    cluster.kubectl("cordon", "worker-2")  # somebody else
    done = fleet.run(*words(cluster), **environment(cluster))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "has left the node worker-1 cordoned" in done.stderr
    told = " ".join(done.stderr.split())
    assert (
        f"will write nested and power-cycle the VM; drain node {MASTER} of {cluster.plane.context} first:"
        in told
    )
    assert played.cordoned() == ("worker-2",)
    assert all(vm["boots"] == 1 for vm in fleet.vms().values())
    again = fleet.run(*words(cluster), **environment(cluster))
    assert "cordoned" not in again.stderr


def way_back(fleet: MemoryFleet, cluster: Cluster, *args: str) -> subprocess.CompletedProcess[str]:
    """Take back the newest enable of many."""
    return fleet.run("undo", run_of(fleet), "--yes", *args, **environment(cluster))


def test_it_is_taken_back_as_it_was_done_node_by_node(
    cluster: Cluster, fleet: MemoryFleet, played: Kubelets
) -> None:
    fleet.run(*words(cluster), **environment(cluster))
    played.down.clear()
    played.cordoned_when_down.clear()
    done = way_back(fleet, cluster)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"drain node worker-1 of {cluster.plane.context} first" in " ".join(done.stderr.split())
    assert played.down == [*WORKERS, MASTER]
    assert played.cordoned_when_down == {(name, name) for name in played.down}
    assert played.cordoned() == ()
    assert not any("nested" in vm for vm in fleet.vms().values())


def test_no_node_is_drained_for_the_way_back_where_that_is_said(
    cluster: Cluster, fleet: MemoryFleet, played: Kubelets
) -> None:
    fleet.run(*words(cluster), **environment(cluster))
    played.cordoned_when_down.clear()
    played.down.clear()
    done = way_back(fleet, cluster, "--no-drain-nodes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert played.cordoned_when_down == {(name,) for name in (*WORKERS, MASTER)}


def test_killed_while_a_node_is_cordoned_the_way_back_uncordons_it(
    cluster: Cluster, fleet: MemoryFleet, played: Kubelets
) -> None:
    fleet.run(*words(cluster), **environment(cluster), NESTVIRT_MEMORY_DIE="1")
    assert played.cordoned() == ("worker-1",)
    let_be = way_back(fleet, cluster, "--no-drain-nodes", "--dry-run")
    assert "has left worker-1 cordoned" in let_be.stderr
    done = way_back(fleet, cluster)
    assert done.returncode == 0, done.stdout + done.stderr
    assert played.cordoned() == ()
    assert not any("nested" in vm for vm in fleet.vms().values())
    assert all(vm["power"] == "running" for vm in fleet.vms().values())
    again = way_back(fleet, cluster)
    assert (again.returncode, "cordon" in again.stderr) == (0, False)  # both records say so


def test_killed_in_the_way_back_while_a_node_is_cordoned_the_same_command_uncordons_it(
    cluster: Cluster, fleet: MemoryFleet, played: Kubelets
) -> None:
    fleet.run(*words(cluster), **environment(cluster))
    fleet.run("undo", run_of(fleet), "--yes", **environment(cluster), NESTVIRT_MEMORY_DIE="1")
    assert played.cordoned() == ("worker-1",)
    done = way_back(fleet, cluster)
    assert done.returncode == 0, done.stdout + done.stderr
    assert played.cordoned() == ()
    assert not any("nested" in vm for vm in fleet.vms().values())


def test_a_vm_that_is_off_does_not_end_the_run_and_its_node_is_let_be(
    cluster: Cluster, fleet: MemoryFleet, played: Kubelets
) -> None:
    fleet.add("worker-1", running=False)
    rows = fleet.rows(*words(cluster), **environment(cluster))
    endings = {name: rows[f"memory:id-{name}"]["ending"] for name in (*WORKERS, MASTER)}
    assert endings == {"worker-1": "unknown", "worker-2": "pass", MASTER: "pass"}
    assert played.cordoned_when_down - {("worker-1",)} == {("worker-2", "worker-2"), (MASTER, MASTER)}


def test_the_vm_of_a_node_that_is_not_ready_is_left_running_and_so_are_the_others(
    cluster: Cluster, fleet: MemoryFleet, played: Kubelets
) -> None:
    cluster.add("worker-3", Machine(ready=False))
    fleet.add("worker-3")
    rows = fleet.rows(*words(cluster), **environment(cluster))
    error = rows["memory:id-worker-3"]["error"]
    assert (error["kind"], "worker-3 is not Ready" in error["message"]) == ("ChangeRejected", True)
    assert "worker-3" not in played.down
    assert "boots" not in fleet.vms()["worker-3"]
    assert "worker-3 is not Ready" in rows["memory:id-worker-1"]["error"]["message"]
    assert (played.down, played.cordoned()) == ([], ())


def test_the_plan_names_each_node_its_cluster_and_what_will_be_lost(
    cluster: Cluster, fleet: MemoryFleet
) -> None:
    asked = words(cluster, "--dry-run", "--delete-emptydir-data", "--force-off")
    rows = fleet.rows(*asked, **environment(cluster))
    drain = (
        f"it would drain node worker-1 of {cluster.plane.context} first, and pods with emptyDir volumes lose"
    )
    told = rows["memory:id-worker-1"]["remains"]
    assert any(line.startswith(drain) for line in told), told
    assert any("cut the power after 60 s" in line for line in told), told
    shown = fleet.run(*asked, **environment(cluster)).stdout
    assert "drain node worker-2" in "".join(shown.split("\n"))


def test_a_vm_that_is_no_node_is_found_before_anything_is_touched(
    cluster: Cluster, fleet: MemoryFleet, played: Kubelets
) -> None:
    fleet.add("database")
    rows = fleet.rows(*words(cluster), **environment(cluster))
    assert rows["memory:id-database"]["error"]["kind"] == "TargetError"
    assert "node" in rows["memory:id-database"]["error"]["cure"]
    assert rows[f"memory:id-{MASTER}"]["ending"] == "pass"
