"""Whom nestvirt trusts to be vSphere, what it tells it, and what it never tells anybody."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from nestvirt import backends, engine
from nestvirt.backends.vsphere import api
from nestvirt.engine import Step
from nestvirt.errors import AccessDenied, ConnectionFailed, Error, PowerError
from nestvirt.journal import Journal
from nestvirt.model import Status, Target
from tests.contract.basis import MANNER, ON
from tests.contract.runs import all_told, session
from tests.peers.vsphere import VSphere
from tests.peers.vsphere_rig import VSphereRig

ANY = Target("vsphere", "any")
Choices = dict[str, Callable[[VSphere], dict[str, str]]]
OTHER = ":".join(["AB"] * 32)


@pytest.fixture
def rig(vcenter: VSphere) -> VSphereRig:
    return VSphereRig(vcenter)


def less(given: Mapping[str, str], **more: str) -> dict[str, str]:
    """Without the CA that is trusted."""
    return {**{key: value for key, value in given.items() if key != "ca_file"}, **more}


def refused(endpoint: Mapping[str, str]) -> ConnectionFailed:
    with pytest.raises(ConnectionFailed) as caught:
        backends.connect(ANY, endpoint)
    return caught.value


UNTRUSTED: Choices = {
    "no CA": lambda _lab: {},
    "another CA": lambda lab: {"ca_file": lab.other_ca_file},
    "another certificate": lambda _lab: {"fingerprint": OTHER},
    "another certificate, by SHA-1": lambda _lab: {"fingerprint": OTHER[: 20 * 3 - 1]},
    "another certificate from the right CA": lambda lab: {"ca_file": lab.ca_file, "fingerprint": OTHER},
    "another certificate, and insecure": lambda _lab: {"fingerprint": OTHER, "insecure": "true"},
}


@pytest.mark.parametrize("where", ["address", "loopback"])
@pytest.mark.parametrize("why", UNTRUSTED)
def test_untrusted_server_is_refused_before_anything_is_sent(rig: VSphereRig, why: str, where: str) -> None:
    """Also on loopback, where pyvmomi by itself would verify nothing."""
    url = f"https://{getattr(rig.lab, where)}"
    error = refused(less(rig.endpoint, endpoint=url, **UNTRUSTED[why](rig.lab)))
    assert rig.lab.thumbprint in error.evidence
    assert error.cure
    assert rig.lab.counts() == {}


TRUSTED: Choices = {
    "by its CA": lambda lab: {"ca_file": lab.ca_file},
    "pinned": lambda lab: {"fingerprint": lab.thumbprint},
    "pinned by SHA-1": lambda lab: {"fingerprint": lab.thumbprint_sha1},
    "insecure, as was said": lambda _lab: {"insecure": "true"},
}


@pytest.mark.parametrize("where", ["address", "loopback"])
@pytest.mark.parametrize("how", TRUSTED)
def test_trusted_server_is_used(rig: VSphereRig, how: str, where: str) -> None:
    url = f"https://{getattr(rig.lab, where)}"
    backends.connect(ANY, less(rig.endpoint, endpoint=url, **TRUSTED[how](rig.lab))).close()
    assert rig.lab.counts()["Login"] == 1


def test_known_hosts_of_govc_pin_too(rig: VSphereRig, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(f"{rig.lab.address} {rig.lab.thumbprint_sha1}\n")
    backends.connect(ANY, less(rig.endpoint, known_hosts=str(known))).close()
    known.write_text(f"{rig.lab.address} {OTHER[:59]}\n")
    refused(less(rig.endpoint, known_hosts=str(known)))
    assert rig.lab.counts()["Login"] == 1


def test_name_that_the_certificate_does_not_have_is_refused(rig: VSphereRig) -> None:
    port = rig.lab.address.rpartition(":")[2]
    error = refused({**rig.endpoint, "endpoint": f"https://127.0.0.3:{port}"})
    assert error.evidence
    assert rig.lab.counts() == {}


def test_wrong_password_is_told_once(rig: VSphereRig) -> None:
    """Each try counts towards the account's lockout."""
    with rig.forbidden() as endpoint, pytest.raises(AccessDenied) as caught:
        backends.connect(ANY, endpoint)
    assert rig.lab.user in f"{caught.value.message} {caught.value.evidence}"
    assert caught.value.cure
    assert rig.lab.counts()["Login"] == 1


@pytest.mark.parametrize("status", [200, 404, 503])
@pytest.mark.parametrize("body", ["<html>\x1b[2Jhello</html>", "", "{}", "<a><b/></a>"])
def test_other_server_is_not_taken_for_vsphere(rig: VSphereRig, status: int, body: str) -> None:
    rig.lab.answer_with(status, body)
    error = refused(rig.endpoint)
    assert error.cure
    assert f"{error.message}{error.evidence}".isprintable()
    assert "Login" not in rig.lab.counts()


def test_server_that_does_not_answer_is_not_waited_for_forever(
    rig: VSphereRig, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = rig.make(running=False)
    monkeypatch.setattr(api, "ANSWER", 0.2)
    now = session(rig, journal, name)
    now.backend.read(now.vm)
    rig.lab.delay("RetrievePropertiesEx", 1.0, times=5)
    with pytest.raises(ConnectionFailed) as caught:
        now.backend.read(now.vm)
    assert caught.value.evidence
    assert caught.value.cure


def test_status_that_is_not_soaps_is_told_as_such(rig: VSphereRig) -> None:
    rig.lab.answer_with(503, "no healthy upstream")
    error = refused(rig.endpoint)
    assert "not as vSphere does" in error.message
    assert "503" in error.evidence


def test_version_that_is_none_is_no_vsphere() -> None:
    with pytest.raises(ValueError, match="empty"):
        api._newest("abc")
    assert api._newest("8.0.1.0").startswith("vim.version.")


def test_shutdown_whose_answer_does_not_come_is_given_up_in_its_time(
    rig: VSphereRig, journal: Journal
) -> None:
    """At that moment the peer has not heard of it yet."""
    name = rig.make(shutdown=0.0)
    rig.lab.delay("ShutdownGuest", 2.0)
    now = session(rig, journal, name)
    with pytest.raises(PowerError):
        now.backend.stop(now.vm, timeout=0.3)
    assert rig.see(name).running


def test_session_that_has_run_out_midway_is_renewed(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make()

    def expire(step: Step, _detail: str) -> None:
        if step in (Step.STOP, Step.APPLY, Step.START, Step.PROBE):
            rig.lab.expire()

    result = engine.reach(session(rig, journal, name, tell=expire), ON, MANNER)
    assert result.conclusion is Status.PASS


def test_session_is_ended_and_not_left_to_time_out(rig: VSphereRig, journal: Journal) -> None:
    """vCenter has room for a few hundred."""
    now = session(rig, journal, rig.make())
    now.backend.close()
    assert rig.lab.counts()["Logout"] == 1


def test_no_credential_is_in_a_report_a_record_or_an_error(
    rig: VSphereRig, journal: Journal, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    secrets = [rig.lab.password, rig.lab.guest_password, "not-this-one"]
    name = rig.make()
    told = [*all_told(rig, journal, tmp_path / "state", name), *errors_of(rig), caplog.text]
    assert len(told) > 8
    assert not [text for text in told if any(secret in text for secret in secrets)]


def errors_of(rig: VSphereRig) -> list[str]:
    """The words of every error that there is on the way in."""
    told = []
    address = rig.lab.address
    endpoints: list[Mapping[str, str]] = [rig.dead_endpoint, less(rig.endpoint)]
    endpoints += [less(rig.endpoint, fingerprint=OTHER), {**rig.endpoint, "endpoint": "https://[::1"}]
    endpoints.append({**rig.endpoint, "endpoint": f"https://{rig.lab.user}:{rig.lab.password}@{address}"})
    endpoints.append({**rig.endpoint, "endpoint": f"https://{rig.lab.password}:nonsense"})
    with rig.forbidden() as forbidden:
        endpoints.append({**forbidden})
    for endpoint in endpoints:
        with pytest.raises(Error) as caught:
            backends.connect(ANY, endpoint)
        error: BaseException | None = caught.value
        told.append(f"{caught.value.message} {caught.value.evidence} {caught.value.cure}")
        while error is not None:
            told.append(f"{error}")
            error = error.__cause__
    return told
