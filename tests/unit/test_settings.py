"""Which of several sources of a setting counts, and what cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from nestvirt import settings
from nestvirt.errors import SettingsError

# In order of precedence: where it is from, and how people are told.
SOURCES = ("option", "profile", "NESTVIRT_LIBVIRT_URI", "LIBVIRT_DEFAULT_URI", "defaults", "built-in")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration file's path; no variable of this machine counts."""
    for variable in ("NESTVIRT_LIBVIRT_URI", "LIBVIRT_DEFAULT_URI", "NESTVIRT_CONFIG", "NESTVIRT_STATE_DIR"):
        monkeypatch.delenv(variable, raising=False)
    for variable in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    monkeypatch.setenv("NESTVIRT_CONFIG", str(tmp_path / "config.toml"))
    (tmp_path / "config.toml").touch()
    return tmp_path / "config.toml"


def resolved(profile: str | None = None, **options: str | None) -> tuple[str, str]:
    endpoint = settings.resolve("libvirt", profile, options)
    return endpoint.values["uri"], endpoint.sources["uri"]


@pytest.mark.parametrize("first", range(len(SOURCES)), ids=SOURCES)
def test_the_first_source_counts(config: Path, monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    present = SOURCES[first:]
    file = ["[profiles.lab]", 'backend = "libvirt"']
    file += ['uri = "from:profile"'] if "profile" in present else []
    file += ["[defaults.libvirt]", 'uri = "from:defaults"'] if "defaults" in present else []
    config.write_text("\n".join(file), encoding="utf-8")
    for variable in ("NESTVIRT_LIBVIRT_URI", "LIBVIRT_DEFAULT_URI"):
        if variable in present:
            monkeypatch.setenv(variable, f"from:{variable}")
    uri, source = resolved("lab", uri="from:option" if "option" in present else None)
    winner = SOURCES[first]
    assert uri == ("qemu:///system" if winner == "built-in" else f"from:{winner}")
    assert winner in source


def test_a_profile_counts_only_where_it_is_asked_for(config: Path) -> None:
    config.write_text('[profiles.lab]\nbackend = "libvirt"\nuri = "from:profile"', encoding="utf-8")
    assert resolved()[0] == "qemu:///system"
    assert resolved("lab")[0] == "from:profile"


@pytest.mark.parametrize("variable", ["NESTVIRT_LIBVIRT_URI", "LIBVIRT_DEFAULT_URI"])
def test_an_empty_variable_is_none(config: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "")
    assert resolved() == ("qemu:///system", "the built-in default")


@pytest.mark.parametrize(
    ("file", "profile", "words"),
    [
        pytest.param(None, "lab", "no profile 'lab'", id="no file, so no profile"),
        pytest.param("[profiles.other]", "lab", "other", id="another profile"),
        pytest.param("[profiles.lab]", "lab", "not one of libvirt", id="no backend"),
        pytest.param('[profiles.lab]\nbackend = "x"', "lab", "not one of libvirt", id="another backend"),
        pytest.param(
            '[profiles.lab]\nbackend = "libvirt"\nurl = "x"\npassword = "s3cret"',
            "lab",
            "url",
            id="unknown settings",
        ),
        pytest.param('[profiles.lab]\nbackend = "libvirt"\nuri = 5', "lab", "uri", id="a number for text"),
        pytest.param("profiles = 5", "lab", "profiles", id="profiles is no table"),
        pytest.param("[profiles]\nlab = 5", "lab", "lab", id="a profile is no table"),
        pytest.param("[defaults]\nlibvirt = 5", None, "libvirt", id="defaults are no table"),
        pytest.param("[defaults.libvirt]\nuri = 5", None, "uri", id="a default of another type"),
        pytest.param('[defaults.libvrt]\nuri = "x"', None, "libvrt", id="a default of no backend"),
        pytest.param("[profiles.lab", None, "cannot be read", id="broken TOML"),
        pytest.param(b"\xff\xfe", None, "cannot be read", id="no UTF-8"),
    ],
)
def test_what_cannot_be_used(config: Path, file: str | bytes | None, profile: str | None, words: str) -> None:
    if file is not None:
        config.write_bytes(file if isinstance(file, bytes) else file.encode())
    with pytest.raises(SettingsError) as caught:
        resolved(profile)
    told = (caught.value.message, caught.value.evidence, caught.value.cure)
    assert words in f"{told[0]} {told[1]}"
    assert caught.value.cure
    assert "s3cret" not in "".join(told)


def test_a_folder_in_the_files_place_cannot_be_read(config: Path) -> None:
    config.unlink()
    config.mkdir()
    with pytest.raises(SettingsError, match="cannot be read"):
        resolved()


# --- the file's permissions


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
@pytest.mark.parametrize("table", ["defaults.proxmox", "profiles.asked-by-nobody"])
@pytest.mark.parametrize("name", ["password", "api_token", "token_secret"])
def test_a_file_with_a_secret_is_its_users_alone(config: Path, mode: int, table: str, name: str) -> None:
    config.write_text(f'[{table}]\n{name} = "s3cret"', encoding="utf-8")
    config.chmod(mode)
    with pytest.raises(SettingsError) as caught:
        resolved()
    told = f"{caught.value.message} {caught.value.evidence}"
    assert caught.value.cure == f"chmod 600 {config}"
    assert name in caught.value.evidence
    assert "s3cret" not in told
    config.chmod(0o600)
    resolved()


def test_a_file_without_a_secret_may_be_read_by_all(config: Path) -> None:
    config.write_text('[defaults.proxmox]\nusername = "root@pam"', encoding="utf-8")
    config.chmod(0o644)
    assert resolved()[0] == "qemu:///system"


# --- places


@pytest.mark.parametrize(
    ("variables", "config_path", "state_path"),
    [
        pytest.param({}, "home/.config/nestvirt/config.toml", "home/.local/state/nestvirt", id="home"),
        pytest.param(
            {"XDG_CONFIG_HOME": "xc", "XDG_STATE_HOME": "xs"},
            "xc/nestvirt/config.toml",
            "xs/nestvirt",
            id="XDG",
        ),
        pytest.param(
            {"XDG_CONFIG_HOME": "xc", "NESTVIRT_CONFIG": "my.toml", "NESTVIRT_STATE_DIR": "my state"},
            "my.toml",
            "my state",
            id="by name",
        ),
    ],
)
def test_places(
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    config_path: str,
    state_path: str,
) -> None:
    for variable in ("NESTVIRT_CONFIG", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(variable)
    for variable, place in variables.items():
        monkeypatch.setenv(variable, str(tmp_path / place))
    assert settings.config_path() == tmp_path / config_path
    assert settings.state_path() == tmp_path / state_path


def test_every_setting_has_a_variable_of_ours_first() -> None:
    for backend, known in settings.SETTINGS.items():
        for setting in known:
            if setting.negates is None:  # which has a name of ours itself
                assert setting.variables[0] == f"NESTVIRT_{backend}_{setting.name}".upper()


def test_no_option_takes_a_secret() -> None:
    known = [setting for of_one in settings.SETTINGS.values() for setting in of_one]
    assert [setting for setting in known if setting.secret]
    assert not [setting for setting in known if setting.secret and (setting.option or setting.default)]


def test_a_recorded_run_needs_no_profile_where_there_are_no_secrets(config: Path) -> None:
    config.write_text("[broken", encoding="utf-8")
    endpoint = settings.resolve("libvirt", "gone", {}, {"uri": "from:record"})
    assert endpoint.values == {"uri": "from:record"}
    assert endpoint.sources == {"uri": "the run's record"}
    endpoint = settings.resolve("libvirt", "gone", {"uri": "from:option"}, {"uri": "from:record"})
    assert endpoint.sources == {"uri": "option --connect"}


@pytest.mark.parametrize(
    ("values", "lacks"),
    [
        ({"endpoint": "https://pve1", "username": "root@pam"}, True),
        ({"endpoint": "https://pve1", "username": "root@pam", "token_id": "ci"}, True),
        ({"endpoint": "https://pve1", "username": "root@pam", "password": "p"}, False),
        ({"endpoint": "https://pve1", "username": "root@pam", "token_secret": "p"}, False),
        ({"endpoint": "https://pve1"}, False),
        ({"endpoint": "ssh://root@pve1", "username": "root@pam"}, False),
        ({"username": "root@pam"}, False),
    ],
)
def test_where_only_a_password_is_missing(values: dict[str, str], lacks: bool) -> None:
    assert settings.lacks_password("proxmox", values) is lacks
    assert not settings.lacks_password("libvirt", {"uri": "qemu:///system"})
