"""What clean.sh takes out of containerd's configuration, and what it leaves; and where it looks for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.kata.test_cleaning import KATA, PLAIN, RKE2, SHELLS, run

DROP_IN = '"/opt/kata/containerd/config.d/kata-deploy.toml"'
QEMU = """\
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.kata-qemu]
runtime_path = "/opt/kata/bin/containerd-shim-kata-v2"
"""
SECOND = """\
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.kata-qemu-two]
runtime_path = "/opt/kata-two/bin/containerd-shim-kata-v2"
[plugins."io.containerd.cri.v1.images".runtime_platforms.kata-qemu-two]
snapshotter = "nydus-two"
"""
OWN = """\
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.kata-own]
# Not that of /opt/kata/bin.
runtime_path = "/usr/local/bin/containerd-shim-kata-v2" # /opt/kata/bin has another
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.kata-own.options]
ConfigPath = "/etc/kata/configuration.toml"
"""
RANGE = '{{ range $n, $x := .M }}\n[m."{{ $n }}"]\nx = 1\n{{ end }}\n'

TEXTS = {
    "no newline at its end": ("version = 2\n[own]\nx = 1", None),
    "a comment makes no table Kata's": (PLAIN + OWN, None),
    "a second installation": (PLAIN + SECOND, None),
    "both": (PLAIN + SECOND + QEMU, PLAIN + SECOND),
    "the path is in the options": (
        PLAIN
        + '[a.runtimes.kata]\nruntime_type = "x"\n[a.runtimes.kata.options]\nConfigPath = "/opt/kata/y"\n',
        PLAIN,
    ),
    "arrays of arrays": (
        PLAIN + QEMU + 'a = [\n  ["]", "#["],\n  [1, 2], # ]\n]\nb = """\n[x]\n"""\n[own]\nx = [\n[1],\n]\n',
        PLAIN + "[own]\nx = [\n[1],\n]\n",
    ),
    "comments within and after": (
        PLAIN + QEMU + "# of Kata's\nsnapshotter = 'x'\n\n# The next one's.\n[own]\nx = 1\n",
        PLAIN + "\n# The next one's.\n[own]\nx = 1\n",
    ),
    "comments before and at the end": (
        PLAIN + "\n# Somebody's.\n\n" + QEMU + "\n# The end.\n",
        PLAIN + "\n# Somebody's.\n\n# The end.\n",
    ),
    "directives": (
        PLAIN + "{{ if .A }}\n" + QEMU + '{{ if .B }}\nsnapshotter = "x"\n{{ end }}\n{{- end }}\n' + RANGE,
        PLAIN + "{{ if .A }}\n{{ if .B }}\n{{ end }}\n{{- end }}\n" + RANGE,
    ),
    "a template after it": (QEMU + '{{ template "base" . }}\nx = 1\n', '{{ template "base" . }}\nx = 1\n'),
    "] in a comment of the imports": (
        f'imports = [ # [all] of them\n  "/a.toml", # ]\n  {DROP_IN}, # ours\n]\n{PLAIN}',
        f'imports = [ # [all] of them\n  "/a.toml", # ]\n  # ours\n]\n{PLAIN}',
    ),
    "] in a glob of the imports": (
        f'imports = ["/etc/[ab]/*.toml", {DROP_IN}]\n{PLAIN}',
        f'imports = ["/etc/[ab]/*.toml"]\n{PLAIN}',
    ),
    "a comment between it and its comma": (
        f'imports = [{DROP_IN} # ours\n , "/a.toml"]\n{PLAIN}',
        f'imports = [# ours\n  "/a.toml"]\n{PLAIN}',
    ),
    "others' imports": (
        'imports = ["/opt/kata-two/containerd/config.d/kata-deploy.toml"'
        ', "/etc/containerd/kata-deploy-of-mine.toml"]\n'
        f"# imports = [{DROP_IN}]\n{PLAIN}",
        None,
    ),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "node"
    for folder in ("run", "usr/local/bin", "opt"):
        (made / folder).mkdir(parents=True)
    return made


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
@pytest.mark.parametrize(("before", "after"), TEXTS.values(), ids=TEXTS)
def test_only_what_kata_deploy_wrote_goes(
    shell: list[str], root: Path, before: str, after: str | None
) -> None:
    """Where nothing of it is there nothing is written, and nothing restarted."""
    config = root / "etc/containerd/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(before)
    assert bool(run(shell, root, "look").of("left")) is (after is not None)
    said = run(shell, root, "clean")
    assert config.read_text() == (before if after is None else after)
    assert bool(said.of("removed")) is bool(said.of("restart")) is (after is not None)
    assert not said.of("left")


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
@pytest.mark.parametrize(
    "line",
    [
        'imports = ["/opt/kata/containerd/config.d/*.toml"]',
        '[a.runtimes.own]\nruntime_path = "/opt/kata/bin/x"',
    ],
)
def test_what_still_names_katas_files_is_told(shell: list[str], root: Path, line: str) -> None:
    config = root / "etc/containerd/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f"{line}\n{QEMU}")
    said = run(shell, root, "clean")
    assert config.read_text() == f"{line}\n"
    assert said.of("left") == ("a line with /opt/kata/ in /etc/containerd/config.toml",)


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_links_are_followed_to_their_end(shell: list[str], root: Path) -> None:
    """As the node follows them: from its own /, link after link; the file that one leads to is written."""
    for folder in ("mnt/big/opt/kata", "mnt/big/rancher/rke2/agent/etc/containerd", "var/lib", "srv"):
        (root / folder).mkdir(parents=True)
    (root / "opt").rmdir()
    (root / "data").symlink_to("/mnt/big")
    (root / "opt").symlink_to("/data/./opt")
    (root / "var/lib/rancher").symlink_to("../../data/rancher")
    (root / "srv/real.toml").write_text(PLAIN + KATA)
    link = root / "mnt/big/rancher/rke2/agent/etc/containerd/config.toml.tmpl"
    link.symlink_to("/srv/real.toml")
    variables = {"NESTVIRT_CONTAINERD": f"/{RKE2}", "NESTVIRT_GENERATED": "config.toml"}
    assert run(shell, root, "look", **variables).of("left") == (
        "Kata's runtimes in /srv/real.toml",
        "/opt/kata",
    )
    said = run(shell, root, "clean", **variables)
    assert not said.of("left")
    assert not said.of("missing")
    assert link.is_symlink()
    assert (root / "srv/real.toml").read_text() == PLAIN
    assert [path.name for path in (root / "srv").iterdir()] == ["real.toml"]
    assert not (root / "mnt/big/opt/kata").exists()


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_a_folder_that_is_not_there_is_told(shell: list[str], root: Path) -> None:
    (root / "etc").mkdir()
    (root / "etc/containerd").symlink_to("containerd")
    assert run(shell, root, "look").of("missing") == ("/etc/containerd",)
