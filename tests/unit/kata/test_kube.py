"""Kube with a kubectl that says what it is told to; the real one is asked in the contract tests."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from nestvirt.errors import AccessDenied, ConnectionFailed, MissingExtra
from nestvirt.kata.api import Query
from nestvirt.kata.kube import Kube, Waiting
from nestvirt.kata.watching import LISTED, QUIET
from tests.peers.kubectl import FakeKubectl

REFUSED = "The connection to the server 127.0.0.1:6443 was refused - did you specify the right host or port?"


@pytest.fixture
def kubectl(tmp_path: Path) -> FakeKubectl:
    return FakeKubectl(tmp_path)


def listed(*names: str, version: str = "7") -> str:
    items = [{"metadata": {"name": n, "uid": n, "resourceVersion": version}} for n in names]
    return json.dumps({"metadata": {"resourceVersion": version}, "items": items})


def event(change: str, name: str, version: str = "8") -> str:
    found = {"metadata": {"name": name, "uid": name, "resourceVersion": version}}
    return json.dumps({"type": change, "object": found})


def test_what_is_asked_names_the_cluster_and_has_a_deadline(kubectl: FakeKubectl) -> None:
    kubectl.behave(f"say({listed('a')!r})")
    assert kubectl.kube.list("pods", namespace="*", selector="a in (b,c)")[0]["metadata"]["name"] == "a"
    path = "/api/v1/pods?labelSelector=a+in+%28b%2Cc%29"
    options = ["--context", "lab", "--kubeconfig", "/nowhere/config", "--request-timeout=20s"]
    assert kubectl.calls[0]["argv"] == [*options, "get", "--raw", path]
    assert kubectl.kube.helm_words() == ["--kube-context", "lab", "--kubeconfig", "/nowhere/config"]


def test_a_cure_asks_the_same_cluster(kubectl: FakeKubectl) -> None:
    kubectl.fail(REFUSED)
    with pytest.raises(ConnectionFailed) as caught:
        kubectl.kube.list("nodes")
    assert "--context lab --kubeconfig /nowhere/config" in caught.value.cure


def test_it_runs_apart_from_our_terminal(kubectl: FakeKubectl) -> None:
    kubectl.behave(f"say({listed()!r})")
    kubectl.kube.list("nodes")
    assert kubectl.calls[0]["group"] != os.getpgid(0)


def test_data_goes_in_by_standard_input(kubectl: FakeKubectl) -> None:
    secret = {"metadata": {"name": "s"}, "data": {"key": "hunter22"}}
    kubectl.kube.create(secret)
    kubectl.kube.label("nodes", "w", {"a": "b", "c": None})
    assert json.loads(kubectl.calls[0]["stdin"])["items"] == [secret]
    assert json.loads(kubectl.calls[1]["stdin"]) == {"metadata": {"labels": {"a": "b", "c": None}}}
    assert "hunter22" not in str(kubectl.calls[0]["argv"])


@pytest.mark.parametrize("name", ["a/../../secrets", "a?b=c", "ä b"])
def test_a_name_stays_a_name(kubectl: FakeKubectl, name: str) -> None:
    kubectl.fail('Error from server (NotFound): pods "x" not found')
    assert kubectl.kube.get("pods", name, namespace="default") is None
    path = kubectl.calls[0]["argv"][-1]
    assert path.startswith("/api/v1/namespaces/default/pods/")
    assert path.count("/") == 6
    assert "?" not in path


@pytest.mark.parametrize("answer", ["", "[", "[]", "7", '{"items": 3}', '{"items": {}}', "<html>"])
def test_what_is_no_list_is_refused(kubectl: FakeKubectl, answer: str) -> None:
    kubectl.behave(f"say({answer!r})")
    with pytest.raises(AccessDenied, match="no usable answer"):
        kubectl.kube.list("nodes")


def test_an_answer_is_bounded(kubectl: FakeKubectl, monkeypatch: pytest.MonkeyPatch) -> None:
    kubectl.behave("while True: os.write(1, b'x' * 65536)")
    with pytest.raises(AccessDenied) as caught:
        kubectl.kube.run("version", limit=100_000)
    assert "longer than 100000 bytes" in caught.value.evidence


def test_no_kubectl(tmp_path: Path) -> None:
    for kube in (Kube(program=str(tmp_path / "kubectl")), Kube(program=str(tmp_path))):
        with pytest.raises(MissingExtra, match="there is no program"):
            kube.version()
        with pytest.raises(MissingExtra, match="there is no program"):
            next(kube.watch("nodes", timeout=1))


def test_patience_is_for_an_api_server_that_is_away(kubectl: FakeKubectl) -> None:
    gone = kubectl.program.with_name("gone")
    kubectl.behave(
        f"if not os.path.exists({str(gone)!r}):\n"
        f"    open({str(gone)!r}, 'w'); say({REFUSED!r}, 1, sys.stderr)\n"
        """say('{"major": "1", "minor": "30+"}')"""
    )
    with pytest.raises(ConnectionFailed):
        kubectl.kube.version()
    gone.unlink()
    assert kubectl.kube.patient(30).version() == (1, 30)


def test_patience_begins_when_a_call_is_not_answered(
    kubectl: FakeKubectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An API server that goes away late in a long wait gets as long as one that goes away at once."""
    patient = kubectl.kube.patient(30)
    kubectl.behave(
        f"if len(open({str(kubectl.noted)!r}).readlines()) == 1: say({REFUSED!r}, 1, sys.stderr)\n"
        + """say('{"major": "1", "minor": "30+"}')"""
    )
    late = time.monotonic() + 3600
    monkeypatch.setattr(time, "monotonic", lambda: late)
    assert patient.version() == (1, 30)


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    waiting, away = Waiting(30), ConnectionFailed("away")
    for _ in range(30):
        waiting.pause(away)
    with pytest.raises(ConnectionFailed):
        waiting.pause(away)
    assert now == [130.0]


@pytest.mark.parametrize(
    "words", ["x509: certificate signed by unknown authority", 'error: context "x" does not exist']
)
def test_what_does_not_pass_is_not_waited_for(kubectl: FakeKubectl, words: str) -> None:
    kubectl.fail(words)
    with pytest.raises(Exception, match=r"certificate|kubeconfig"):
        kubectl.kube.patient(600).version()
    assert len(kubectl.calls) == 1


def test_a_second_attempt_to_create_finds_the_first(kubectl: FakeKubectl) -> None:
    kubectl.fail('Error from server (AlreadyExists): error when creating "STDIN": pods "x" already exists')
    kubectl.kube.patient(5).create({"metadata": {"name": "x"}})
    assert kubectl.kube.create_each([{"metadata": {"name": "x"}}]) == {}


def test_some_are_refused_and_others_made(kubectl: FakeKubectl) -> None:
    words = 'pods "b" is forbidden: pod rejected: RuntimeClass "kata-fc" not found'
    kubectl.behave(f"print('pod/a'); say({f'Error from server (Forbidden): {words}'!r}, 1, sys.stderr)")
    assert kubectl.kube.create_each([{"metadata": {"name": n}} for n in "ab"]) == {"b": words}
    kubectl.fail('Error from server (Forbidden): pods is forbidden: User "dev" cannot create resource "pods"')
    with pytest.raises(AccessDenied, match="may not do"):
        kubectl.kube.create_each([{"metadata": {"name": n}} for n in "ab"])


WATCHED = """\
state = {state!r}
if 'watch=true' not in argv[-1]:
    n = int(open(state).read()) if os.path.exists(state) else 0
    open(state, 'w').write(str(n + 1))
    say({lists!r}[min(n, {last})])
print({stream!r}, flush=True)
{after}
"""


def watched(kubectl: FakeKubectl, lists: list[str], stream: str, after: str) -> None:
    state = str(kubectl.program.with_name("state"))
    kubectl.behave(WATCHED.format(state=state, lists=lists, last=len(lists) - 1, stream=stream, after=after))


def test_a_watch_begins_with_what_is_there(kubectl: FakeKubectl) -> None:
    watched(kubectl, [listed("a")], f"{event('MODIFIED', 'a')}\n{event('DELETED', 'a')}", "time.sleep(60)")
    told = []
    for change, found in kubectl.kube.watch("pods", namespace="default", timeout=30):
        told.append((change, found["metadata"]["name"]))
        if change == "DELETED":
            break
    assert told == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]
    assert "resourceVersion=7" in kubectl.calls[1]["argv"][-1]


@pytest.mark.parametrize("after", ["sys.exit(0)", f"say({REFUSED!r}, 1, sys.stderr)"])
def test_what_changed_while_nobody_looked_is_told(kubectl: FakeKubectl, after: str) -> None:
    lists = [listed("a", "b"), listed("b", "c", version="9")]
    watched(kubectl, lists, event("ADDED", "d"), after)
    told = []
    for change, found in kubectl.kube.watch("pods", namespace="default", timeout=30):
        told.append(f"{change} {found['metadata']['name']}")
        if len(told) == 7:
            break
    assert told[:3] == ["ADDED a", "ADDED b", "ADDED d"]
    assert sorted(told[3:]) == ["ADDED c", "DELETED a", "DELETED d", "MODIFIED b"]


def test_a_version_that_is_too_old_is_read_anew(kubectl: FakeKubectl) -> None:
    expired = json.dumps({"type": "ERROR", "object": {"kind": "Status", "code": 410}})
    watched(kubectl, [listed("a"), listed("b")], expired, "time.sleep(60)")
    changes = kubectl.kube.watch("pods", namespace="default", timeout=30)
    assert [(c, o["metadata"]["name"]) for c, o in (next(changes), next(changes), next(changes))] == [
        ("ADDED", "a"),
        ("DELETED", "a"),
        ("ADDED", "b"),
    ]


def test_a_watch_that_is_refused_says_so(kubectl: FakeKubectl) -> None:
    words = 'Error from server (Forbidden): pods is forbidden: User "dev" cannot watch resource "pods"'
    watched(kubectl, [listed()], "", f"say({words!r}, 1, sys.stderr)")
    with pytest.raises(AccessDenied, match="may not do"):
        list(kubectl.kube.watch("pods", namespace="default", timeout=30))


def test_nothing_happens_and_that_is_told(kubectl: FakeKubectl) -> None:
    watched(kubectl, [listed()], "", "time.sleep(60)")
    queries = [Query("pods", "default"), Query("events", "default")]
    told = []
    for kind, change, _ in kubectl.kube.watches(queries, timeout=30, quiet=0.2):
        told.append((kind, change))
        if change == QUIET:
            break
    assert told == [("pods", LISTED), ("events", LISTED), ("", QUIET)]


def test_a_watch_leaves_no_process(kubectl: FakeKubectl) -> None:
    pid = kubectl.program.with_name("pid")
    watched(kubectl, [listed("a")], "", f"open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)")
    changes = kubectl.kube.watches([Query("pods", "default")], timeout=30, quiet=0.1)
    while not pid.exists() or not pid.read_text():
        next(changes)
    changes.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


@pytest.mark.parametrize("junk", ["{", "[]", '{"type": "ADDED"}', '{"type": "ADDED", "object": 7}', "7"])
def test_junk_in_a_stream_is_no_event(kubectl: FakeKubectl, junk: str) -> None:
    watched(kubectl, [listed("a")], f"{junk}\n{event('DELETED', 'a')}", "time.sleep(60)")
    changes = kubectl.kube.watch("pods", namespace="default", timeout=30)
    assert next(changes)[0] == "ADDED"
    if junk == "{":
        with pytest.raises(AccessDenied, match="no usable answer"):
            next(changes)
    else:
        assert next(changes)[0] == "DELETED"
