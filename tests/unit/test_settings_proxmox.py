"""Proxmox's settings: credentials of one source, flags, the keyring, and that no secret is ever shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import keyring
import keyring.backend
import keyring.backends.fail
import pytest

from nestvirt import settings
from nestvirt.errors import SettingsError

URL = "https://pve1.example.com:8006"
SECRET = "s3cret"  # noqa: S105 - not one
VARIABLES = [v for known in settings.SETTINGS.values() for s in known for v in s.variables]
NAMES = ["NESTVIRT_PROXMOX_ENDPOINT", "PROXMOX_VE_ENDPOINT", "PROXMOX_URL", "PROXMOX_HOST"]


class Memory(keyring.backend.KeyringBackend):
    """A keyring that forgets; ``asked`` has the users that it was asked for."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held: dict[str, str] = {}
        self.asked: list[str] = []

    def get_password(self, service: str, username: str) -> str | None:
        assert service == "nestvirt"
        self.asked.append(username)
        return self.held.get(username)

    def set_password(self, service: str, username: str, password: str) -> None:
        self.held[username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.held[username]


@pytest.fixture(autouse=True)
def ring() -> Iterator[Memory]:
    """An empty keyring in the place of the user's own."""
    before, ring = keyring.get_keyring(), Memory()
    keyring.set_keyring(ring)
    yield ring
    keyring.set_keyring(before)


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty configuration file that is its user's alone; no variable of this machine counts."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    path = tmp_path / "config.toml"
    path.touch(mode=0o600)
    monkeypatch.setenv("NESTVIRT_CONFIG", str(path))
    return path


def environment(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def resolved(profile: str | None = None, **options: str | None) -> settings.Endpoint:
    return settings.resolve("proxmox", profile, options)


def words(error: SettingsError) -> str:
    return f"{error.message} {error.evidence} {error.cure}"


def test_without_anything_nothing_is_known() -> None:
    assert (resolved().values, resolved().sources) == ({}, {})


@pytest.mark.parametrize("first", range(len(NAMES)), ids=NAMES)
def test_the_endpoint_has_names_in_an_order(monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    for name in NAMES[first:]:
        monkeypatch.setenv(name, f"https://{name}")
    endpoint = resolved()
    assert endpoint.values == {"endpoint": f"https://{NAMES[first]}"}
    assert endpoint.sources == {"endpoint": NAMES[first]}


def test_an_option_is_told_by_its_own_name() -> None:
    sources = resolved(ca_file="ca.pem", node_ssh="root@pve1", endpoint=URL).sources
    assert sources["ca_file"] == "option --ca-file"
    assert sources["node_ssh"] == "option --node-ssh"
    assert sources["endpoint"] == "option --connect"


# --- credentials


@pytest.mark.parametrize(
    ("file", "variables", "left"),
    [
        pytest.param(
            "",
            {"PROXMOX_PASSWORD": "p", "PROXMOX_TOKEN_ID": "i", "PROXMOX_TOKEN_SECRET": "s"}
            | {"PROXMOX_VE_API_TOKEN": "t"},
            {"api_token": "t"},
            id="of one source, the API token",
        ),
        pytest.param(
            "",
            {"PROXMOX_PASSWORD": "p", "PROXMOX_TOKEN_ID": "i", "PROXMOX_TOKEN_SECRET": "s"},
            {"token_id": "i", "token_secret": "s"},
            id="then the token in two parts",
        ),
        pytest.param(
            "",
            {"PROXMOX_PASSWORD": "p", "PROXMOX_TOKEN_SECRET": "s"},
            {"password": "p"},
            id="half a token is none",
        ),
        pytest.param(
            "", {"PROXMOX_TOKEN_SECRET": "s"}, {"token_secret": "s"}, id="half a token alone is told"
        ),
        pytest.param(
            '[profiles.lab]\nbackend = "proxmox"\npassword = "p"',
            {"PROXMOX_VE_API_TOKEN": "stray", "NESTVIRT_PROXMOX_API_TOKEN": "stray"},
            {"password": "p"},
            id="a profile's password before a stray token",
        ),
        pytest.param(
            '[profiles.lab]\nbackend = "proxmox"\n[defaults.proxmox]\napi_token = "t"',
            {"PROXMOX_PASSWORD": "p"},
            {"password": "p"},
            id="a variable before the defaults",
        ),
        pytest.param(
            '[profiles.lab]\nbackend = "proxmox"',
            {"NESTVIRT_PROXMOX_PASSWORD": "p", "PROXMOX_VE_API_TOKEN": "t"},
            {"password": "p"},
            id="our variables before others",
        ),
        pytest.param(
            '[profiles.lab]\nbackend = "proxmox"\ntoken_id = "root@pam!ci"',
            {"PROXMOX_TOKEN_SECRET": "s"},
            {"token_id": "root@pam!ci", "token_secret": "s"},
            id="a token's name in the profile, its secret in a variable",
        ),
        pytest.param(
            '[profiles.lab]\nbackend = "proxmox"\nusername = "root@pam"\napi_token = "t"',
            {"PROXMOX_USER": "other@pve", "PROXMOX_PASSWORD": "p"},
            {"username": "root@pam", "api_token": "t"},
            id="all of a profile",
        ),
    ],
)
def test_credentials_are_of_one_source(
    config: Path, monkeypatch: pytest.MonkeyPatch, file: str, variables: dict[str, str], left: dict[str, str]
) -> None:
    config.write_text(file, encoding="utf-8")
    environment(monkeypatch, **variables)
    endpoint = resolved("lab" if "lab" in file else None)
    assert endpoint.values == left
    assert set(endpoint.sources) == set(left)


# --- flags and numbers


@pytest.mark.parametrize(
    ("file", "option", "variables", "source"),
    [
        pytest.param("", None, {}, None, id="nobody said so"),
        pytest.param("", "true", {}, "option --insecure", id="the option"),
        pytest.param("", None, {"PROXMOX_VE_INSECURE": "YES"}, "PROXMOX_VE_INSECURE", id="a variable"),
        pytest.param("", None, {"PROXMOX_VE_INSECURE": "0"}, None, id="a variable says no"),
        pytest.param(
            "", None, {"PROXMOX_VERIFY_SSL": "false"}, "PROXMOX_VERIFY_SSL", id="the opposite says no"
        ),
        pytest.param("", None, {"PROXMOX_VALIDATE_CERTS": "true"}, None, id="the opposite says yes"),
        pytest.param(
            "",
            None,
            {"PROXMOX_VALIDATE_CERTS": "true", "PROXMOX_VE_INSECURE": "1"},
            "PROXMOX_VE_INSECURE",
            id="of one source, its own name",
        ),
        pytest.param(
            "",
            None,
            {"NESTVIRT_PROXMOX_INSECURE": "no", "PROXMOX_VALIDATE_CERTS": "no"},
            None,
            id="ours says that it is not",
        ),
        pytest.param(
            "insecure = true", None, {"PROXMOX_VALIDATE_CERTS": "1"}, None, id="a variable before the file"
        ),
        pytest.param("insecure = true", None, {}, "[defaults.proxmox]", id="the file"),
        pytest.param("validate_certs = false", None, {}, "[defaults.proxmox]", id="the file's opposite"),
        pytest.param('insecure = "1"', None, {}, "[defaults.proxmox]", id="the file, as text"),
        pytest.param("insecure = false", "true", {}, "option --insecure", id="the option before the file"),
    ],
)
def test_insecure_is_true_or_not_there(
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    option: str | None,
    variables: dict[str, str],
    source: str | None,
) -> None:
    config.write_text(f"[defaults.proxmox]\n{file}", encoding="utf-8")
    environment(monkeypatch, **variables)
    endpoint = resolved(insecure=option)
    assert endpoint.values == ({} if source is None else {"insecure": "true"})
    assert endpoint.sources.get("insecure", "").startswith(source or "")
    assert set(endpoint.sources) == set(endpoint.values)


@pytest.mark.parametrize(
    ("given", "path"),
    [("/etc/ca.pem", "/etc/ca.pem"), ("ca.pem", "here/ca.pem"), ("~/ca.pem", "mine/ca.pem")],
)
def test_a_path_holds_in_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, path: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "mine"))
    assert resolved(ca_file=given).values == {"ca_file": str(tmp_path / path)}


@pytest.mark.parametrize("port", ["8007", '"8007"'])
def test_a_port_may_be_a_number(config: Path, port: str) -> None:
    config.write_text(f"[defaults.proxmox]\nport = {port}", encoding="utf-8")
    assert resolved().values == {"port": "8007"}


@pytest.mark.parametrize(
    ("file", "variables", "name"),
    [
        ("", {"PROXMOX_VE_INSECURE": SECRET}, "PROXMOX_VE_INSECURE"),
        ("", {"PROXMOX_VALIDATE_CERTS": SECRET}, "PROXMOX_VALIDATE_CERTS"),
        ("insecure = 1", {}, "insecure"),
        (f'insecure = "{SECRET}"', {}, "insecure"),
        ("port = true", {}, "port"),
        ("port = 1.5", {}, "port"),
        ("password = 53", {}, "password"),
        (f'api_token = ["{SECRET}"]', {}, "api_token"),
        ("username = true", {}, "username"),
        (f"password = {SECRET}", {}, "no TOML at line 2"),
        (f"{SECRET} = 1\n{SECRET} = 2", {}, "no TOML at"),
        (f"{SECRET}", {}, "no TOML at"),
        (f'password = "{SECRET}\\q"', {}, "no TOML at line 2"),
    ],
)
def test_what_cannot_be_used_is_named_and_not_shown(
    config: Path, monkeypatch: pytest.MonkeyPatch, file: str, variables: dict[str, str], name: str
) -> None:
    config.write_text(f"[defaults.proxmox]\n{file}", encoding="utf-8")
    environment(monkeypatch, **variables)
    with pytest.raises(SettingsError) as caught:
        resolved()
    assert name in words(caught.value)
    assert SECRET not in words(caught.value)
    assert SECRET not in str(caught.value.__cause__)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert caught.value.cure


def test_a_value_is_not_shown_with_its_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, PROXMOX_VE_API_TOKEN=SECRET)
    assert resolved().values == {"api_token": SECRET}
    assert SECRET not in repr(resolved())


# --- the keyring


@pytest.mark.parametrize(
    ("held", "profile", "username", "left", "asked"),
    [
        pytest.param({}, None, None, {}, ["proxmox:api_token"], id="nothing, and no user"),
        pytest.param({}, None, "u@pam", {}, ["proxmox:api_token", "proxmox:password"], id="nothing"),
        pytest.param(
            {"proxmox:api_token": "t", "proxmox:password": "p"},
            None,
            "u@pam",
            {"api_token": "t"},
            ["proxmox:api_token"],
            id="the token first",
        ),
        pytest.param(
            {"proxmox:password": "p"},
            None,
            "u@pam",
            {"password": "p"},
            ["proxmox:api_token", "proxmox:password"],
            id="a password",
        ),
        pytest.param(
            {"proxmox:api_token": "another's", "proxmox@lab:api_token": "t"},
            "lab",
            None,
            {"api_token": "t"},
            ["proxmox@lab:api_token"],
            id="a profile's own",
        ),
    ],
)
def test_the_keyring_is_asked_last(
    config: Path,
    ring: Memory,
    held: dict[str, str],
    profile: str | None,
    username: str | None,
    left: dict[str, str],
    asked: list[str],
) -> None:
    config.write_text('[profiles.lab]\nbackend = "proxmox"', encoding="utf-8")
    ring.held = held
    endpoint = resolved(profile, endpoint=URL, username=username)
    for name in ("endpoint", "username"):
        left = left | ({name: endpoint.values[name]} if name in endpoint.values else {})
    assert endpoint.values == left
    assert ring.asked == asked
    assert {endpoint.sources[name] for name in ("api_token", "password") if name in left} <= {"the keyring"}


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        pytest.param({"PROXMOX_PASSWORD": "p"}, URL, id="a secret is known"),
        pytest.param({"PROXMOX_TOKEN_SECRET": "p"}, URL, id="half a token is known"),
        pytest.param({}, None, id="no address"),
        pytest.param({}, "local", id="this machine"),
        pytest.param({}, "ssh://root@pve1", id="SSH"),
        pytest.param({}, "http://pve1", id="no TLS"),
    ],
)
def test_the_keyring_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, ring: Memory, variables: dict[str, str], address: str | None
) -> None:
    environment(monkeypatch, **variables)
    resolved(endpoint=address, username="root@pam")
    assert ring.asked == []


@pytest.mark.parametrize("address", [URL, "HTTPS://pve1", "pve1.example.com", "pve1:8006"])
def test_a_mere_host_is_one_of_https(ring: Memory, address: str) -> None:
    ring.held = {"proxmox:api_token": "t"}
    assert resolved(endpoint=address).values["api_token"] == "t"  # noqa: S105


def test_no_keyring_is_no_secret() -> None:
    keyring.set_keyring(keyring.backends.fail.Keyring())  # type: ignore[no-untyped-call]
    assert resolved(endpoint=URL, username="root@pam").values == {"endpoint": URL, "username": "root@pam"}


def test_a_tokens_name_does_without_its_secret_in_the_keyring(
    monkeypatch: pytest.MonkeyPatch, ring: Memory
) -> None:
    environment(monkeypatch, PROXMOX_TOKEN_ID="ci")  # noqa: S106
    ring.held = {"proxmox:api_token": "t"}
    assert resolved(endpoint=URL).values == {"endpoint": URL, "api_token": "t"}


# --- a recorded run


def test_a_recorded_run_gets_its_secrets_anew(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text(
        f'[profiles.lab]\nbackend = "proxmox"\nendpoint = "{URL}/"\napi_token = "{SECRET}"',
        encoding="utf-8",
    )
    environment(monkeypatch, PROXMOX_CA_PATH="other.pem", PROXMOX_PORT="8007", PROXMOX_VE_API_TOKEN="t")  # noqa: S106
    recorded = {"endpoint": URL, "ca_file": "ca.pem", "insecure": "true"}
    endpoint = settings.resolve("proxmox", "lab", {"ca_file": "new.pem"}, recorded)
    assert endpoint.values == {
        "endpoint": URL,
        "ca_file": str(Path.cwd() / "new.pem"),
        "port": "8007",
        "api_token": SECRET,
    }
    assert endpoint.sources["endpoint"] == "the run's record"
    assert endpoint.sources["ca_file"] == "option --ca-file"


def test_a_recorded_run_asks_the_keyring_of_its_own_address(ring: Memory) -> None:
    ring.held = {"proxmox:api_token": "t"}
    assert "api_token" in settings.resolve("proxmox", None, {}, {"endpoint": URL}).values
    ring.asked.clear()
    settings.resolve("proxmox", None, {}, {"endpoint": "ssh://root@pve1"})
    assert ring.asked == []


def test_a_recorded_run_needs_its_profile_for_its_secrets() -> None:
    with pytest.raises(SettingsError, match="no profile 'lab'"):
        settings.resolve("proxmox", "lab", {}, {"endpoint": URL})
