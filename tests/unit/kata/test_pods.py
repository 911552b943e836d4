"""Short pods where the cluster does not admit them; all else is played on the real API server."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote_plus

import pytest

from nestvirt.errors import AccessDenied
from nestvirt.kata import pods
from nestvirt.kata.pods import Task
from tests.peers.kubectl import FakeKubectl

REFUSING = """\
if 'create' in argv:
    names = [o['metadata']['name'] for o in json.loads(stdin)['items'] if o['kind'] == 'Pod']
    for name in names:
        print(f'Error from server (Forbidden): pods "{{name}}" is forbidden: {words}', file=sys.stderr)
    sys.exit(1 if names else 0)
if 'delete' in argv:
    say('{{}}')
if 'watch=true' in argv[-1]:
    time.sleep(60)
say('{{"metadata": {{"resourceVersion": "1"}}, "items": []}}')
"""
TASKS = [Task(f"w{n}", "p", "i", ("sh",), files={"a": "b"}, privileged=True) for n in range(2)]


def told(_step: str, _detail: str) -> None:
    """Nobody listens."""


def test_a_level_of_the_namespace_is_explained_and_all_is_deleted(tmp_path: Path) -> None:
    kubectl = FakeKubectl(tmp_path)
    kubectl.behave(REFUSING.format(words='violates PodSecurity "baseline:latest": privileged'))
    with pytest.raises(AccessDenied, match="only pods of the level baseline") as caught:
        pods.run(kubectl.kube, TASKS, namespace="apps", timeout=20, tell=told)
    assert "pod-security.kubernetes.io/enforce=privileged" in caught.value.cure
    deleted = [call["argv"][-1] for call in kubectl.calls if "delete" in call["argv"]]
    assert [path.partition("?")[0].rpartition("/")[2] for path in deleted] == ["pods", "configmaps"]
    assert all("labelSelector=nestvirt.io%2Frun%3D" in path for path in deleted)


def test_what_is_refused_for_itself_alone_is_an_outcome(tmp_path: Path) -> None:
    kubectl = FakeKubectl(tmp_path)
    kubectl.behave(REFUSING.format(words='pod rejected: RuntimeClass "kata-fc" not found'))
    found = pods.run(kubectl.kube, TASKS, namespace="apps", timeout=20, tell=told)
    assert [(o.task.node, o.phase, o.remains) for o in found] == [
        ("w0", "Refused", ""),
        ("w1", "Refused", ""),
    ]
    assert 'RuntimeClass "kata-fc" not found' in found[0].trouble


UNPLACED = """\
def pod(name, **status):
    meta = {{"name": name, "uid": name, "resourceVersion": str(len(status))}}
    return {{"metadata": meta, "spec": {{}}, "status": status}}
if 'create' in argv:
    with open({names!r}, "w") as made:
        json.dump([o["metadata"]["name"] for o in json.loads(stdin)["items"] if o["kind"] == "Pod"], made)
elif 'delete' in argv:
    say('{{}}')
elif '/pods' in argv[-1] and 'watch=true' in argv[-1]:
    names = json.load(open({names!r}))
    reason = dict(type="PodScheduled", status="False", reason="Unschedulable", message={message!r})
    for name in names:
        waits = pod(name, phase="Pending", conditions=[reason])
        print(json.dumps(dict(type="ADDED", object=waits)), flush=True)
    time.sleep({pause})
    for name in names:
        print(json.dumps(dict(type="MODIFIED", object=pod(name, phase="Succeeded"))), flush=True)
    time.sleep(60)
elif 'watch=true' in argv[-1]:
    time.sleep(60)
say('{{"metadata": {{"resourceVersion": "1"}}, "items": []}}')
"""


@pytest.mark.parametrize(
    ("message", "phase"),
    [
        ("no nodes available to schedule pods", "Succeeded"),
        ("0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.", "Succeeded"),
        ("0/2 nodes are available: 2 node(s) didn't satisfy plugin(s) [NodeAffinity]", "Succeeded"),
        (
            "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity, 1 Insufficient cpu.",
            "Pending",
        ),
        ("0/1 nodes are available: 1 node(s) had untolerated taint {a: b}.", "Pending"),
    ],
)
def test_a_scheduler_that_looks_at_old_news_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str, phase: str
) -> None:
    """A pod that it places at last is no failure; one that finds no room is given up."""
    monkeypatch.setattr(pods, "SETTLE", 0.1)
    kubectl = FakeKubectl(tmp_path)
    pause = 1 if phase == "Succeeded" else 20  # until it places them: soon, or long after they were given up
    kubectl.behave(UNPLACED.format(names=str(tmp_path / "names"), message=message, pause=pause))
    outcomes = pods.run(kubectl.kube, TASKS, namespace="default", timeout=60, tell=told)
    assert {outcome.phase for outcome in outcomes} == {phase}


def test_nothing_to_do_asks_nobody(tmp_path: Path) -> None:
    kubectl = FakeKubectl(tmp_path)
    assert pods.run(kubectl.kube, [], namespace="apps", timeout=20, tell=told) == []
    assert kubectl.calls == []


PLAYED = """
path = argv[-1]
noted = [json.loads(line) for line in open({calls!r})]
if 'create' in argv or 'delete' in argv:
    say('{{}}')
if 'watch=true' in path:
    time.sleep(60)
def known(kind, name, run, created, phase='Succeeded'):
    meta = {{'name': name, 'uid': name, 'creationTimestamp': created}}
    meta |= {{'labels': {{'nestvirt.io/run': run}}, 'annotations': {{'nestvirt.io/lifetime': '720'}}}}
    return {{'kind': kind, 'metadata': meta, 'status': {{'phase': phase}}}}
found = []
if 'managed-by' in path:
    found = [known('Pod', 'old', 'aaaaaaaa', '2001-01-01T00:47:59Z'),
             known('Pod', 'young', 'bbbbbbbb', '2001-01-01T00:48:01Z')]
elif '/pods?' in path and not any('delete' in call['argv'] for call in noted):
    made = [o for call in noted if 'create' in call['argv'] for o in json.loads(call['stdin'])['items']]
    found = [known('Pod', o['metadata']['name'], o['metadata']['labels']['nestvirt.io/run'],
                   '2001-01-01T01:00:00Z') for o in made if o['kind'] == 'Pod']
say(json.dumps({{'metadata': {{'resourceVersion': '1'}}, 'items': found}}))
"""


def test_what_a_killed_run_has_left_goes_once_its_time_is_past_by_the_clusters_clock(tmp_path: Path) -> None:
    """Its clock is years behind ours here: by ours, all would be past."""
    kubectl = FakeKubectl(tmp_path)
    kubectl.behave(PLAYED.format(calls=str(kubectl.noted)))
    found = pods.run(kubectl.kube, TASKS, namespace="apps", timeout=20, tell=told)
    assert [o.phase for o in found] == ["Succeeded", "Succeeded"]
    deleted = [unquote_plus(call["argv"][-1]) for call in kubectl.calls if "delete" in call["argv"]]
    older = [path for path in deleted if "nestvirt.io/run in (" in path]
    assert [path.partition("?")[0].rpartition("/")[2] for path in older] == ["pods", "configmaps"]
    assert all("nestvirt.io/run in (aaaaaaaa)" in path for path in older)


def test_the_command_for_what_is_left_names_the_cluster(tmp_path: Path) -> None:
    kubectl = FakeKubectl(tmp_path)
    refused = "if 'delete' in argv: say('Error from server (Forbidden): no', 1, sys.stderr)\n"
    kubectl.behave(refused + REFUSING.format(words="exceeded quota"))
    found = pods.run(kubectl.kube, TASKS[:1], namespace="apps", timeout=20, tell=told)
    assert found[0].remains.startswith(
        "kubectl --context lab --kubeconfig /nowhere/config delete pods,configmaps --namespace apps "
    )
