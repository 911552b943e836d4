"""The command line with a Hyper-V VM: what goes together, and what does not."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from nestvirt.cli import cli
from nestvirt.errors import SettingsError


def nestvirt(*args: str) -> tuple[int, str]:
    """Exit code, and what was said; white space is made one blank."""
    result = CliRunner().invoke(cli, args)
    return result.exit_code, " ".join((result.stdout + result.stderr).split())


@pytest.mark.parametrize("option", ["--upgrade-version", "--discard-saved-state", "--mac-spoofing"])
@pytest.mark.parametrize("vm", [["--libvirt", "web-01"], ["--vsphere", "web-01"], ["--vmx", "web.vmx"], []])
def test_options_of_hyperv_go_with_it_alone(option: str, vm: list[str]) -> None:
    code, said = nestvirt("enable", *vm, option, "--yes")
    assert (code, f"{option} goes with --hyperv" in said) == (2, True)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--cpu", "host"], "--cpu does not go with --hyperv"),
        (["--upgrade-hardware"], "--upgrade-hardware goes with --vsphere"),
        (["--with-host"], "--with-host is for hosts with KVM"),
        (["--vsphere", "web-01"], "One VM at a time"),
    ],
)
def test_what_does_not_go_with_hyperv(args: list[str], words: str) -> None:
    code, said = nestvirt("enable", "--hyperv", "web-01", *args, "--yes")
    assert (code, words in said) == (2, True)


@pytest.mark.parametrize("command", ["check", "disable", "undo"])
def test_they_are_options_of_enable_alone(command: str) -> None:
    code, said = nestvirt(command, "--hyperv", "web-01", "--mac-spoofing")
    assert (code, "No such option" in said) == (2, True)


def test_host_that_nobody_names_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NESTVIRT_HYPERV_ENDPOINT", "HYPERV_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NESTVIRT_CONFIG", "/dev/null")
    with pytest.raises(SettingsError) as caught:
        CliRunner().invoke(cli, ["check", "--hyperv", "web-01"], catch_exceptions=False)
    assert "--connect https://" in caught.value.cure
