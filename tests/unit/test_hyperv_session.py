"""What a session with a Hyper-V host is made of, without one: addresses, ways in, scripts, answers."""

from __future__ import annotations

import base64
import bisect
import json
import re
from importlib import resources
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestvirt.backends.hyperv import answers, scripts
from nestvirt.backends.hyperv.address import Address
from nestvirt.backends.hyperv.auth import Login
from nestvirt.backends.hyperv.faults import ScriptFailed
from nestvirt.backends.hyperv.session import HyperVSession
from nestvirt.errors import Error, SettingsError

HOST = Address("hv1", 5986)
PLAIN = Address("hv1", 5985, secure=False)
ME = {"username": "ops", "password": "p"}
FILES = {"cert_file": "/c", "key_file": "/k"}
FOLDER = resources.files("nestvirt.backends.hyperv") / "scripts"
NAMES = sorted(file.name.removesuffix(".ps1") for file in FOLDER.iterdir() if file.name.endswith(".ps1"))
AROUND = ("prelude", "epilogue", "bootstrap", "secrets", "vm", "guest_reading")
PHASES = [name for name in NAMES if name not in AROUND]


# --- addresses


@pytest.mark.parametrize(
    ("text", "port", "plain", "url"),
    [
        ("hv1", None, False, "https://hv1:5986/wsman"),
        ("hv1", "443", False, "https://hv1:443/wsman"),
        ("hv1:444", "443", False, "https://hv1:444/wsman"),
        ("hv1", None, True, "http://hv1:5985/wsman"),
        ("https://hv1", None, True, "https://hv1:5986/wsman"),
        ("HTTPS://HV1/wsman/", None, False, "https://hv1:5986/wsman"),
        ("http://hv1", None, False, "http://hv1:5985/wsman"),
        ("http://hv1", "80", False, "http://hv1:80/wsman"),
        ("fe80::1", None, False, "https://[fe80::1]:5986/wsman"),
        ("[fe80::1]:99", None, False, "https://[fe80::1]:99/wsman"),
        ("10.0.0.1", None, False, "https://10.0.0.1:5986/wsman"),
    ],
)
def test_address_is_read(text: str, port: str | None, plain: bool, url: str) -> None:
    address = Address.parse(text, port, plain=plain)
    assert address.url == url
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "ftp://hv1",
        "https://",
        "https://hv1:0",
        "https://hv1:99999",
        "https://hv1:x",
        "https://user:secret@hv1",
        "https://hv1/elsewhere",
        "https://hv1?x",
        "https://a..b",
        "https://h v",
        "https://h\x1bv",
        "hyperv+ssh://hv1",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Address.parse(text)
    assert "secret" not in f"{caught.value.message}{caught.value.evidence}"
    assert caught.value.cure


# --- ways in


@pytest.mark.parametrize(
    ("settings", "transport"),
    [
        (ME, "ntlm"),
        ({**ME, **FILES}, "ntlm"),
        (FILES, "certificate"),
        ({**ME, "basic": "true"}, "basic"),
        ({**ME, "basic": "true", "transport": "ntlm"}, "ntlm"),
        ({**ME, "transport": "CredSSP"}, "credssp"),
        ({**ME, "transport": "kerberos"}, "kerberos"),
        ({"transport": "kerberos"}, "kerberos"),
        ({**ME, **FILES, "transport": "certificate"}, "certificate"),
    ],
)
def test_way_in_is_the_one_that_was_asked_for_or_will_do(settings: dict[str, str], transport: str) -> None:
    login = Login.of(settings, HOST)
    assert login.transport == transport
    assert login.who
    assert "'p'" not in repr(login)


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        ({}, HOST),
        ({"username": "ops"}, HOST),
        ({"password": "p"}, HOST),
        ({**ME, "transport": "telnet"}, HOST),
        ({"transport": "certificate", "cert_file": "/c"}, HOST),
        ({"transport": "certificate"}, HOST),
        ({**ME, "transport": "basic"}, PLAIN),
        ({**FILES}, PLAIN),
    ],
)
def test_way_that_leads_nowhere_is_refused_with_its_cure(settings: dict[str, str], address: Address) -> None:
    with pytest.raises(SettingsError) as caught:
        Login.of(settings, address)
    assert caught.value.evidence
    assert caught.value.cure


@pytest.mark.parametrize(
    "more",
    [{"fingerprint": "AB"}, {"ca_file": "/nowhere.pem"}, {"endpoint": "ftp://x"}, {"password": ""}],
)
def test_session_refuses_what_it_cannot_use_and_sends_nothing(more: dict[str, str]) -> None:
    with pytest.raises(SettingsError):
        HyperVSession({"endpoint": "https://nobody.invalid", **ME, **more})


def test_session_tells_where_it_goes() -> None:
    session = HyperVSession({"endpoint": "HV1", "port": "99", "plain_http": "true", **ME})
    assert (session.host, str(session.address)) == ("hv1", "http://hv1:99")
    session.close()


# --- scripts


def sent(invocation: scripts.Invocation) -> str:
    return base64.b64decode(invocation.arguments[-1]).decode("utf-16-le")


@pytest.mark.parametrize("name", NAMES)
def test_script_can_be_sent_without_its_comments_and_indentation(name: str) -> None:
    raw = (FOLDER / f"{name}.ps1").read_text(encoding="ascii")
    assert "@'" not in raw
    assert '@"' not in raw
    assert "<#" not in raw
    text = scripts.text(name)
    assert text
    assert not re.search(r"^\s*(#|$)|^\s", text, re.MULTILINE)


@pytest.mark.parametrize("phase", PHASES)
def test_only_the_data_varies(phase: str) -> None:
    one, other = (sent(scripts.invocation(phase, {"name": name})) for name in ("a", "'; Remove-VM *; #"))
    first, rest = one.split("\n", 1)
    assert re.fullmatch(r"\$nestvirtData = '[A-Za-z0-9+/]*={0,2}'", first)
    assert re.fullmatch(r"\$nestvirtData = '[A-Za-z0-9+/]*={0,2}'", other.split("\n", 1)[0])
    assert other.split("\n", 1)[1] == rest
    assert rest.startswith(scripts.text("prelude"))
    assert rest.endswith(scripts.text("epilogue"))


@pytest.mark.parametrize("phase", PHASES)
def test_phase_has_room_on_the_command_line(phase: str) -> None:
    """Through stdin it would take one message more."""
    invocation = scripts.invocation(phase, {"name": "x" * 100})
    assert invocation.length <= scripts.COMMAND_LINE
    assert invocation.stdin is None


@given(st.text(), st.text(min_size=1))
def test_stdin_holds_data_and_secrets_apart_whatever_they_are(name: str, secret: str) -> None:
    invocation = scripts.invocation("read", {"name": name}, {"password": secret, "username": name})
    assert sent(invocation) == scripts.text("bootstrap")
    assert invocation.stdin is not None
    data, secrets, rest = invocation.stdin.decode("ascii").split("\n", 2)
    assert json.loads(base64.b64decode(data)) == {"name": name, "secret": None}
    pairs = dict(pair.split(":") for pair in secrets.split(" "))
    assert {key: base64.b64decode(value).decode() for key, value in pairs.items()} == {
        "password": secret,
        "username": name,
    }
    assert rest == scripts.invocation("read", {}, {"password": "x"}).stdin.decode().split("\n", 2)[2]  # type: ignore[union-attr]


def test_command_line_is_used_to_its_last_character() -> None:
    def too_long(count: int) -> bool:
        return scripts.invocation("read", {"n": "x" * count}).stdin is not None

    first = bisect.bisect_left(range(40_000), True, key=too_long)
    most = scripts.invocation("read", {"n": "x" * (first - 1)}).length
    assert scripts.COMMAND_LINE - 20 < most <= scripts.COMMAND_LINE


def test_what_json_cannot_hold_is_not_sent() -> None:
    with pytest.raises(ValueError, match="JSON"):
        scripts.invocation("read", {"n": float("nan")})


# --- answers


def line(answer: object) -> bytes:
    return b"NESTVIRT:" + base64.b64encode(json.dumps(answer).encode()) + b"\r\n"


def test_answer_is_found_among_other_words() -> None:
    noise = b"Loading personal and system profiles...\r\nNESTVIRT: no\r\n"
    assert answers.parse("read", noise + line({"ok": {"a": [1]}}), b"#< CLIXML\r\n", 0) == {"a": [1]}


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {},
        {"ok": None},
        {"ok": []},
        {"ok": [1, {"a": 1}]},
        {"ok": "x"},
        {"error": "x"},
        {"ok": {}, "error": {}},
        {"ok": {"n": float("nan")}},
    ],
)
def test_answer_that_is_none_is_refused(answer: object) -> None:
    with pytest.raises(Error, match="understood") as caught:
        answers.parse("read", line(answer), b"", 0)
    assert not isinstance(caught.value, ScriptFailed)


def test_two_answers_are_none() -> None:
    with pytest.raises(Error, match="understood"):
        answers.parse("read", line({"ok": {"a": 1}}) + line({"ok": {"a": 2}}), b"", 0)


def test_answer_nested_without_bounds_is_refused() -> None:
    deep = b"NESTVIRT:" + base64.b64encode(b"[" * 200_000) + b"\n"
    with pytest.raises(Error, match="understood"):
        answers.parse("read", deep, b"", 0)


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_whatever_comes_is_told(stdout: bytes, stderr: bytes) -> None:
    with pytest.raises(Error) as caught:
        answers.parse("read", stdout, stderr, 1)
    assert f"{caught.value.message}{caught.value.evidence}".isprintable()


@given(
    st.dictionaries(st.sampled_from(["id", "category", "type", "message", "hresult"]), st.from_type(object))
)
def test_whatever_an_error_holds_is_printable(told: dict[str, Any]) -> None:
    plain = {
        name: value if isinstance(value, str | int | float) else str(value) for name, value in told.items()
    }
    with pytest.raises(Error) as caught:
        answers.parse("read", line({"error": plain}), b"", 0)
    assert caught.value.evidence.isprintable()


CLIXML = (
    b'#< CLIXML\r\n<Objs Version="1.1.0.1" xmlns="http://schemas.microsoft.com/powershell/2004/04">'
    b'<S S="Error">Cannot invoke method. Method invocation is supported only on core types in this '
    b'_x000D__x000A_</S><S S="Error">language mode. &lt;x&gt; MethodInvocationNotSupportedIn'
    b"ConstrainedLanguage_x000D__x000A_</S></Objs>"
)


def test_clixml_is_told_as_words() -> None:
    words = answers.words_of(CLIXML)
    assert words.startswith("Cannot invoke method. Method")
    assert "this language mode. <x>" in words


def test_constrained_language_is_told_with_its_cure() -> None:
    with pytest.raises(Error, match="constrained language") as caught:
        answers.parse("read", b"", CLIXML, 1)
    assert "AppLocker" in caught.value.cure
