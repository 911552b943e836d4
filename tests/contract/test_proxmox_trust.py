"""Whom nestvirt trusts to be Proxmox, what it tells it, and what it never tells anybody."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path

import pytest
from aiohttp import web

from nestvirt import backends, engine
from nestvirt.backends.proxmox import https
from nestvirt.engine import Step
from nestvirt.errors import AccessDenied, ChangeRejected, ConnectionFailed, Error
from nestvirt.journal import Journal
from nestvirt.model import Change, Status, Target
from tests.contract.basis import MANNER, ON
from tests.contract.runs import all_told, enable, session
from tests.peers.proxmox_rig import PasswordRig, ProxmoxRig
from tests.peers.pve_cpu import PVE_8, Release
from tests.peers.pve_server import Served, serve

ANY = Target("proxmox", "any")


def less(endpoint: Mapping[str, str], **more: str) -> dict[str, str]:
    """Without the CA that is trusted."""
    return {**{key: value for key, value in endpoint.items() if key != "ca_file"}, **more}


def says_nothing(rig: ProxmoxRig) -> bool:
    """Whether no request reached the peer at all, and so no credential did."""
    return rig.pve.traffic.counts.total() == 0


@pytest.mark.parametrize("kind", [ProxmoxRig, PasswordRig])
def test_unknown_certificate_is_refused_before_any_credential_is_sent(
    served: Served, kind: type[ProxmoxRig]
) -> None:
    rig = kind(served)
    with pytest.raises(ConnectionFailed) as caught:
        backends.connect(ANY, less(rig.endpoint))
    assert "fingerprint" in f"{caught.value.cure}"
    assert says_nothing(rig)


@pytest.mark.parametrize("kind", [ProxmoxRig, PasswordRig])
def test_pinned_fingerprint_is_accepted(served: Served, journal: Journal, kind: type[ProxmoxRig]) -> None:
    rig = kind(served)
    name = rig.make()
    pinned = less(rig.endpoint, fingerprint=served.fingerprint)
    assert enable(rig, journal, name, endpoint=pinned).conclusion is Status.PASS


@pytest.mark.parametrize("kind", [ProxmoxRig, PasswordRig])
def test_other_fingerprint_is_refused_before_any_credential_is_sent(
    served: Served, kind: type[ProxmoxRig]
) -> None:
    rig = kind(served)
    with pytest.raises(ConnectionFailed) as caught:
        backends.connect(ANY, less(rig.endpoint, fingerprint=":".join(["AB"] * 32)))
    assert served.fingerprint in caught.value.evidence
    assert says_nothing(rig)


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_insecure_only_when_it_is_said(rig: ProxmoxRig) -> None:
    backends.connect(ANY, less(rig.endpoint, insecure="1")).close()
    assert not says_nothing(rig)
    rig.pve.traffic.clear()
    with pytest.raises(ConnectionFailed):
        backends.connect(ANY, less(rig.endpoint))
    assert says_nothing(rig)


def test_netrc_of_the_user_does_not_replace_the_token(
    rig: ProxmoxRig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    backends.connect(ANY, rig.endpoint).close()


def test_redirects_are_not_followed(rig: ProxmoxRig) -> None:
    """A token would go to wherever they lead."""
    with serve() as other:
        rig.pve.instead = lambda request: web.Response(
            status=302, headers={"Location": f"{other.url}{request.path}"}
        )
        with pytest.raises(ConnectionFailed) as caught:
            backends.connect(ANY, rig.endpoint)
        assert caught.value.cure
        assert other.pve.traffic.counts.total() == 0


@pytest.mark.parametrize("status", [200, 404, 502])
def test_other_server_is_not_taken_for_proxmox(rig: ProxmoxRig, status: int) -> None:
    rig.pve.instead = lambda _request: web.Response(
        status=status, text="<html>\x1b[2Jhello</html>", content_type="text/html"
    )
    with pytest.raises(ConnectionFailed) as caught:
        backends.connect(ANY, rig.endpoint)
    assert caught.value.cure
    assert f"{caught.value.message}{caught.value.evidence}".isprintable()


@pytest.mark.parametrize("body", ["[]", "{}", "null", '{"data": [1]}', '{"data": null}', '{"data": {}}'])
def test_json_that_is_not_proxmoxs_is_not_taken_for_it(rig: ProxmoxRig, body: str) -> None:
    rig.pve.instead = lambda _request: web.Response(text=body, content_type="application/json")
    with pytest.raises(ConnectionFailed):
        backends.connect(ANY, rig.endpoint)


def test_an_answer_that_was_compressed_unasked_is_not_unpacked(rig: ProxmoxRig) -> None:
    def bomb(_request: web.Request) -> web.Response:
        packed = gzip.compress(b'{"data": {"version": "9.2"}}')
        return web.Response(
            body=packed, headers={"Content-Encoding": "gzip"}, content_type="application/json"
        )

    rig.pve.instead = bomb
    with pytest.raises(ConnectionFailed) as caught:
        backends.connect(ANY, rig.endpoint)
    assert "compressed (gzip)" in caught.value.evidence


@pytest.mark.parametrize("pinned", [False, True])
def test_an_answer_without_end_is_not_kept(
    served: Served, monkeypatch: pytest.MonkeyPatch, pinned: bool
) -> None:
    monkeypatch.setattr(https, "ANSWER_LIMIT", 100_000)
    rig = ProxmoxRig(served)
    rig.pve.instead = lambda _request: web.Response(text='{"data": "' + "a" * 200_000 + '"}')
    endpoint = less(rig.endpoint, fingerprint=served.fingerprint) if pinned else rig.endpoint
    with pytest.raises(ConnectionFailed) as caught:
        backends.connect(ANY, endpoint)
    assert "longer than 100000 bytes" in caught.value.evidence


@pytest.mark.parametrize("release", [PVE_8], ids=lambda r: r.release)
def test_errors_text_is_found_in_the_reason_phrase_alone(
    rig: ProxmoxRig, journal: Journal, release: Release
) -> None:
    """Bodies have it since http-server 5.2.0."""
    name = rig.make(running=False)
    now = session(rig, journal, name)
    assert now.backend.read(now.vm).value("cpu") == "x86-64-v2-AES"
    rig.vm(name).set_lock("migrate")
    with pytest.raises(ChangeRejected) as caught:
        now.backend.apply(now.vm, Change("cpu", "x86-64-v2-AES", "host"))
    assert "VM is locked (migrate)" in caught.value.evidence


def test_second_factor_is_asked_for_and_a_token_advised(served: Served) -> None:
    rig = PasswordRig(served)
    rig.pve.tfa = True
    with pytest.raises(AccessDenied) as caught:
        backends.connect(ANY, rig.endpoint)
    assert "token" in caught.value.cure


def test_ticket_that_has_run_out_midway_is_renewed(served: Served, journal: Journal) -> None:
    rig = PasswordRig(served)
    name = rig.make()

    def expire(step: Step, _detail: str) -> None:
        if step in (Step.APPLY, Step.START):
            rig.pve.revoke_tickets()

    result = engine.reach(session(rig, journal, name, tell=expire), ON, MANNER)
    assert result.conclusion is Status.PASS


def test_ticket_that_cannot_be_renewed_is_an_answer_and_no_traceback(
    served: Served, journal: Journal
) -> None:
    rig = PasswordRig(served)
    name = rig.make()
    now = session(rig, journal, name)
    rig.pve.revoke_tickets()
    rig.pve.password = "another"  # noqa: S105
    with pytest.raises(AccessDenied) as caught:
        now.backend.read(now.vm)
    assert "refused the password" in caught.value.message
    assert caught.value.cure


@pytest.mark.parametrize("kind", [ProxmoxRig, PasswordRig])
def test_no_credential_is_in_a_report_a_record_or_an_error(
    served: Served, journal: Journal, tmp_path: Path, kind: type[ProxmoxRig], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    rig = kind(served)
    secrets = [rig.token.partition("=")[2], "secret-password-of-root"]
    rig.pve.password = secrets[1]
    name = rig.make()
    told = [*all_told(rig, journal, tmp_path / "state", name), *errors_of(rig), caplog.text]
    assert len(told) > 6
    assert not [text for text in told if any(secret in text for secret in secrets)]


def errors_of(rig: ProxmoxRig) -> list[str]:
    """The words of every error that there is on the way in."""
    told = []
    endpoints = [rig.dead_endpoint, less(rig.endpoint), {**rig.endpoint, "endpoint": "https://[::1"}]
    endpoints.append(less(rig.endpoint, fingerprint=":".join(["AB"] * 32)))
    with rig.forbidden() as forbidden:
        endpoints.append({**forbidden})
    for endpoint in endpoints:
        with pytest.raises(Error) as caught:
            backends.connect(ANY, endpoint)
        told.append(f"{caught.value.message} {caught.value.evidence} {caught.value.cure}")
    return told
