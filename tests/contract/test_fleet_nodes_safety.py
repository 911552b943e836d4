"""VMs that are nodes, and what goes wrong: no second node goes down, and none of another cluster."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.peers.kube_nodes import KubeNodes

ENABLE = ("enable", "memory: *", "--drain-nodes", "--timeout", "20")
YES = (*ENABLE, "--yes")
BOOT = {"NESTVIRT_MEMORY_BOOT": "1"}


@pytest.fixture
def nodes(tmp_path: Path) -> KubeNodes:
    return KubeNodes(tmp_path, ("w1", "w2"), ("prod", "staging"))


def rows_of(told: str) -> dict[str, dict[str, Any]]:
    return {row["target"]: row for row in json.loads(told)["fleet"]}


def rows(nodes: KubeNodes, *args: str) -> Mapping[str, dict[str, Any]]:
    return rows_of(nodes.fleet.run(*args, "-o", "json", **nodes.variables).stdout)


def boots(nodes: KubeNodes) -> dict[str, int]:
    return {name: vm.get("boots", 0) for name, vm in nodes.fleet.vms().items()}


def killed(nodes: KubeNodes) -> None:
    """A run that died with w1 off, and its node cordoned."""
    nodes.fleet.run(*YES, **nodes.variables, NESTVIRT_MEMORY_DIE="1")
    assert nodes.cordoned() == ["w1"]


def test_the_cluster_is_that_of_the_beginning_whatever_context_is_current_later(nodes: KubeNodes) -> None:
    running = nodes.fleet.begin(*YES, **nodes.variables, **BOOT)
    nodes.until_down("w1")
    nodes.let(current="staging")
    assert running.wait(60) == 0
    running.communicate()
    assert nodes.drained() == ["w1", "w2"]
    assert not any(line.startswith("staging") for line in nodes.done())


def test_resume_goes_on_in_the_cluster_of_the_run_and_in_no_other(nodes: KubeNodes) -> None:
    running = nodes.fleet.begin(*YES, **nodes.variables, **BOOT)
    nodes.until_down("w1")
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=60)
    assert (nodes.drained(), nodes.cordoned()) == (["w1"], [])
    nodes.let(current="staging")
    refused = nodes.fleet.run("enable", "--resume", "--yes", "--context", "staging", **nodes.variables)
    assert refused.returncode == 1
    assert "staging is not the cluster of run" in refused.stderr
    nodes.let(unready=["w1"])  # which is through, and has gone down since
    assert nodes.fleet.run("enable", "--resume", "--yes", **nodes.variables).returncode == 1
    assert nodes.drained() == ["w1"]
    nodes.let(unready=[])
    [record] = (nodes.fleet.state / "fleets").glob("*.jsonl")
    done = nodes.fleet.run("enable", "--resume", record.stem, "--yes", **nodes.variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert nodes.done()[-1] == "prod: uncordon w2"


def test_killed_while_a_node_was_to_be_ready_resume_drains_no_other_until_it_is(nodes: KubeNodes) -> None:
    running = nodes.fleet.begin(*YES, **nodes.variables, **BOOT)
    nodes.until_down("w1")
    nodes.let(unready=["w1"])
    nodes.until(lambda: nodes.fleet.vms()["w1"].get("boots") == 1, "w1 to be up")
    running.kill()
    running.communicate()
    told = rows(nodes, "enable", "--resume", "--yes", "--timeout", "1")
    assert "node w1 is not Ready" in told["memory:id-w2"]["error"]["message"]
    assert "node w1 was not Ready" in told["node w1"]["error"]["message"]
    assert (boots(nodes), nodes.cordoned()) == ({"w1": 1, "w2": 0}, ["w1"])
    nodes.let(unready=[])
    done = nodes.fleet.run("enable", "--resume", "--yes", **nodes.variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (boots(nodes), nodes.cordoned()) == ({"w1": 1, "w2": 1}, [])


def test_a_node_that_does_not_come_back_keeps_its_change_on_record_and_the_others_up(
    nodes: KubeNodes,
) -> None:
    running = nodes.fleet.begin(*YES, "-o", "json", "--timeout", "2", **nodes.variables, **BOOT)
    nodes.until_down("w1")
    nodes.let(unready=["w1"])
    told = rows_of(running.communicate(timeout=60)[0])
    assert running.returncode == 1
    w1 = told["memory:id-w1"]
    assert (w1["ending"], w1["changed"], w1["error"]["kind"]) == ("fail", True, "PowerError")
    assert "the VM has its change, and it is proven; to put it back: nestvirt undo" in w1["error"]["cure"]
    assert told["memory:id-w2"]["ending"] == "not-begun"
    assert "kubectl uncordon w1" in told["node w1"]["error"]["cure"]
    assert nodes.cordoned() == ["w1"]
    again = nodes.fleet.run(*YES, "--timeout", "1", **nodes.variables)
    assert again.returncode == 1
    assert boots(nodes) == {"w1": 1, "w2": 0}
    nodes.let(unready=[])
    assert nodes.fleet.run(*YES, **nodes.variables).returncode == 0
    assert (boots(nodes), nodes.cordoned()) == ({"w1": 1, "w2": 1}, [])
    assert nodes.fleet.run("enable", "--resume", **nodes.variables).returncode == 2  # nothing is left


def test_the_vm_of_the_only_api_server_is_brought_up_though_nobody_answers(nodes: KubeNodes) -> None:
    nodes.let(serves="w1")
    killed(nodes)
    told = rows(nodes, "enable", "--resume", "--yes")
    assert told["memory:id-w1"]["ending"] == "pass"
    assert told["memory:id-w2"]["error"]["kind"] == "ConnectionFailed"
    assert boots(nodes) == {"w1": 1, "w2": 0}
    done = nodes.fleet.run("enable", "--resume", "--yes", **nodes.variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (boots(nodes), nodes.cordoned()) == ({"w1": 1, "w2": 1}, [])


def test_two_runs_do_not_drain_one_cluster_at_once(nodes: KubeNodes) -> None:
    first = ("enable", "memory:w1", "--yes", "--drain-nodes")
    running = nodes.fleet.begin(*first, **nodes.variables, **BOOT)
    nodes.until_down("w1")
    second = nodes.fleet.run("enable", "memory:w2", "--yes", "--drain-nodes", **nodes.variables)
    assert second.returncode == 1
    assert "another run is working on the nodes of prod" in second.stderr
    running.communicate(timeout=60)
    assert (running.returncode, nodes.drained()) == (0, ["w1"])
    third = nodes.fleet.run("enable", "memory:w2", "--yes", "--drain-nodes", **nodes.variables)
    assert third.returncode == 0


def test_whose_plan_is_another_by_now_is_not_drained_for_nothing(nodes: KubeNodes) -> None:
    args = (*YES, "--delete-emptydir-data", "--max-failures", "9", "-o", "json")
    running = nodes.fleet.begin(*args, **nodes.variables, NESTVIRT_MEMORY_BOOT="2")
    nodes.until_down("w1")
    nodes.edit("w2", nested="off")
    told = rows_of(running.communicate(timeout=60)[0])
    assert "agreed to" in told["memory:id-w2"]["error"]["message"]
    assert "the VM was not touched" in told["memory:id-w2"]["error"]["cure"]
    assert nodes.drained() == ["w1"]


def test_stopped_at_once_in_the_drain_it_says_that_the_node_was_drained(nodes: KubeNodes) -> None:
    nodes.let(held=True)
    running = nodes.fleet.begin(*YES, **nodes.variables)
    nodes.until(lambda: nodes.drained() == ["w1"], "the drain")
    running.send_signal(signal.SIGINT)
    running.send_signal(signal.SIGTERM)  # a second one of the same kind could be taken for the first
    assert running.stderr is not None
    assert any("at their next step" in line for line in running.stderr)  # both have been noticed
    nodes.let(held=False)
    told = running.communicate(timeout=60)[0]
    assert running.returncode == 130
    assert "stopped when its node w1 was drained" in told
    assert boots(nodes) == {"w1": 0, "w2": 0}
    assert nodes.cordoned() == []


def test_a_node_that_cannot_be_uncordoned_is_the_last_one(nodes: KubeNodes) -> None:
    nodes.let(refuse=True)
    told = rows(nodes, *YES)
    assert told["memory:id-w1"]["ending"] == "pass"
    assert "w1 is cordoned still" in told["memory:id-w2"]["error"]["message"]
    assert "kubectl uncordon w1" in told["node w1"]["error"]["cure"]
    assert (nodes.drained(), boots(nodes)) == (["w1"], {"w1": 1, "w2": 0})
    nodes.let(refuse=False)
    [record] = (nodes.fleet.state / "fleets").glob("*.jsonl")
    done = nodes.fleet.run("enable", "--resume", record.stem, "--yes", **nodes.variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert nodes.cordoned() == []


def elsewhere(nodes: KubeNodes, **fields: Any) -> None:
    """Another hypervisor, that of the profile q, has a VM w1 as well."""
    other = nodes.fleet.folder / "other.json"
    other.write_text(json.dumps({"another": {"name": "w1", **fields}}))
    told = f'[profiles.q]\nbackend = "memory"\npath = "{other}"\n'
    (nodes.fleet.folder / "config.toml").write_text(told)


def test_two_vms_that_are_one_node_are_refused_before_anything_is_touched(
    nodes: KubeNodes, tmp_path: Path
) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text('[groups.w]\ntargets = ["memory: *"]\n[targets."memory: *"]\nnode = "w1"\n')
    told = nodes.fleet.run("enable", "--targets", str(file), *YES[2:], **nodes.variables)
    assert told.returncode == 2
    assert "two VMs have the same node 'w1'" in told.stderr
    elsewhere(nodes, power="running")
    told = nodes.fleet.run("enable", "memory:w1", "memory@q:w1", *YES[2:], **nodes.variables)
    assert told.returncode == 2
    assert "memory:w1 and memory@q:w1" in told.stderr
    assert nodes.done() == []


def test_a_namesake_that_is_off_and_stays_as_it_is_is_no_second_node(nodes: KubeNodes) -> None:
    elsewhere(nodes, power="stopped", nested="on")
    told = nodes.fleet.run("enable", "memory:w1", "memory@q:w1", *YES[2:], **nodes.variables)
    assert "two VMs" not in told.stderr
    assert boots(nodes) == {"w1": 1, "w2": 0}


def test_one_vm_by_two_addresses_is_one_node(nodes: KubeNodes) -> None:
    way = nodes.fleet.folder / "way.json"
    way.symlink_to(nodes.fleet.path)
    (nodes.fleet.folder / "config.toml").write_text(f'[profiles.q]\nbackend = "memory"\npath = "{way}"\n')
    told = nodes.fleet.run("enable", "memory:w1", "memory@q:w1", *YES[2:], **nodes.variables)
    assert told.returncode == 0, told.stdout + told.stderr
    assert boots(nodes) == {"w1": 1, "w2": 0}
    assert nodes.done() == ["prod: cordon w1", "prod: drain w1", "prod: uncordon w1"]


def test_who_undoes_the_vm_of_a_killed_run_is_told_that_its_node_is_cordoned(nodes: KubeNodes) -> None:
    killed(nodes)
    done = nodes.fleet.run("undo", "--yes", **nodes.variables)
    assert done.returncode == 0, done.stderr
    told = " ".join(done.stderr.split())
    said, _, cure = told.rpartition("this uncordons it: ")
    assert "has left its node w1 cordoned; when that is Ready" in said
    assert cure == "nestvirt disable memory:id-w1 --drain-nodes --context prod"
    done = nodes.fleet.run(*cure.split()[1:], "--yes", **nodes.variables)
    assert (done.returncode, nodes.cordoned(), nodes.drained()) == (0, [], ["w1"])
    other = nodes.fleet.run("enable", "memory:w2", "--yes", **nodes.variables)
    assert other.returncode == 0
    assert "cordoned" not in nodes.fleet.run("undo", "--yes", **nodes.variables).stderr


def test_who_would_undo_what_was_killed_in_its_drain_is_told_what_uncordons(nodes: KubeNodes) -> None:
    nodes.fleet.run(*YES, **nodes.variables, NESTVIRT_MEMORY_DIE_AT="after 4")
    assert nodes.cordoned() == []  # it was noted, and is about to be done
    cordon(nodes, "w1")
    undone = nodes.fleet.run("undo", "--yes", "-o", "json", **nodes.variables)
    assert undone.returncode == 1
    assert "there is no run to undo" in undone.stderr
    told = undone.stderr.splitlines()[0]
    assert "has left w1 cordoned" in told
    assert "cordoned" not in nodes.fleet.run("undo", "--yes", "-q", **nodes.variables).stderr
    done = nodes.fleet.run(*told.rpartition("uncordons: nestvirt ")[2].split(), "--yes", **nodes.variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (nodes.cordoned(), boots(nodes)) == ([], {"w1": 0, "w2": 0})
    assert "cordoned" not in nodes.fleet.run("undo", "--yes", **nodes.variables).stderr


@pytest.mark.parametrize("quiet", [False, True])
def test_it_is_told_of_the_node_whatever_the_form_of_output_is(nodes: KubeNodes, quiet: bool) -> None:
    killed(nodes)
    words = ("undo", "--yes", "-o", "json", *(["-q"] if quiet else []))
    done = nodes.fleet.run(*words, **nodes.variables)
    assert done.returncode == 0
    assert ("has left its node w1 cordoned" in done.stderr) is not quiet


def made_whole(nodes: KubeNodes) -> None:
    """Have somebody enable all of them, so that only the node is left."""
    for name in ("w1", "w2"):
        nodes.edit(name, nested="on", live="on", power="running", boots=1)


def test_what_is_left_cordoned_is_in_the_plan_and_asked_for(nodes: KubeNodes) -> None:
    killed(nodes)
    made_whole(nodes)
    told = rows(nodes, *ENABLE, "--dry-run")
    assert told["node w1"]["ending"] == "plan"
    assert "would uncordon a node of prod, which run" in told["node w1"]["report"]["remains"][0]
    assert "uncordon" in nodes.fleet.run(*ENABLE, "--dry-run", **nodes.variables).stdout
    asked = nodes.fleet.run(*ENABLE, **nodes.variables)
    assert asked.returncode == 2
    assert "no terminal to ask at" in asked.stderr
    assert "will uncordon a node of prod, which run" in " ".join(asked.stderr.split())
    assert nodes.cordoned() == ["w1"]
    told = rows(nodes, *YES)
    assert (told["node w1"]["ending"], nodes.cordoned()) == ("pass", [])
    assert "had left it cordoned" in told["node w1"]["note"]


def test_what_another_run_was_about_to_have_down_is_named_with_that_run_in_the_plan_too(
    nodes: KubeNodes,
) -> None:
    first, other = (("enable", f"memory:{name}", *YES[2:], "--timeout", "1") for name in ("w1", "w2"))
    nodes.fleet.run(*first, **nodes.variables, NESTVIRT_MEMORY_DIE_AT="after 5")
    assert (nodes.cordoned(), boots(nodes)) == (["w1"], {"w1": 0, "w2": 0})
    [record] = (nodes.fleet.state / "fleets").glob("*.jsonl")
    resume = f"nestvirt enable --resume {record.stem}"
    plan = nodes.fleet.run(*other, "--dry-run", "-o", "json", **nodes.variables)
    assert f"no other is drained until it is seen back: {resume}" in plan.stderr
    error = rows(nodes, *other)["memory:w2"]["error"]
    assert "the node w1 is of the same boot as before" in error["message"]
    assert error["cure"].startswith(f"go on with that run: {resume}; or begin this again: 61 s after")
    done = nodes.fleet.run(*resume.split()[1:], "--yes", "--timeout", "20", **nodes.variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert nodes.fleet.run(*other, "--timeout", "20", **nodes.variables).returncode == 0
    assert boots(nodes) == {"w1": 1, "w2": 1}


def cordon(nodes: KubeNodes, *names: str) -> None:
    """Have those cordoned by somebody else, and no others."""
    nodes.let(clusters={**nodes.state["clusters"], "prod": {"nodes": ["w1", "w2"], "cordoned": [*names]}})


def test_what_was_uncordoned_by_hand_is_not_planned_and_cordoned_later_it_is_somebody_elses(
    nodes: KubeNodes,
) -> None:
    killed(nodes)
    made_whole(nodes)
    cordon(nodes)
    assert set(rows(nodes, *ENABLE, "--dry-run")) == {"memory:id-w1", "memory:id-w2"}
    done = nodes.fleet.run(*ENABLE, **nodes.variables)
    assert (done.returncode, "cordoned" in done.stderr) == (0, False)
    cordon(nodes, "w1")
    assert nodes.fleet.run(*YES, **nodes.variables).returncode == 0
    assert nodes.cordoned() == ["w1"]


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_an_api_server_that_is_away_costs_one_row_and_not_the_report(nodes: KubeNodes, form: str) -> None:
    killed(nodes)
    made_whole(nodes)
    nodes.let(away=True)
    done = nodes.fleet.run(*YES, "-o", form, **nodes.variables)
    assert done.returncode == 3
    lines = (
        done.stdout.splitlines()
        if form == "jsonl"
        else [json.dumps(r) for r in rows_of(done.stdout).values()]
    )
    found = [json.loads(line) for line in lines]
    endings = {row["target"]: row["ending"] for row in found if "target" in row}
    assert endings == {"memory:id-w1": "pass", "memory:id-w2": "pass", "nodes of prod": "unknown"}
    assert nodes.cordoned() == ["w1"]
