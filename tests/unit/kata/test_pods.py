"""Short pods where the cluster does not admit them; all else is played on the real API server."""

from __future__ import annotations

from pathlib import Path

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


def test_nothing_to_do_asks_nobody(tmp_path: Path) -> None:
    kubectl = FakeKubectl(tmp_path)
    assert pods.run(kubectl.kube, [], namespace="apps", timeout=20, tell=told) == []
    assert kubectl.calls == []
