"""What of a cluster is Kata's, and what is left of it; and the command lines of both commands."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from nestvirt.cli.kata_consent import ask
from nestvirt.cli.kata_install import kata_install
from nestvirt.cli.kata_uninstall import kata_uninstall
from nestvirt.cli.output import Progress
from nestvirt.kata import uninstall
from nestvirt.kata.cleaning import Said
from nestvirt.kata.uninstall import There
from nestvirt.model import Status


def labelled(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels}}


def pod(name: str, runtime_class: str, phase: str = "Running", **labels: str) -> dict[str, Any]:
    meta = {"name": name, "namespace": "default", "labels": labels}
    return {"metadata": meta, "spec": {"runtimeClassName": runtime_class}, "status": {"phase": phase}}


def test_who_uses_it() -> None:
    """Not pods that have ended, not nestvirt's own, and not those under another RuntimeClass."""
    pods = [
        pod("web", "kata-qemu"),
        pod("waiting", "kata-qemu", "Pending"),
        pod("ended", "kata-qemu", "Succeeded"),
        pod("gvisor", "runsc"),
        pod("proof", "kata-qemu", **{"app.kubernetes.io/managed-by": "nestvirt"}),
    ]
    assert uninstall._users(pods, ("kata-qemu",)) == {"kata-qemu": ("default/web", "default/waiting")}


CLEAN = Said({"end": ("yes",)})


def there(**given: Any) -> There:
    usual: dict[str, Any] = {"release": "", "distribution": "", "classes": (), "labels": {}, "users": {}}
    return There(**{**usual, "nodes": (labelled("worker-1"),), **given})


LEFT: dict[str, tuple[There, dict[str, Said], list[tuple[str, Status]]]] = {
    "nothing": (there(), {"worker-1": CLEAN}, [("", Status.PASS), ("worker-1", Status.PASS)]),
    "a class": (
        there(classes=("kata-qemu",)),
        {"worker-1": CLEAN},
        [("", Status.FAIL), ("worker-1", Status.PASS)],
    ),
    "a hook's object": (
        there(parts={"jobs": ("kata-deploy-cleanup",)}),
        {"worker-1": CLEAN},
        [("", Status.FAIL), ("worker-1", Status.PASS)],
    ),
    "a file": (
        there(),
        {"worker-1": Said({"left": ("/opt/kata",)})},
        [("", Status.PASS), ("worker-1", Status.FAIL)],
    ),
    "a label": (
        there(labels={"worker-1": ("nestvirt.io/kvm",)}),
        {"worker-1": CLEAN},
        [("", Status.PASS), ("worker-1", Status.FAIL)],
    ),
    "a restart": (
        there(),
        {"worker-1": Said({"restart": ("owed",)})},
        [("", Status.PASS), ("worker-1", Status.FAIL)],
    ),
    "no pod there": (
        there(),
        {"worker-1": Said(trouble="image pull", cure="--image")},
        [("", Status.PASS), ("worker-1", Status.UNKNOWN)],
    ),
    "another's": (
        there(elsewhere=(("other", "default"),)),
        {"worker-1": CLEAN},
        [("", Status.FAIL), ("worker-1", Status.PASS)],
    ),
    "a file, and a folder that was not seen": (
        there(),
        {"worker-1": Said({"left": ("/opt/kata",)}, trouble="not looked at", cure="look")},
        [("", Status.PASS), ("worker-1", Status.FAIL)],
    ),
    "not ready": (there(), {}, [("", Status.PASS), ("worker-1", Status.UNKNOWN)]),
}


@pytest.mark.parametrize(("seen", "said", "expected"), LEFT.values(), ids=LEFT)
def test_what_is_left_is_named(
    seen: There,
    said: dict[str, Said],
    expected: list[tuple[str, Status]],
) -> None:
    found = uninstall._judged(seen, said)
    assert {f.check for f in found} == {"cluster-clean"}
    assert [(f.subject, f.status) for f in found] == expected
    assert all(f.cure and "NODE" not in f.cure for f in found if f.ill)


# --- the command lines


CONFIG = "kataContainers: {}\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--dry-run", "--preflight"], "three different things"),
        (["--show-values", "--dry-run"], "three different things"),
        (["--chart", " "], "--chart was given an empty value"),
        (["--context", ""], "--context was given an empty value"),
        (["--image", ""], "--image was given an empty value"),
    ],
)
def test_usage_errors(tmp_path: Path, words: list[str], says: str) -> None:
    (tmp_path / "a.yaml").write_text(CONFIG)
    done = CliRunner().invoke(kata_install, ["--config", str(tmp_path / "a.yaml"), *words])
    assert done.exit_code == 2
    assert says in done.output


def test_an_empty_name_is_refused_by_the_other_too() -> None:
    assert CliRunner().invoke(kata_uninstall, ["--release", " "]).exit_code == 2


def test_values_follow_the_nodes_that_are_chosen(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(CONFIG)
    words = ["--config", str(tmp_path / "a.yaml"), "--show-values"]
    assert "nodeSelector" not in CliRunner().invoke(kata_install, words).output
    assert (
        "nestvirt.io/kvm: works" in CliRunner().invoke(kata_install, [*words, "--only-capable-nodes"]).output
    )


def test_what_is_to_be_minded_of_the_values_is_said_beside_them(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text('kataContainers: {version: "99.0.0"}\n')
    done = CliRunner().invoke(kata_install, ["--config", str(tmp_path / "a.yaml"), "--show-values"])
    assert "Kata 99.0.0 is newer than what is known here" in done.stderr
    assert "newer" not in done.stdout


def test_no_pod_is_started_before_it_is_known_that_somebody_can_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nestvirt.kata.helm.Helm.found", lambda *_words: None)
    (tmp_path / "a.yaml").write_text(CONFIG)
    done = CliRunner().invoke(kata_install, ["--config", str(tmp_path / "a.yaml")])
    assert (done.exit_code, "consent with --yes" in done.stderr) == (2, True)


def test_without_a_terminal_there_is_nobody_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    import click

    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(click.UsageError, match="--yes"):
        ask("cluster lab", ["install"], Progress(quiet=True), yes=False, question="Do it?")
    ask("cluster lab", ["install"], Progress(quiet=True), yes=True, question="Do it?")
