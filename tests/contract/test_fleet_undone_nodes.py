"""A run over nodes that is taken back: what holds for a run holds for its undo, too."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.contract.fleet_runs import fleet_runs, run_of
from tests.peers.kube_nodes import KubeNodes

BOOT = {"NESTVIRT_MEMORY_BOOT": "1"}
ENABLE = ("enable", "memory: *", "--yes", "--timeout", "20")
DRAIN = (*ENABLE, "--drain-nodes")


@pytest.fixture
def nodes(tmp_path: Path) -> KubeNodes:
    return KubeNodes(tmp_path, ("w1", "w2"), ("prod", "staging"))


def enabled(nodes: KubeNodes, **variables: str) -> str:
    """The id of an enable of both; what is said of their hypervisor holds for the undo, too."""
    done = nodes.fleet.run(*DRAIN, **nodes.variables, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return run_of(nodes.fleet)


def undo(nodes: KubeNodes, run: str, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return nodes.fleet.run("undo", run, "--yes", *args, **nodes.variables, **variables)


def rows_of(told: str) -> dict[str, dict[str, Any]]:
    return {row["target"]: row for row in json.loads(told)["fleet"]}


def changed(nodes: KubeNodes) -> list[str]:
    """Those that have the change still."""
    return [name for name, vm in nodes.fleet.vms().items() if "nested" in vm]


def test_it_is_taken_back_in_the_cluster_of_the_run_and_in_no_other(nodes: KubeNodes) -> None:
    run = enabled(nodes)
    nodes.let(current="staging")
    refused = undo(nodes, run, "--context", "staging")
    assert refused.returncode == 1
    assert f"staging is not the cluster of run {run}" in refused.stderr
    assert "--no-drain-nodes" in refused.stderr
    assert changed(nodes) == ["w1", "w2"]
    done = undo(nodes, run)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (nodes.drained(), changed(nodes)) == (["w1", "w2"] * 2, [])
    assert not any(line.startswith("staging") for line in nodes.done())


def test_an_undo_that_drains_though_the_run_did_not_goes_on_in_its_own_cluster(nodes: KubeNodes) -> None:
    assert nodes.fleet.run(*ENABLE, **nodes.variables).returncode == 0
    run = run_of(nodes.fleet)
    undo(nodes, run, "--drain-nodes", NESTVIRT_MEMORY_DIE="1")
    assert (nodes.drained(), nodes.cordoned()) == (["w1"], ["w1"])
    nodes.let(current="staging")
    assert undo(nodes, run, "--context", "staging").returncode == 1
    done = undo(nodes, run)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (nodes.drained(), nodes.cordoned(), changed(nodes)) == (["w1", "w2"], [], [])


def test_killed_while_a_node_was_to_be_ready_no_other_is_drained_until_it_is(nodes: KubeNodes) -> None:
    run = enabled(nodes, **BOOT)
    running = nodes.fleet.begin("undo", run, "--yes", **nodes.variables)
    nodes.until_down("w1")
    nodes.let(unready=["w1"])
    nodes.until(lambda: nodes.fleet.vms()["w1"]["boots"] == 2, "w1 to be up")
    running.kill()
    running.communicate()
    told = rows_of(undo(nodes, run, "--timeout", "1", "-o", "json").stdout)
    assert "node w1 is not Ready" in told["memory:id-w2"]["error"]["message"]
    assert "node w1 was not Ready" in told["node w1"]["error"]["message"]
    assert (nodes.cordoned(), changed(nodes)) == (["w1"], ["w2"])
    assert fleet_runs(nodes.fleet)[-1]["state"] == "partly undone"
    nodes.let(unready=[])
    done = undo(nodes, run)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (nodes.cordoned(), changed(nodes)) == ([], [])
    assert fleet_runs(nodes.fleet)[-1]["state"] == "undone"


def test_a_node_that_is_not_ready_in_time_costs_its_row_that_says_what_was_put_back(
    nodes: KubeNodes,
) -> None:
    run = enabled(nodes, **BOOT)
    words = ("undo", run, "--yes", "-o", "json", "--timeout", "2")
    running = nodes.fleet.begin(*words, **nodes.variables)
    nodes.until_down("w1")
    nodes.let(unready=["w1"])
    told = rows_of(running.communicate(timeout=60)[0])
    w1 = told["memory:id-w1"]
    assert (w1["ending"], w1["changed"], w1["error"]["kind"]) == ("fail", True, "PowerError")
    assert w1["error"]["cure"].endswith("the VM itself is put back")
    assert told["memory:id-w2"]["ending"] == "not-begun"
    assert changed(nodes) == ["w2"]


def test_whose_way_back_is_another_by_now_is_not_drained_for_nothing(nodes: KubeNodes) -> None:
    run = enabled(nodes, **BOOT)
    words = ("undo", run, "--yes", "--max-failures", "9", "-o", "json")
    running = nodes.fleet.begin(*words, **nodes.variables)
    nodes.until_down("w1")
    nodes.edit("w2", nested="off")
    told = rows_of(running.communicate(timeout=60)[0])
    assert "changed by somebody else" in told["memory:id-w2"]["error"]["message"]
    assert nodes.drained() == ["w1", "w2", "w1"]


def test_other_runs_are_kept_off_the_cluster_meanwhile(nodes: KubeNodes) -> None:
    run = enabled(nodes, **BOOT)
    running = nodes.fleet.begin("undo", run, "--yes", **nodes.variables)
    nodes.until_down("w1")
    second = nodes.fleet.run("disable", "memory:w2", "--yes", "--drain-nodes", **nodes.variables)
    assert second.returncode == 1
    assert "another run is working on the nodes of prod" in second.stderr
    running.communicate(timeout=60)
    assert running.returncode == 0


def test_what_the_run_has_left_cordoned_is_in_the_plan_of_its_undo(nodes: KubeNodes) -> None:
    nodes.fleet.run(*DRAIN, **nodes.variables, NESTVIRT_MEMORY_DIE="1")
    run = run_of(nodes.fleet)
    assert nodes.cordoned() == ["w1"]
    shown = rows_of(undo(nodes, run, "--dry-run", "-o", "json").stdout)
    assert shown["node w1"]["ending"] == "plan"
    asked = nodes.fleet.run("undo", run, **nodes.variables)
    assert asked.returncode == 2
    assert f"will uncordon a node of prod, which run {run} has left" in " ".join(asked.stderr.split())
    assert nodes.cordoned() == ["w1"]
    lines = undo(nodes, run, "-o", "jsonl").stdout.splitlines()
    endings = {row["target"]: row["ending"] for row in map(json.loads, lines) if "target" in row}
    assert endings == {"memory:id-w1": "pass", "memory:id-w2": "pass", "node w1": "pass"}
    assert (nodes.cordoned(), changed(nodes)) == ([], [])
    again = undo(nodes, run)
    assert "cordoned" not in again.stderr


def test_a_later_run_over_its_nodes_uncordons_what_was_partly_taken_back(nodes: KubeNodes) -> None:
    run = enabled(nodes)
    undo(nodes, run, NESTVIRT_MEMORY_DIE="1")
    told = nodes.fleet.run("enable", "memory:w2", "--yes", "--drain-nodes", **nodes.variables)
    assert f"nestvirt undo {run}" in told.stderr
    assert nodes.cordoned() == ["w1"]
    done = nodes.fleet.run(*DRAIN, **nodes.variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert nodes.cordoned() == []
