"""The QEMU guest agent's protocol, spoken with an agent that follows a script."""

from __future__ import annotations

import base64
import json

import pytest

from nestvirt.backends.libvirt.agent import AgentChannel
from nestvirt.errors import GuestUnreachable
from nestvirt.guest.channel import NOT_FOUND, OUTPUT_LIMIT, Completed

Answer = dict[str, object] | str | GuestUnreachable


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Agent:
    """Gives its answers one after the other, the last one for ever; keeps what it was sent."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.sent: list[dict[str, object]] = []

    def __call__(self, command: str, timeout: float) -> str:
        assert timeout > 0
        self.sent.append(json.loads(command))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, GuestUnreachable):
            raise answer
        return answer if isinstance(answer, str) else json.dumps({"return": answer})


def refusing(words: str) -> GuestUnreachable:
    return GuestUnreachable("the guest agent did not answer", evidence=words, cure="look at the agent")


def ended(**status: object) -> tuple[Answer, Answer]:
    return {"pid": 7}, {"exited": True, **status}


def run(*answers: Answer, timeout: float = 5) -> Completed:
    return AgentChannel(Agent(*answers)).run(["prog"], timeout=timeout)


@pytest.mark.parametrize(
    ("answers", "completed"),
    [
        pytest.param(ended(exitcode=0), Completed(0, b"", b""), id="silent"),
        pytest.param(
            ended(exitcode=3, **{"out-data": base64_of(b"\0out"), "err-data": base64_of(b"err")}),
            Completed(3, b"\0out", b"err"),
            id="both streams",
        ),
        pytest.param(
            ({"pid": 7}, {"exited": False}, {"exited": False}, {"exited": True, "exitcode": 0}),
            Completed(0, b"", b""),
            id="ends after a while",
        ),
        pytest.param(ended(signal=9), Completed(128, b"", b""), id="ended by a signal"),
        pytest.param(
            ended(exitcode=0, **{"out-data": base64_of(b"half"), "out-truncated": True}),
            Completed(0, b"half", b"", truncated=True),
            id="cut by the agent",
        ),
        pytest.param(
            (refusing('Guest agent: Failed to execute child process "prog" (No such file or directory)'),),
            Completed(
                NOT_FOUND,
                b"",
                b'Guest agent: Failed to execute child process "prog" (No such file or directory)',
            ),
            id="no such program",
        ),
    ],
)
def test_a_program_runs_to_its_end(answers: tuple[Answer, ...], completed: Completed) -> None:
    assert run(*answers) == completed


def test_what_is_sent() -> None:
    agent = Agent(*ended(exitcode=0))
    AgentChannel(agent).run(["/bin/sh", "-c", "a 'b' $(c)\n"], stdin=b"\0data", timeout=5)
    assert agent.sent == [
        {
            "execute": "guest-exec",
            "arguments": {
                "path": "/bin/sh",
                "arg": ["-c", "a 'b' $(c)\n"],
                "capture-output": True,
                "input-data": base64_of(b"\0data"),
            },
        },
        {"execute": "guest-exec-status", "arguments": {"pid": 7}},
    ]


@pytest.mark.parametrize("stream", ["out-data", "err-data"])
def test_a_flood_is_cut_and_says_so(stream: str) -> None:
    done = run(*ended(exitcode=0, **{stream: base64_of(b"x" * (3 * OUTPUT_LIMIT))}))
    assert done.truncated
    assert max(len(done.stdout), len(done.stderr)) == OUTPUT_LIMIT


def test_output_of_just_the_limit_is_whole() -> None:
    done = run(*ended(exitcode=0, **{"out-data": base64_of(b"x" * OUTPUT_LIMIT)}))
    assert (len(done.stdout), done.truncated) == (OUTPUT_LIMIT, False)


@pytest.mark.parametrize(
    "words",
    [
        pytest.param("Command guest-exec has been disabled", id="qemu-ga 4"),
        pytest.param("The command guest-exec has been disabled for this instance", id="qemu-ga 2"),
        pytest.param(
            "internal error: unable to execute QEMU agent command 'guest-exec': Command guest-exec has been "
            "disabled: the command is not allowed",
            id="qemu-ga 7, through libvirt",
        ),
        pytest.param("Command guest-exec is not allowed", id="not allowed"),
    ],
)
def test_a_blocked_guest_exec_is_named(words: str) -> None:
    with pytest.raises(GuestUnreachable, match="blocks guest-exec") as caught:
        run(refusing(words))
    assert caught.value.evidence == words
    assert "--ssh" in caught.value.cure


def test_another_refusal_keeps_its_own_words() -> None:
    with pytest.raises(GuestUnreachable, match="did not answer") as caught:
        run(refusing("Guest agent is not responding: QEMU guest agent is not connected"))
    assert "not connected" in caught.value.evidence


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param(("",), id="nothing"),
        pytest.param(("no JSON",), id="no JSON"),
        pytest.param(("[]",), id="a list"),
        pytest.param(('{"error": {}}',), id="no return"),
        pytest.param(('{"return": []}',), id="return is a list"),
        pytest.param(("[" * 100_000,), id="deep nesting"),
        pytest.param(({},), id="no pid"),
        pytest.param(({"pid": "7"},), id="pid is text"),
        pytest.param(({"pid": True},), id="pid is true"),
        pytest.param(ended(exitcode="0"), id="exit code is text"),
        pytest.param(ended(exitcode=None), id="exit code is null"),
        pytest.param(ended(exitcode=True), id="exit code is true"),
        pytest.param(ended(exitcode=0, **{"out-data": 5}), id="output is a number"),
        pytest.param(ended(exitcode=0, **{"out-data": "QUJ"}), id="base64 without its end"),
        pytest.param(ended(exitcode=0, **{"out-data": "ä"}), id="no base64"),
    ],
)
def test_nonsense_is_refused(answers: tuple[Answer, ...]) -> None:
    with pytest.raises(GuestUnreachable, match="not one of its protocol"):
        run(*answers)


@pytest.mark.parametrize(
    "exited",
    [{"exited": False}, {}, {"exited": "yes"}, {"exited": 1}],
    ids=["false", "absent", "text", "number"],
)
def test_a_program_that_never_ends_meets_the_deadline(exited: dict[str, object]) -> None:
    with pytest.raises(GuestUnreachable, match="did not end") as caught:
        run({"pid": 7}, exited, timeout=0.1)
    assert "7" in caught.value.evidence


def test_a_silent_agent_in_the_middle_is_unreachable() -> None:
    with pytest.raises(GuestUnreachable):
        run({"pid": 7}, {"exited": False}, refusing("gone"))


def test_ping_asks_again_until_there_is_an_answer() -> None:
    agent = Agent(refusing("not connected"), "nonsense", {})
    AgentChannel(agent).ping(timeout=60)
    assert [command["execute"] for command in agent.sent] == ["guest-ping"] * 3


def test_ping_gives_up_and_says_what_it_heard_last() -> None:
    with pytest.raises(GuestUnreachable, match="within 0 s") as caught:
        AgentChannel(Agent(refusing("QEMU guest agent is not connected"))).ping(timeout=0.2)
    assert caught.value.evidence == "QEMU guest agent is not connected"
    assert "--ssh" in caught.value.cure


def test_evidence_from_a_hostile_agent_is_one_bounded_line() -> None:
    with pytest.raises(GuestUnreachable) as caught:
        run(json.dumps("\x1b[2J\u202e\n" + "x" * 100_000))
    assert caught.value.evidence.isprintable()
    assert len(caught.value.evidence) <= 200
