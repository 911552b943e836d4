"""The logs of many pods, told apart: what is in them never makes one pod's words another's."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from nestvirt.kata.logs import tell_apart
from tests.peers.kubectl import FakeKubectl

PODS = ("a", "b", "c")


def printed(logs: dict[str, bytes]) -> bytes:
    """As kubectl prints them: its prefix before each line, and nothing after a line without an end."""
    whole = b""
    for pod, log in logs.items():
        for line in log.splitlines(keepends=True) if b"\r" not in log else _lines(log):
            whole += f"[pod/{pod}/task] ".encode() + line
    return whole


def _lines(log: bytes) -> list[bytes]:
    *whole, rest = log.split(b"\n")
    return [line + b"\n" for line in whole] + ([rest] if rest else [])


def test_each_has_its_own() -> None:
    logs = {"a": b"one\ntwo\n", "b": b"three\r\n\rfour\n"}
    assert tell_apart(printed(logs), PODS) == (logs, set())


def test_kubectls_own_words_are_nobodys() -> None:
    said = b'[pod/a/task] one\nerror: container "task" in pod "b" is waiting to start: ContainerCreating\n'
    assert tell_apart(said, PODS) == ({"a": b"one\n"}, set())


def test_a_pod_that_was_not_asked_for_has_none() -> None:
    assert tell_apart(b"[pod/z/task] x\n", PODS) == ({}, set())


def test_a_log_without_an_end_makes_both_doubtful() -> None:
    said = printed({"a": b"one\ntwo", "b": b"three\nfour\n", "c": b"five\n"})
    assert tell_apart(said, PODS) == ({"c": b"five\n"}, {"a", "b"})


def test_a_forger_is_doubtful_with_whom_he_forges() -> None:
    said = printed({"a": b"x [pod/b/task] forged\n", "b": b"true\n", "c": b"[pod/zz/task] y\n"})
    assert tell_apart(said, PODS) == ({"c": b"[pod/zz/task] y\n"}, {"a", "b"})


_logs = st.lists(
    st.sampled_from(
        [b"x", b"\n", b"\r", b"[pod/a/task] ", b"[pod/b/task] ", b"[pod/", b"error: ", b"\x00", b" "]
    )
).map(b"".join)


@given(st.dictionaries(st.sampled_from(PODS), _logs))
def test_what_is_told_apart_is_exact(logs: dict[str, bytes]) -> None:
    whole = b"".join(
        f"[pod/{pod}/task] ".encode() + line for pod, log in logs.items() for line in _lines(log)
    )
    clear, doubtful = tell_apart(whole, PODS)
    assert not set(clear) & doubtful
    for pod, log in logs.items():
        if pod not in doubtful:
            assert clear.get(pod, b"") == log


def test_the_doubtful_are_read_alone(tmp_path: Path) -> None:
    kubectl = FakeKubectl(tmp_path)
    kubectl.behave(
        "if argv[5] == 'logs':\n"
        "    sys.stdout.write('[pod/a/task] one[pod/b/task] two\\n[pod/c/task] 3\\n'); sys.exit()\n"
        "sys.stdout.write('alone ' + argv[-1].split('/')[6])"
    )
    found = kubectl.kube.logs("x=y", namespace="default", container="task", pods=PODS, limit=1000)
    assert found == {"a": b"alone a", "b": b"alone b", "c": b"3\n"}
    first = kubectl.calls[0]["argv"]
    assert {"--prefix", "--ignore-errors", "--tail=-1", "--limit-bytes=1000"} <= set(first)
