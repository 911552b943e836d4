"""What becomes of a write whose script failed, or whose answer was lost; the session is played."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest

from nestvirt.backends import hyperv
from nestvirt.backends.hyperv import HyperVBackend
from nestvirt.backends.hyperv.faults import NoAnswer, ScriptFailed
from nestvirt.backends.hyperv.session import HyperVSession
from nestvirt.errors import AccessDenied, ChangeRejected, Error, SettingsError, TargetError
from nestvirt.model import Change, Target, Vm
from tests.unit.backends.hyperv_situations import GUID, SETTINGS, answer

EXPOSE = "ExposeVirtualizationExtensions"
CHANGE = Change(EXPOSE, "false", "true")
VM = Vm(f"{GUID}@HV01", "web-01")


def having(value: str) -> dict[str, Any]:
    """The facts with that value of the switch."""
    return answer(settings={**SETTINGS, EXPOSE: value})


def failed(id: str, category: str, text: str = "Das geht nicht.") -> ScriptFailed:  # noqa: A002
    command = "Microsoft.HyperV.PowerShell.Commands.SetVMProcessor"
    return ScriptFailed("refused", evidence=text, id=f"{id},{command}", category=category, text=text)


class Played:
    """A session that answers the write with one thing, and reading with another."""

    address = "https://hv01:5986"

    def __init__(self, write: dict[str, Any] | Error, read: str = "false") -> None:
        self.write, self.read = write, read
        self.phases: list[str] = []

    def run(
        self,
        phase: str,
        data: Mapping[str, Any],
        *,
        secret: Mapping[str, str] | None = None,
        timeout: float = 60.0,
    ) -> dict[str, Any]:
        assert secret is None
        assert data["id"] == GUID
        assert 0 < timeout < 1000
        self.phases.append(phase)
        said = self.write if phase == "apply" else {"facts": having(self.read)}
        if isinstance(said, Error):
            raise said
        return said

    def close(self) -> None:
        self.phases.append("close")


def backend(session: Played, **settings: str) -> HyperVBackend:
    return HyperVBackend(cast("HyperVSession", session), settings)


def test_written_with_its_reading_needs_no_other() -> None:
    session = Played({"written": True, "facts": having("true")})
    now = backend(session)
    now.apply(VM, CHANGE)
    assert now.read(VM).value(EXPOSE) == "true"
    assert session.phases == ["apply"]
    assert now.read(VM).value(EXPOSE) == "false"  # and it counts once only
    assert session.phases == ["apply", "read"]


def test_reading_that_is_old_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hyperv, "FRESH", -1.0)
    session = Played({"written": True, "facts": having("true")})
    now = backend(session)
    now.apply(VM, CHANGE)
    assert now.read(VM).value(EXPOSE) == "false"


def test_other_value_is_changed_meanwhile() -> None:
    with pytest.raises(ChangeRejected, match="changed by somebody else"):
        backend(Played({"written": False, "facts": having("true")})).apply(VM, CHANGE)


@pytest.mark.parametrize("lost", [NoAnswer("lost"), failed("OperationFailed", "NotSpecified")])
def test_write_that_was_done_is_done_whatever_was_said(lost: Error) -> None:
    session = Played(lost, read="true")
    backend(session).apply(VM, CHANGE)
    assert session.phases == ["apply", "read"]


def test_write_that_is_not_known_to_be_done_is_no_refusal() -> None:
    with pytest.raises(NoAnswer):
        backend(Played(NoAnswer("lost"))).apply(VM, CHANGE)


@pytest.mark.parametrize(
    ("failure", "kind", "cure"),
    [
        (failed("InvalidState", "InvalidOperation"), ChangeRejected, "only while the VM is off"),
        (failed("NotSupported", "InvalidOperation"), ChangeRejected, "mend what Hyper-V says"),
        (
            failed("NotSupported", "InvalidOperation", "enabling VirtualizationBasedSecurityOptOut."),
            ChangeRejected,
            "Set-VMSecurity",
        ),
        (failed("AccessDenied", "PermissionDenied"), AccessDenied, "Hyper-V Administrators"),
        (ScriptFailed("refused", id="CommandNotFoundException"), Error, "Install-WindowsFeature Hyper-V"),
        (
            ScriptFailed("refused", id="Modules_ModuleNotFound,X", category="ResourceUnavailable"),
            Error,
            "Install-WindowsFeature Hyper-V",
        ),
        (
            ScriptFailed(
                "refused",
                id="InvalidParameter,Microsoft.HyperV.PowerShell.Commands.GetVM",
                category="InvalidArgument",
            ),
            TargetError,
            "removed",
        ),
        (
            ScriptFailed(
                "refused",
                id="ObjectNotFound,Microsoft.HyperV.PowerShell.Commands.GetVM",
                category="ObjectNotFound",
            ),
            Error,
            "Start-Service vmms",
        ),
    ],
    ids=str,
)
def test_refusal_is_told_by_its_id_in_any_language(
    failure: ScriptFailed, kind: type[Error], cure: str
) -> None:
    with pytest.raises(kind) as caught:
        backend(Played(failure)).apply(VM, CHANGE)
    assert cure in caught.value.cure


def test_refusal_after_somebody_elses_write_says_so() -> None:
    change = Change("Version", "9.0", "10.0")
    with pytest.raises(ChangeRejected, match="changed by somebody else"):
        backend(Played(failed("InvalidState", "InvalidOperation"))).apply(VM, Change("Version", "8.0", "9.3"))
    backend(Played(failed("InvalidState", "InvalidOperation"))).apply(VM, change)  # it is 10.0 already


@pytest.mark.parametrize("setting", ["Name", EXPOSE + "'; Remove-VM *; #", "", "a b"])
def test_setting_that_is_none_is_not_sent(setting: str) -> None:
    session = Played(NoAnswer("never"))
    with pytest.raises(ChangeRejected, match="no such value"):
        backend(session).apply(VM, Change(setting, "false", "true"))
    assert session.phases == []


def test_secrets_and_what_the_address_says_are_not_kept() -> None:
    settings = {
        "endpoint": "hv01",
        "port": "5986",
        "plain_http": "true",
        "username": "ops",
        "password": "secret",
        "guest_username": "Administrator",
        "guest_password": "secret",
    }
    kept = backend(Played(NoAnswer("never")), **settings).endpoint
    assert kept == {"endpoint": "https://hv01:5986", "username": "ops", "guest_username": "Administrator"}


def test_host_that_nobody_named_is_asked_for() -> None:
    with pytest.raises(SettingsError) as caught:
        HyperVBackend.connect(Target("hyperv", "web-01"), {})
    assert "--connect" in caught.value.cure


def test_place_is_the_host_and_no_login() -> None:
    place = backend(Played(NoAnswer("never"))).host_of(VM)
    assert (place.name, place.address) == ("HV01", None)
