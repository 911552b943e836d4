"""The command line with a second hypervisor: whose option is whose, what is told, and what is asked."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import click
import pytest

from nestvirt import settings
from nestvirt.backends import BACKENDS
from nestvirt.cli import cli
from nestvirt.cli.options import ENDPOINT, VMS
from nestvirt.cli.session import Chosen
from nestvirt.errors import ConnectionFailed
from nestvirt.journal import Journal
from nestvirt.model import Change, Power, Target, Vm

SECRET = "s3cret"  # noqa: S105 - not one
TIMEOUT = 120
URL = "https://pve1.example.com:8006"
MAIN = f"import nestvirt.backends as b; b.BACKENDS['proxmox'] = '{__name__}:Deaf'\n"
MAIN += "from nestvirt.cli import main; main()"
LATER_OPTIONS = [name for name in ENDPOINT if name != "connect"]
VALUE = {"transport": "ntlm"}  # where not any text will do
OWNER = {"guest-username": "--vsphere", "transport": "--hyperv"}


class Deaf:
    """A hypervisor that does not answer, and says with what it was asked."""

    @classmethod
    def connect(cls, target: Target, endpoint: Mapping[str, str]) -> NoReturn:
        secrets = {s.name for s in settings.SETTINGS["proxmox"] if s.secret}
        shown = {n: v == SECRET if n in secrets else v for n, v in endpoint.items()}
        raise ConnectionFailed(f"no answer to {target}", evidence=json.dumps(shown, sort_keys=True))


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with no configuration and no keyring, whose journals go to this folder."""
    for variable in [v for known in settings.SETTINGS.values() for s in known for v in s.variables]:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    monkeypatch.setenv("NESTVIRT_CONFIG", str(tmp_path / "config.toml"))
    (tmp_path / "config.toml").touch(mode=0o600)
    monkeypatch.setenv("NESTVIRT_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


def nestvirt(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", MAIN, *args]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT)


def asked_with(*args: str) -> dict[str, object]:
    """With what that command asks the hypervisor; of a secret, whether it is the right one."""
    done = nestvirt(*args, "-o", "json")
    assert done.returncode == 3, done.stderr
    assert SECRET not in done.stdout + done.stderr
    found: dict[str, object] = json.loads(json.loads(done.stdout)["error"]["evidence"])
    return found


# --- whose option is whose


def test_every_hypervisor_can_be_named_and_every_option_sets_something() -> None:
    assert set(VMS) == set(BACKENDS) == set(settings.SETTINGS)
    assert set(ENDPOINT) == {s.option for known in settings.SETTINGS.values() for s in known if s.option}


@pytest.mark.parametrize("command", ["check", "enable", "disable", "undo"])
def test_every_command_with_a_vm_has_all_of_them(command: str) -> None:
    found = cli.get_command(click.Context(cli), command)
    assert found is not None
    forms = {form for option in found.params for form in option.opts}
    assert {f"--{name}" for name in (*VMS, *ENDPOINT)} <= forms
    secrets = {s.name.replace("_", "-") for known in settings.SETTINGS.values() for s in known if s.secret}
    assert not forms & {f"--{name}" for name in secrets}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        pytest.param(["enable"], ["--libvirt web-01", "--proxmox 100"], id="no VM"),
        pytest.param(["enable", "100"], ["--libvirt NAME", "--proxmox ID"], id="a VM without an option"),
        *[
            pytest.param(
                [command, "--libvirt", "a", "--proxmox", "1"], ["--libvirt NAME", "--proxmox ID"], id=command
            )
            for command in ("check", "enable", "disable", "undo")
        ],
        pytest.param(["check", "--insecure"], ["--insecure", "--proxmox ID"], id="a flag without a VM"),
        *[
            pytest.param(
                ["check", f"--{name}", VALUE.get(name, "x")],
                [f"--{name}", "--proxmox ID"],
                id=f"{name} without a VM",
            )
            for name in ENDPOINT
            if name != "insecure"
        ],
        *[
            pytest.param(
                [
                    "check",
                    "--libvirt",
                    "a",
                    f"--{name}",
                    *([VALUE.get(name, "x")] if name != "insecure" else []),
                ],
                [f"--{name}", OWNER.get(name, "--proxmox"), "--libvirt"],
                id=f"{name} with libvirt",
            )
            for name in LATER_OPTIONS
        ],
    ],
)
def test_wrong_usage_is_told_with_what_is_right(state: Path, args: list[str], words: Sequence[str]) -> None:
    done = nestvirt(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert all(word in done.stderr for word in words)
    assert "Traceback" not in done.stderr
    assert not state.exists()


def test_options_reach_the_backend_by_their_settings_names(state: Path) -> None:
    args = ["--username", "root@pam", "--ca-file", "ca.pem", "--fingerprint", "AB:CD", "--insecure"]
    args += ["--node-ssh", "root@pve1"]
    assert asked_with("check", "--proxmox", "100", "--connect", URL, *args) == {
        "endpoint": URL,
        "username": "root@pam",
        "ca_file": str(Path.cwd() / "ca.pem"),
        "fingerprint": "AB:CD",
        "insecure": "true",
        "node_ssh": "root@pve1",
    }


@pytest.mark.parametrize(
    "words",
    [
        "--proxmox 100",
        "--proxmox 'my vm' --connect https://pve1:8006 --profile lab",
        "--proxmox 100 --connect local --username root@pam --ca-file 'a b' --fingerprint AB --insecure",
        "--proxmox 100 --node-ssh root@pve1",
        "--libvirt web-01 --connect qemu:///session",
    ],
)
def test_a_spelling_names_the_same_again(words: str) -> None:
    command = cli.get_command(click.Context(cli), "enable")
    assert command is not None

    def chosen(words: str) -> Chosen:
        return Chosen.of(command.make_context("enable", shlex.split(words)).params)

    first = chosen(words)
    spelled = first.spelling(first.target())
    assert sorted(shlex.split(spelled)) == sorted(shlex.split(words))
    assert chosen(spelled) == first


def test_what_was_recorded_is_spelled_too() -> None:
    target = Target("proxmox", "100", "lab")
    recorded = {"endpoint": URL, "insecure": "true", "username": "root@pam", "port": "8006"}
    spelled = Chosen(endpoint={"username": "other@pam"}).spelling(target, recorded)
    assert spelled == f"--proxmox 100 --connect {URL} --username other@pam --insecure --profile lab"


# --- what is told


@pytest.mark.parametrize("output", ["text", "json"])
def test_where_a_setting_is_from_is_told_and_no_secret(
    state: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    monkeypatch.setenv("PROXMOX_VE_ENDPOINT", URL)
    monkeypatch.setenv("PROXMOX_VE_API_TOKEN", SECRET)
    done = nestvirt("check", "--proxmox", "100", "-o", output)
    told = "nestvirt: connecting to proxmox; the endpoint is from PROXMOX_VE_ENDPOINT, the api_token is from "
    assert (told in done.stderr) is (output == "text")
    assert ("the api_token is from PROXMOX_VE_API_TOKEN" in done.stderr) is (output == "text")
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.parametrize(("flag", "told"), [([], True), (["-q"], False)], ids=["told", "quiet"])
@pytest.mark.parametrize("variable", ["NESTVIRT_PROXMOX_INSECURE", None])
def test_that_nothing_is_verified_is_told(
    state: Path, monkeypatch: pytest.MonkeyPatch, flag: list[str], told: bool, variable: str | None
) -> None:
    if variable:
        monkeypatch.setenv(variable, "1")
    option = [] if variable else ["--insecure"]
    done = nestvirt("check", "--proxmox", "100", "--connect", URL, *option, *flag)
    line = f"the server's certificate is NOT verified: {variable or 'option --insecure'} says so\n"
    assert (f"nestvirt: connecting to proxmox; {line}" in done.stderr) is told


@pytest.mark.parametrize(
    "args",
    [["--connect", "ssh://root@pve1"], ["--connect", "local"], ["--connect", URL, "--fingerprint", "AB"]],
    ids=" ".join,
)
def test_it_is_not_told_where_something_is_verified_or_there_is_no_certificate(
    state: Path, args: list[str]
) -> None:
    done = nestvirt("check", "--proxmox", "100", "--insecure", *args)
    assert "the insecure is from option --insecure" in done.stderr
    assert "NOT verified" not in done.stderr


# --- the password


def at_a_terminal(*args: str, answer: str = "") -> tuple[int, str]:
    """Exit code and what is on the terminal; the answer is typed once a password is asked for."""
    master, terminal = os.openpty()
    # In a session of its own, so that the terminal is this one, and not that of whoever runs the tests.
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, *args],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        env=os.environ | {"TERM": "xterm"},
    )
    os.close(terminal)
    shown = b""
    with process, contextlib.suppress(OSError):  # when nobody has the other end any more
        while select.select([master], [], [], TIMEOUT)[0]:
            shown += os.read(master, 65536)
            if answer and b"Password of" in shown:
                os.write(master, answer.encode())
                answer = ""
        process.kill()
    os.close(master)
    return process.returncode, shown.decode()


def test_a_password_that_nobody_has_said_is_asked_for(state: Path) -> None:
    args = ["check", "--proxmox", "100", "--connect", URL, "--username", "root@pam"]
    code, shown = at_a_terminal(*args, answer=f"{SECRET}\n")
    assert code == 3
    assert "Password of root@pam" in shown
    assert '"password": true' in " ".join(shown.split())


@pytest.mark.parametrize(
    ("variables", "args"),
    [
        pytest.param({}, ["--connect", URL], id="of nobody"),
        pytest.param({}, ["--connect", "ssh://root@pve1", "--username", "root@pam"], id="over SSH"),
        pytest.param({}, ["--username", "root@pam"], id="nowhere"),
        pytest.param(
            {"PROXMOX_TOKEN_SECRET": SECRET}, ["--connect", URL, "--username", "u"], id="half a token"
        ),
        pytest.param({"PROXMOX_PASSWORD": SECRET}, ["--connect", URL, "--username", "u"], id="it is known"),
    ],
)
def test_else_it_is_not_asked_for(
    state: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], args: list[str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    code, shown = at_a_terminal("check", "--proxmox", "100", *args)
    assert (code, "Password" in shown, SECRET in shown) == (3, False, False)


def test_without_a_terminal_nobody_is_asked(state: Path) -> None:
    args = ["check", "--proxmox", "100", "--connect", URL, "--username", "root@pam"]
    assert asked_with(*args) == {"endpoint": URL, "username": "root@pam"}


# --- undo


@pytest.fixture
def runs(state: Path) -> dict[str, str]:
    """The ids of three runs, the oldest first; the newest is of a libvirt VM of the same name."""
    change, journal, found = Change("cpu", None, "host"), Journal(state), {}
    recorded = {"endpoint": URL, "username": "root@pam", "insecure": "true"}
    for backend, name, vm, endpoint in (
        ("proxmox", "100", Vm("100@pve1.example.com", "web-01"), recorded),
        ("proxmox", "200", Vm("200@pve1.example.com", "web-02"), recorded),
        ("libvirt", "100", Vm("0d1f6a0c-95f1-4b0f-8a42-b0a7bfd7a3a1", "100"), {"uri": "test:///default"}),
    ):
        record = journal.begin("enable", Target(backend, name), vm, Power.STOPPED, endpoint)
        record.intend(change)
        record.kept(change, change.after)
        record.end("applied")
        found[f"{backend}:{name}"] = record.id
    return found


@pytest.mark.parametrize(
    ("args", "listed"),
    [
        ([], ["libvirt:100", "proxmox:200", "proxmox:100"]),
        (["--proxmox", "100"], ["proxmox:100"]),
        (["--proxmox", "web-01"], ["proxmox:100"]),
        (["--proxmox", "100@pve1.example.com"], ["proxmox:100"]),
        (["--libvirt", "100"], ["libvirt:100"]),
        (["--libvirt", "web-01"], []),
    ],
    ids=str,
)
def test_runs_are_listed_of_one_vm(runs: dict[str, str], args: list[str], listed: list[str]) -> None:
    answer = json.loads(nestvirt("undo", "--list", *args, "-o", "json").stdout)
    assert [run["run"] for run in answer["runs"]] == [runs[name] for name in listed]


def test_undo_connects_as_recorded_with_a_secret_of_today(
    runs: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROXMOX_VE_API_TOKEN", SECRET)
    recorded = {"endpoint": URL, "username": "root@pam", "insecure": "true", "api_token": True}
    assert asked_with("undo", "--proxmox", "100") == recorded
    given = asked_with("undo", "--proxmox", "100", "--username", "other@pam")
    assert given == recorded | {"username": "other@pam"}
    done = nestvirt("undo", "--proxmox", "100")
    assert "the endpoint and username are from the run's record" in done.stderr
    assert "NOT verified: the run's record says so" in done.stderr
    monkeypatch.setenv("PROXMOX_VE_ENDPOINT", "https://elsewhere")
    assert "is for another address" in nestvirt("undo", "--proxmox", "100").stderr


def test_undo_refuses_an_option_that_the_runs_backend_does_not_know(runs: dict[str, str]) -> None:
    done = nestvirt("undo", runs["libvirt:100"], "--insecure")
    assert done.returncode == 2
    assert "--insecure goes with --proxmox" in done.stderr


def test_a_vm_that_is_gone_is_told_with_where_it_was(runs: dict[str, str]) -> None:
    done = nestvirt("undo", "--libvirt", "100")
    assert done.returncode == 2
    assert "is not to be found" in done.stderr
    assert "test:///default has no VM" in done.stderr


# --- quick, and plain


@pytest.mark.parametrize(
    "args",
    [["--version"], ["check", "--root", "{root}"], ["check", "--root", "{root}", "-o", "json"]],
    ids=" ".join,
)
def test_what_needs_no_hypervisor_imports_none_of_their_libraries(
    state: Path, tmp_path: Path, args: list[str]
) -> None:
    code = (
        "import sys, nestvirt.cli as n\n"
        f"sys.argv[1:] = {[arg.format(root=tmp_path) for arg in args]!r}\n"
        "try: n.main()\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT)
    loaded = set(done.stderr.split())
    assert "nestvirt.cli" in loaded
    assert not loaded & {"keyring", "requests", "proxmoxer", "libvirt"}


@pytest.mark.parametrize("command", ["check", "enable"])
@pytest.mark.parametrize(("value", "plain"), [("1", True), ("", False)], ids=["set", "empty"])
def test_no_color_is_plain_on_a_terminal(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, value: str, plain: bool
) -> None:
    monkeypatch.setenv("NO_COLOR", value)
    args = ["--root", str(tmp_path)] if command == "check" else ["--proxmox", "100", "--connect", URL]
    _, shown = at_a_terminal(command, *args)
    assert ("\x1b" not in shown) is plain


@pytest.mark.parametrize("args", [["check", "--proxmox", ""], ["enable", "--proxmox", "100", "--cpu", " "]])
def test_an_empty_name_is_a_usage_error(args: list[str]) -> None:
    done = nestvirt(*args)
    assert done.returncode == 2
    assert "was given an empty name" in done.stderr
