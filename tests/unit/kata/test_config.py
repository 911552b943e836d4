"""The user's file: what it may say, and what is said of what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestvirt.errors import SettingsError
from nestvirt.kata import config
from nestvirt.kata.config import KEYS, KataConfig

DEV = """
kataContainers:
  version: "3.25.0"
  k8sDistribution: "rke2"
  debug: false
  createDefaultRuntimeClass: false
  shims:
    qemu:
      enabled: true
    clh:
      enabled: false
    fc:
      enabled: false
    dragonball:
      enabled: false
"""


def read(text: str) -> KataConfig:
    return config.parse(text.encode(), "dev.yaml")


def below(text: str) -> str:
    """A file with that in kataContainers."""
    return "kataContainers:\n" + "".join(f"  {line}\n" for line in text.splitlines())


def test_the_issues_own_file(tmp_path: Path) -> None:
    path = tmp_path / "dev.yaml"
    path.write_text(DEV)
    assert config.load(path) == KataConfig("3.25.0", "rke2", False, False, ("qemu",))


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("kataContainers: {}", {}),
        ("kataContainers:", {}),
        ("other: {x: [1]}\nkataContainers: {debug: true}", {"debug": True}),
        (
            "base: &base {debug: true, version: 4.1.0}\nkataContainers: {<<: *base, version: 4.0.0}",
            {"debug": True, "version": "4.0.0"},
        ),
        (below('version: "4.1.0"'), {"version": "4.1.0"}),
        (below('version: "3.08.0"'), {"version": "3.8.0"}),
        (below("createDefaultRuntimeClass: yes"), {"default_runtime_class": True}),
        (below("k8sDistribution: microk8s"), {"distribution": "microk8s"}),
        (below("k8sDistribution:"), {"distribution": None}),
        (below("shims: {fc: {enabled: true}, clh: {enabled: true}, qemu:}"), {"shims": ("clh", "fc")}),
        (below("shims: {fc: {enabled: true}, stratovirt: {enabled: false}}"), {"shims": ("fc",)}),
        (
            below("image: {reference: registry.lab:5000/kata-deploy}"),
            {"image": "registry.lab:5000/kata-deploy"},
        ),
        (below('image: {tag: "3.25.0-ours"}'), {"image_tag": "3.25.0-ours"}),
        (below("imagePullSecrets: [mirror]"), {"pull_secrets": ("mirror",)}),
        (
            below("nodeSelector: {node.example.com/kata: 'yes', a: ''}"),
            {"node_selector": (("a", ""), ("node.example.com/kata", "yes"))},
        ),
    ],
)
def test_what_it_may_say(text: str, fields: dict[str, object]) -> None:
    assert read(text) == KataConfig(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "message", "cure"),
    [
        # keys
        ("kataContainer: {}", "no key kataContainers", "rename kataContainer to kataContainers"),
        ("qemu: {}", "no key kataContainers", "below the key kataContainers"),
        ("[]", "the file is a list, and not keys with values", "keys with values"),
        ("", "no key kataContainers", "below the key"),
        (below("versoin: '3.25.0'"), "no key 'versoin'", "write version"),
        (below("k8sdistribution: rke2"), "no key 'k8sdistribution'", "write k8sDistribution"),
        (below("createDefaultRuntimeclass: true"), "no key", "write createDefaultRuntimeClass"),
        (below("zzz: 1"), "no key 'zzz'", "remove it, or write one of: version"),
        (
            below("shims: {qemu: {enable: true}}"),
            "kataContainers.shims.qemu has no key 'enable'",
            "write enabled",
        ),
        (below("image: {ref: x}"), "kataContainers.image has no key 'ref'", "write reference"),
        (below("multiInstallSuffix: x"), "multiInstallSuffix is not supported", "remove multiInstallSuffix"),
        (below("installationPrefix: /x"), "installationPrefix is not supported", "remove"),
        # kinds
        (below("version: 3.25"), "is a number, 3.25, and not text", 'version: "3.25.0"'),
        (below("version: 4"), "is a number, 4, and not text", "in quotes"),
        (below("version: [3]"), "kataContainers.version is a list, and not text", "text in quotes"),
        (below("debug: 'false'"), "debug is the text 'false', and not true or false", "without quotes"),
        (below("debug: 1"), "kataContainers.debug is the number 1, and not", "true or false"),
        (below("shims: [qemu]"), "kataContainers.shims is a list, and not", "shims: {qemu: {enabled: true}}"),
        (below("shims: {qemu: true}"), "shims.qemu is true, and not keys with values", "{enabled: true}"),
        (below("shims: {qemu: {enabled: 'on'}}"), "shims.qemu.enabled is the text 'on'", "true or false"),
        (below("imagePullSecrets: mirror"), "is the text 'mirror', and not a list", "a list of names"),
        (
            below("imagePullSecrets: [{name: x}]"),
            "imagePullSecrets is keys with values, and not text",
            "text",
        ),
        (below("nodeSelector: {a: true}"), "nodeSelector.a is true, and not text", "text in quotes"),
        (below("nodeSelector: {'a b': x}"), "nodeSelector cannot be 'a b'", "a label's name"),
        (below("nodeSelector: [a]"), "nodeSelector is a list", "nodeSelector: {pool: kata}"),
        (below("image: {reference: 'x y'}"), "image.reference cannot be 'x y'", "an image without its tag"),
        (below("image: {reference: a.lan:5000/b:1}"), "image.reference cannot be", "below the key tag"),
        (
            below("image: quay.io:443/x/y:1"),
            "image is the text 'quay.io:443/x/y:1', and not keys",
            'image: {reference: quay.io:443/x/y, tag: "1"}',
        ),
        (
            below("image: y"),
            "image is the text 'y'",
            "image: {reference: registry.example.com/kata-deploy, tag",
        ),
        (below("image: 2026-01-02"), "image is the date 2026-01-02", "image: {reference: "),
        # values
        (below("version: v3.25.0"), "is no release", "without a v"),
        (below("version: '3.25'"), "is no release", "all three parts"),
        (below("version: 3.25.0-rc0"), "is no release", "all three parts"),
        (below("version: 3.7.0"), "Kata 3.7.0 cannot be installed", "newer"),
        (below("k8sDistribution: rancher"), "the chart would take for k8s", "told from the nodes"),
        (below("k8sDistribution: RKE2"), "k8sDistribution is the text 'RKE2'", "write rke2"),
        (below("k8sDistribution: 3"), "k8sDistribution is the number 3", "leave it out"),
        (below("shims: {quemu: {enabled: true}}"), "no shim 'quemu'", "write qemu"),
        (below("shims: {quemu: {enabled: false}}"), "no shim 'quemu'", "write qemu"),
        (below("shims: {qemu: {enabled: false}}"), "no shim is switched on", "qemu: {enabled: true}"),
        (below("shims: {}"), "no shim is switched on", "switch at least one on"),
        (
            below("version: 3.30.0\nshims: {cloud-hypervisor: {enabled: true}}"),
            "Kata 3.30.0 has no shim cloud-hypervisor",
            "use clh-runtime-rs",
        ),
        (
            below("version: 3.25.0\nshims: {clh-runtime-rs: {enabled: true}}"),
            "Kata 3.25.0 has no shim clh-runtime-rs",
            "another release",
        ),
        (below("version: 3.29.0\nshims: {qemu-cca: {enabled: true}}"), "no shim qemu-cca", "switch it off"),
        # YAML
        (below("debug: true\ndebug: false"), "no YAML that can be used", "correct"),
        (
            below("shims: {qemu: {enabled: true}, qemu: {enabled: false}}"),
            "no YAML that can be used",
            "correct",
        ),
        ("kataContainers: {", "no YAML that can be used", "correct"),
        ("kataContainers: !!python/object:os.system {}", "no YAML that can be used", "correct"),
        ("? [a, b]\n: 1\n", "no YAML that can be used", "correct"),
        ("[" * 3000, "no YAML that can be used", "correct"),
        (below("version: 2026-99-99"), "no YAML that can be used", "correct"),
        (below("debug: !!bool perhaps"), "no YAML that can be used", "correct"),
        (below("debug: !!timestamp now"), "no YAML that can be used", "correct"),
        ("a: &a {a: *a}\nb: [*a, *a]", "no YAML that can be used", "correct"),
    ],
)
def test_what_it_may_not(text: str, message: str, cure: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(text)
    assert message in caught.value.message
    assert "dev.yaml" in f"{caught.value.message} {caught.value.evidence}"
    assert cure in caught.value.cure


def test_a_duplicate_key_is_named_with_its_line() -> None:
    with pytest.raises(SettingsError) as caught:
        read(below("debug: true\nshims: {qemu: {enabled: true}}\ndebug: false"))
    assert "line 4" in caught.value.evidence
    assert "'debug' is there twice" in caught.value.evidence


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (below("debug: true\nversion: [3]"), "dev.yaml, line 3"),
        (below("shims:\n  qemu:\n    enabled: 1"), "dev.yaml, line 4"),
        (below("shims:\n  fc: {}\n  qemu: {on: 1}"), "dev.yaml, line 4: it knows: enabled"),
        (below("debug: true\nimage:\n  tag: ' '"), "dev.yaml, line 4: a character or"),
        (below("debug: true\nnodeSelector: {a.b/c: 1}"), "dev.yaml, line 3"),
        (below("x: &x {qemu: {}}\nshims: *x"), "dev.yaml, line 2: it knows"),
        ("[" * 600, "it is nested too deeply"),
        ("a: \x07", "character 4 of the file may not be in YAML"),
        (below("version: 2026-99-99"), "a date, a number or a tagged value"),
    ],
)
def test_what_is_wrong_has_its_line_and_is_in_plain_words(text: str, seen: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(text)
    assert caught.value.evidence.startswith(seen)
    assert caught.value.cure.removeprefix("write ") not in caught.value.evidence


def test_why_a_number_is_no_version() -> None:
    with pytest.raises(SettingsError) as caught:
        read(below("version: 3.30"))
    assert "is a number, 3.3," in caught.value.message
    assert "YAML reads 3.30 as 3.3" in caught.value.evidence


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_found_from_a_slip(key: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(below(f"{key[:-2]}{key[-1]}{key[-2]}x: 1"))
    assert caught.value.cure == f"write {key}"


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(SettingsError, match="cannot be read") as caught:
            config.load(path)
        assert "Errno" not in caught.value.evidence
    (tmp_path / "latin").write_bytes(b"kataContainers: {version: '\xe9'}")
    with pytest.raises(SettingsError, match="no UTF-8") as caught:
        config.load(tmp_path / "latin")
    assert caught.value.evidence == "line 1"
    (tmp_path / "large").write_bytes(b"#" * (config.MOST_BYTES + 1))
    with pytest.raises(SettingsError, match="too large"):
        config.load(tmp_path / "large")


@given(st.text(max_size=60))
def test_whatever_it_says_it_is_read_or_refused(said: str) -> None:
    for text in (said, below(said), below(f"version: {said}"), below(f"shims: {{qemu: {said}}}")):
        refusal = None
        try:
            read(text.encode("utf-8", "replace").decode())
        except SettingsError as error:
            refusal = error
        assert refusal is None or (refusal.message and refusal.cure)
