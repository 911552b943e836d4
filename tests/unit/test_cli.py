"""The command line as its users meet it: real processes, and libvirt's own in-memory driver to read from."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from nestvirt import __version__
from nestvirt.cli import COMMANDS, cli
from nestvirt.guest import probe, verify
from tests.unit.test_report import VALIDATOR

MEMORY = "test:///default"  # has one VM, test, of type test
NOWHERE = "qemu+unix:///system?socket=/nonexistent"
SECRET = "s3cret"  # noqa: S105 - not one
TIMEOUT = 120


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with no configuration, whose journals go to this folder."""
    for variable in ("NESTVIRT_LIBVIRT_URI", "LIBVIRT_DEFAULT_URI", "NESTVIRT_DEBUG"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NESTVIRT_CONFIG", str(tmp_path / "config.toml"))
    (tmp_path / "config.toml").touch()
    monkeypatch.setenv("NESTVIRT_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


def nestvirt(*args: str, stdin: int = subprocess.DEVNULL) -> subprocess.CompletedProcess[str]:
    """Run it, without a terminal unless one is given."""
    command = [sys.executable, "-c", "from nestvirt.cli import main; main()", *args]
    return subprocess.run(command, stdin=stdin, capture_output=True, text=True, timeout=TIMEOUT)


# --- help and version


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_examples_that_run_it(name: str) -> None:
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0
    _, _, examples = result.output.partition("Examples:\n")
    lines = [line.strip() for line in examples.partition("\n\n")[0].splitlines()]
    assert lines
    assert all(line.startswith(f"nestvirt {name}") for line in lines)
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    known = {form for option in command.params for form in (*option.opts, *option.secondary_opts)}
    used = {word for line in lines for word in line.partition("|")[0].split() if word.startswith("-")}
    assert used <= known


def test_the_groups_help_lists_every_command() -> None:
    output = CliRunner().invoke(cli, ["--help"]).output
    assert all(f"\n  {name} " in output for name in COMMANDS)
    assert "Exit codes: 0" in output


@pytest.mark.parametrize(
    "args", [["--version"], ["--help"], ["probe", "--print"], ["explain", "vm-cpu"]], ids=" ".join
)
def test_quick_commands_import_no_library_that_they_do_not_need(args: Sequence[str]) -> None:
    code = (
        "import sys, nestvirt.cli as n\n"
        f"sys.argv[1:] = {list(args)!r}\n"
        "try: n.main()\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0
    loaded = set(done.stderr.split())
    assert "nestvirt.cli" in loaded
    assert not loaded & {"libvirt", "libvirtmod", "rich", "platformdirs", "nestvirt.engine"}


def test_version() -> None:
    done = nestvirt("--version")
    assert (done.stdout, done.returncode) == (f"nestvirt, version {__version__}\n", 0)


def test_the_installed_program_is_this_one() -> None:
    program = shutil.which("nestvirt", path=str(Path(sys.executable).parent))
    assert program is not None
    done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=TIMEOUT)
    assert done.stdout.split()[-1] == __version__


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion(shell: str) -> None:
    script = subprocess.run(
        [Path(sys.executable).with_name("nestvirt")],
        env=os.environ | {"_NESTVIRT_COMPLETE": f"{shell}_source"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert script.returncode == 0
    assert "_NESTVIRT_COMPLETE" in script.stdout


# --- usage


@pytest.mark.parametrize(
    ("args", "words"),
    [
        pytest.param(["--no-such-option"], "--no-such-option", id="unknown option"),
        pytest.param(["dance"], "dance", id="unknown command"),
        pytest.param(["enable", "--no-such-option"], "--no-such-option", id="unknown option of a command"),
        pytest.param(["enable"], "--libvirt", id="enable without a VM"),
        pytest.param(["disable"], "--libvirt", id="disable without a VM"),
        pytest.param(["enable", "--yes", "--connect", MEMORY], "--libvirt", id="a URI without a VM"),
        pytest.param(["check", "--connect", MEMORY], "--connect", id="check: a URI without a VM"),
        pytest.param(["check", "--profile", "lab"], "--profile", id="check: a profile without a VM"),
        pytest.param(["check", "--ssh", "a@b"], "--ssh", id="check: a way in without a VM"),
        pytest.param(["check", "--ssh-config", "f"], "--ssh", id="check: a way's file without a VM"),
        pytest.param(["undo", "--list", "20260131-101500-1a2b3c"], "--list", id="a list of one run"),
        pytest.param(["check", "--libvirt", "x", "--root", "/"], "--root", id="a saved machine and a VM"),
        pytest.param(["check", "-o", "yaml"], "yaml", id="unknown format"),
        pytest.param(["enable", "--libvirt", "x", "--timeout", "0"], "--timeout", id="no time"),
        pytest.param(["enable", "--libvirt", "x", "--timeout", "soon"], "soon", id="a time of words"),
        pytest.param(["check", "--libvirt", "x", "--profile", "lab"], "lab", id="unknown profile"),
        pytest.param(["check", "--libvirt", "x", "--profile", "my lab"], "my lab", id="impossible profile"),
        pytest.param(["check", "--libvirt", "nope", "--connect", MEMORY], "nope", id="unknown VM"),
    ],
)
def test_wrong_usage_exits_with_2_and_touches_nothing(state: Path, args: list[str], words: str) -> None:
    done = nestvirt(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not state.exists()


def test_an_unknown_vm_is_told_beside_those_that_there_are(state: Path) -> None:
    done = nestvirt("check", "--libvirt", "nope", "--connect", MEMORY)
    assert done.stderr.splitlines()[-3:] == [
        f"error: {MEMORY} has no VM 'nope'",
        "  seen:   it has: test",
        "  do now: name one of these; for another libvirt, give --connect URI",
    ]


# --- errors


def test_no_answer_exits_with_3_and_says_what_was_seen_and_what_to_do(state: Path) -> None:
    done = nestvirt("check", "--libvirt", "web-01", "--connect", NOWHERE)
    message, seen, cure = done.stderr.splitlines()[-3:]
    assert (done.returncode, done.stdout) == (3, "")
    assert message.startswith("error: ")
    assert NOWHERE in message
    assert seen.startswith("  seen:   ")
    assert "/nonexistent" in seen
    assert cure.startswith("  do now: ")


@pytest.mark.parametrize(
    ("args", "kind", "code"),
    [
        (["check", "--libvirt", "web-01", "--connect", NOWHERE], "ConnectionFailed", 3),
        (["enable", "--libvirt", "nope", "--connect", MEMORY], "TargetError", 2),
        (["check", "--libvirt", "web-01", "--profile", "lab"], "SettingsError", 2),
        (["undo"], "JournalError", 1),
        (["undo", "20260131-101500-1a2b3c"], "TargetError", 2),
    ],
)
def test_an_error_is_json_too(state: Path, args: list[str], kind: str, code: int) -> None:
    done = nestvirt(*args, "-o", "json")
    answer = json.loads(done.stdout)
    VALIDATOR.validate(answer)
    assert (answer["error"]["kind"], done.returncode) == (kind, code)
    assert done.stderr.startswith(f"error: {answer['error']['message']}\n")


@pytest.mark.parametrize("output", ["text", "json"])
@pytest.mark.parametrize("source", ["option", "variable", "profile"])
def test_a_password_in_a_uri_is_refused_and_never_shown(
    state: Path, monkeypatch: pytest.MonkeyPatch, source: str, output: str
) -> None:
    uri = f"qemu+ssh://root:{SECRET}@192.0.2.1/system"
    args = ["check", "--libvirt", "web-01", "-o", output]
    if source == "option":
        args += ["--connect", uri]
    elif source == "variable":
        monkeypatch.setenv("NESTVIRT_LIBVIRT_URI", uri)
    else:
        args += ["--profile", "lab"]
        config = Path(os.environ["NESTVIRT_CONFIG"])
        config.write_text(f'[profiles.lab]\nbackend = "libvirt"\nuri = "{uri}"', encoding="utf-8")
    done = nestvirt(*args)
    assert done.returncode == 2
    assert "password" in done.stderr
    assert SECRET not in done.stdout + done.stderr


def test_a_fault_of_ours_is_called_one(state: Path) -> None:
    code = (
        "import sys, nestvirt.report, nestvirt.cli as n\n"
        "nestvirt.report.to_json = None\n"
        "sys.argv[1:] = ['check', '--root', '/', '-o', 'json']\n"
        "n.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 70
    assert "fault in nestvirt: TypeError" in done.stderr
    assert "NESTVIRT_DEBUG" in done.stderr
    assert "Traceback" not in done.stderr


# --- a real libvirt, in memory


def test_a_vm_of_another_hypervisor_is_judged_and_not_touched(state: Path) -> None:
    done = nestvirt("check", "--libvirt", "test", "--connect", MEMORY, "-o", "json")
    answer = json.loads(done.stdout)
    VALIDATOR.validate(answer)
    found = {finding["check"]: finding["status"] for finding in answer["findings"]}
    assert found["vm-type"] == "fail"
    assert found["guest-kvm-run"] == "unknown"
    assert "vm-cpu" not in found
    assert (answer["target"], answer["verdict"], done.returncode) == ("libvirt:test", "fail", 1)
    assert done.stderr == ""


def test_by_uuid_and_by_profile_it_is_the_same_vm(state: Path) -> None:
    config = Path(os.environ["NESTVIRT_CONFIG"])
    config.write_text(f'[profiles.lab]\nbackend = "libvirt"\nuri = "{MEMORY}"', encoding="utf-8")
    done = nestvirt(
        "check", "--libvirt", "6695EB01-f6a4-8304-79aa-97f2502e193f", "--profile", "lab", "-o", "json"
    )
    answer = json.loads(done.stdout)
    assert answer["target"] == "libvirt@lab:6695EB01-f6a4-8304-79aa-97f2502e193f"
    assert "<domain type='test'>" in {finding["evidence"] for finding in answer["findings"]}


@pytest.mark.parametrize("command", ["enable", "disable"])
def test_what_blocks_is_reported_and_nothing_is_recorded(state: Path, command: str) -> None:
    done = nestvirt(command, "--libvirt", "test", "--connect", MEMORY, "--yes")
    assert done.returncode == 1
    assert "vm-type" in done.stdout
    assert nestvirt("undo", "--list").stdout == "no runs yet\n"


@pytest.mark.parametrize(("flag", "silent"), [([], False), (["-q"], True)], ids=["told", "quiet"])
def test_progress_goes_to_stderr(state: Path, flag: list[str], silent: bool) -> None:
    done = nestvirt("check", "--libvirt", "test", "--connect", MEMORY, *flag)
    assert (done.stderr == "") is silent
    assert done.stdout.startswith("libvirt:test: FAIL")
    assert "\x1b" not in done.stdout + done.stderr


def test_no_runs_yet(state: Path) -> None:
    done = nestvirt("undo", "--list", "-o", "json")
    answer = json.loads(done.stdout)
    VALIDATOR.validate(answer)
    assert answer["runs"] == []


# libvirt's driver in memory, with a running VM that it believes to be QEMU's; its guest is deaf.
# Each process has its own copy, so that what one has written is gone in the next.
NODE = """\
<node>
  <domain type='qemu'>
    <name>web-01</name>
    <uuid>6695eb01-f6a4-8304-79aa-97f2502e193f</uuid>
    <memory>196608</memory>
    <os><type arch='x86_64'>hvm</type></os>
    <cpu mode='custom' match='exact' check='none'>
      <model fallback='forbid'>EPYC</model>
      <feature policy='disable' name='svm'/>
    </cpu>
  </domain>
</node>
"""


@pytest.fixture
def vm(tmp_path: Path, state: Path) -> list[str]:
    """The options that name that VM."""
    (tmp_path / "node.xml").write_text(NODE, encoding="utf-8")
    return ["--libvirt", "web-01", "--connect", f"test://{tmp_path}/node.xml"]


def recorded() -> list[str]:
    """How the recorded runs stand, newest first."""
    answer = json.loads(nestvirt("undo", "--list", "-o", "json").stdout)
    VALIDATOR.validate(answer)
    return [run["state"] for run in answer["runs"]]


def test_without_consent_and_a_terminal_nothing_is_changed(vm: list[str]) -> None:
    done = nestvirt("enable", *vm)
    assert (done.returncode, done.stdout) == (2, "")
    assert "+    <feature policy='require' name='svm'/>" in done.stderr
    assert "--yes" in done.stderr
    assert recorded() == []


@pytest.mark.parametrize("answer", [b"n\n", b"\n", b"\x04"], ids=["no", "nothing", "end of file"])
def test_declining_at_a_terminal_changes_nothing(vm: list[str], answer: bytes) -> None:
    master, terminal = os.openpty()
    try:
        os.write(master, answer)
        done = nestvirt("enable", *vm, stdin=terminal)
    finally:
        os.close(terminal)
        os.close(master)
    assert (done.returncode, done.stdout) == (130, "")
    assert "Nothing was changed" in done.stderr
    assert recorded() == []


def test_a_dry_run_shows_and_touches_nothing(vm: list[str]) -> None:
    done = nestvirt("enable", *vm, "--dry-run", "-o", "json")
    answer = json.loads(done.stdout)
    VALIDATOR.validate(answer)
    assert done.returncode == 0
    assert [change["setting"] for change in answer["changes"]] == ["cpu"]
    assert "dry run" in answer["remains"][0]
    assert recorded() == []


def test_a_change_without_restart_is_pending_recorded_and_undone(vm: list[str]) -> None:
    done = nestvirt("enable", *vm, "--yes", "--no-restart", "-o", "json")
    answer = json.loads(done.stdout)
    VALIDATOR.validate(answer)
    assert (done.returncode, answer["first_broken"]) == (1, "vm-cpu-pending")
    assert "power-cycle web-01" in answer["remains"][0]
    assert recorded() == ["applied"]
    for name, count in (("web-01", 1), ("web-02", 0)):
        listed = json.loads(nestvirt("undo", "--list", "--libvirt", name, "-o", "json").stdout)
        assert len(listed["runs"]) == count
    undone = nestvirt("undo", answer["run"], "--yes", "-o", "json")
    VALIDATOR.validate(json.loads(undone.stdout))
    assert undone.returncode == 0
    assert recorded() == ["undone"]
    assert nestvirt("undo").returncode == 1


def test_a_guest_that_does_not_shut_down_is_left_as_it_was(vm: list[str]) -> None:
    done = nestvirt("enable", *vm, "--yes", "--timeout", "1", "-o", "json")
    answer = json.loads(done.stdout)
    VALIDATOR.validate(answer)
    assert (answer["error"]["kind"], done.returncode) == ("PowerError", 1)
    assert "no setting was changed, but" in answer["error"]["cure"]
    assert "may still shut down" in answer["error"]["cure"]
    assert recorded() == ["interrupted"]  # until somebody has seen whether it has gone off after all


# --- this machine


def test_probe_prints_itself_to_the_byte() -> None:
    command = [sys.executable, "-c", "from nestvirt.cli import main; main()", "probe", "--print"]
    done = subprocess.run(command, capture_output=True, timeout=TIMEOUT)
    assert done.stdout == Path(probe.__file__).read_bytes()
    assert verify.probe_source().encode() == done.stdout


def test_a_saved_machine_is_judged_and_nothing_runs(tmp_path: Path, state: Path) -> None:
    done = nestvirt("check", "--root", str(tmp_path), "-o", "json")
    answer = json.loads(done.stdout)
    VALIDATOR.validate(answer)
    assert answer["target"] == str(tmp_path)
    assert answer["verdict"] != "pass"
    assert done.returncode in (1, 3)


def test_output_into_a_closed_pipe_is_no_fault() -> None:
    code = "import os, sys; from nestvirt.cli import main; os.close(sys.stdin.fileno()); main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "probe", "--print"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
