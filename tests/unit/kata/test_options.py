"""The options that name a cluster: what no cluster could have is refused before one is asked."""

from __future__ import annotations

import os
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from nestvirt.cli.kata_check import kata_check
from nestvirt.cli.kata_options import IMAGE, NAMESPACE, RELEASE, kube_of
from nestvirt.errors import SettingsError

OPTIONS = {
    "context": None,
    "kubeconfig": "/nowhere/config",
    "namespace": NAMESPACE,
    "release": RELEASE,
    "image": IMAGE,
}


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("namespace", "", "--namespace was given an empty value"),
        ("namespace", "Bad_NS", "--namespace cannot be 'Bad_NS': it has to be up to 63 lower-case letters"),
        ("namespace", "a.b", "--namespace cannot be"),
        ("namespace", "-a", "--namespace cannot be"),
        ("namespace", "a\n", "--namespace cannot be"),
        ("namespace", "a" * 64, "--namespace cannot be"),
        ("release", "Kata", "--release cannot be 'Kata'"),
        ("release", "a..b", "--release cannot be"),
        ("release", "a" * 54, "--release cannot be"),
        ("image", "busybox :1", "--image cannot be 'busybox :1': it has to be no white space"),
    ],
)
def test_what_cannot_be_is_a_usage_error(name: str, value: str, says: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        kube_of({**OPTIONS, name: value})
    assert says in caught.value.message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("namespace", "a"),
        ("namespace", "a" * 63),
        ("release", "kata.two-1"),
        ("image", "reg.lan:5000/b@sha256:0"),
    ],
)
def test_what_can_be_is_taken(name: str, value: str) -> None:
    assert kube_of({**OPTIONS, name: value}).kubeconfig == "/nowhere/config"


def test_a_namespace_that_cannot_be_ends_with_the_code_of_usage_and_asks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # without kubectl
    done = CliRunner().invoke(kata_check, ["-n", "Bad_NS"])
    assert done.exit_code == 2
    assert "--namespace cannot be 'Bad_NS'" in done.output


def test_a_kubeconfig_of_the_environment_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    unnamed = {**OPTIONS, "kubeconfig": None}
    missing, there = str(tmp_path / "none"), tmp_path / "config"
    there.touch()
    monkeypatch.setenv("KUBECONFIG", missing)
    with pytest.raises(SettingsError) as caught:
        kube_of(unnamed)
    assert caught.value.message == f"KUBECONFIG={missing} does not exist"
    assert kube_of(OPTIONS).kubeconfig == "/nowhere/config"  # --kubeconfig goes first
    for named in (os.pathsep.join((missing, str(there))), ""):  # kubectl merges those that are there
        monkeypatch.setenv("KUBECONFIG", named)
        assert kube_of(unnamed).kubeconfig is None
    monkeypatch.setenv("KUBECONFIG", missing)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")  # in a pod, whose service account kubectl uses
    assert kube_of(unnamed).kubeconfig is None
