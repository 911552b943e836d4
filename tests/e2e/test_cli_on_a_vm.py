"""The command line on a real VM: what an operator types, what comes back, and what interrupts it."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess

import pytest

from tests.e2e.shell import NESTVIRT, Shell, same_configuration


def test_json_all_the_way(shell: Shell) -> None:
    name = shell.rig.make()
    before = shell.rig.see(name)
    code, out, _ = shell.run("check", "--libvirt", name, "-o", "json")
    assert (code, json.loads(out)["first_broken"]) == (1, "vm-cpu")
    code, out, err = shell.run("enable", "--libvirt", name, "--yes", "-o", "json")
    report = json.loads(out)
    assert (code, report["verdict"], report["proof"]["verdict"]) == (0, "pass", "works")
    assert report["proof"]["numbers"]["exit_ns"] > 0
    assert "nestvirt:" not in err
    code, out, _ = shell.run("undo", "--list", "-o", "json")
    assert [(run["run"], run["state"]) for run in json.loads(out)["runs"]] == [(report["run"], "applied")]
    code, out, _ = shell.run("undo", report["run"], "--yes", "-o", "json")
    assert (code, json.loads(out)["verdict"]) == (0, "pass")
    assert same_configuration(shell.rig.see(name), before)


def test_without_a_terminal_it_asks_for_yes_and_touches_nothing(shell: Shell) -> None:
    name = shell.rig.make()
    before = shell.rig.see(name)
    code, _, err = shell.run("enable", "--libvirt", name)
    assert code == 2
    assert "--yes" in err
    assert shell.rig.see(name) == before


def test_declining_at_the_terminal_touches_nothing(shell: Shell) -> None:
    name = shell.rig.make()
    before = shell.rig.see(name)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [NESTVIRT, "enable", "--libvirt", name],
        env={**shell.environment, "NO_COLOR": "1"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    said = b""
    while b"[y/N]" not in said:
        assert select.select([ours], [], [], 60)[0], said
        said += os.read(ours, 4096)
    os.write(ours, b"n\n")
    assert process.wait(60) == 130
    os.close(ours)
    assert b"policy='require'" in said
    assert shell.rig.see(name) == before


@pytest.mark.parametrize("quirk", ["", "deaf"], ids=["goes down all the same", "deaf"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
def test_signal_while_it_waits_puts_everything_back(shell: Shell, number: signal.Signals, quirk: str) -> None:
    name = shell.rig.make(quirk=quirk)
    before = shell.rig.see(name)
    process = shell.start("enable", "--libvirt", name, "--yes", "--timeout", "5")
    shell.until_it_says(process, "stopping")
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "no setting was changed" in err
    assert same_configuration(shell.rig.see(name), before)


def test_reader_that_leaves_does_not_stop_the_work(shell: Shell) -> None:
    """As with ``nestvirt enable … 2>&1 | head -5``."""
    name = shell.rig.make()
    process = shell.start("enable", "--libvirt", name, "--yes")
    shell.until_it_says(process, "stopping")
    assert process.stderr is not None
    process.stderr.close()
    assert process.stdout is not None
    report = process.stdout.read()
    assert process.wait(120) == 0
    assert "ran guest code" in report
    assert shell.rig.see(name).running


def test_kill_then_undo_restores(shell: Shell) -> None:
    name = shell.rig.make()
    before = shell.rig.see(name)
    process = shell.start("enable", "--libvirt", name, "--yes")
    shell.until_it_says(process, "starting")
    process.kill()
    process.communicate(timeout=60)
    assert "interrupted" in shell.run("undo", "--list")[1]
    code, _, err = shell.run("undo", "--yes")
    assert code == 0, err
    assert same_configuration(shell.rig.see(name), before)
    assert "undone" in shell.run("undo", "--list")[1]


def test_second_run_at_the_same_time_refuses(shell: Shell) -> None:
    name = shell.rig.make(quirk="deaf")
    first = shell.start("enable", "--libvirt", name, "--yes")
    shell.until_it_says(first, "stopping")
    code, _, err = shell.run("disable", "--libvirt", name, "--yes")
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=60)
    assert code == 1
    assert "another run" in err
    assert str(first.pid) in err
