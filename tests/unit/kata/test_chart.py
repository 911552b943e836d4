"""The translation into the chart's own values: each generation of them, as tables."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
import yaml

from nestvirt.errors import SettingsError
from nestvirt.kata import chart, shims
from nestvirt.kata.config import DISTRIBUTIONS, KataConfig
from nestvirt.model import Finding, Status

RELEASES = [
    "3.8.0",
    "3.20.0",
    "3.22.0",
    "3.23.0",
    "3.25.0",
    "3.26.0",
    "3.29.1",
    "3.32.0",
    "4.0.2",
    "4.1.0",
    "4.2.0",
]
LEGACY = ("shims", "defaultShim")


def of(version: str, *names: str, **fields: Any) -> KataConfig:
    return KataConfig(version, shims=names or ("qemu",), **fields)


def values_of(config: KataConfig, distribution: str | None = "rke2", **kwargs: Any) -> dict[str, Any]:
    return chart.values(config, distribution, **kwargs)


def switched_on(values: dict[str, Any], release: shims.Release) -> set[str]:
    """What the chart of that release makes of the values: its own rule, over all shims that it has."""
    if "shims" not in values:
        return set(values["env"]["shims"].split())
    given = values["shims"]
    for name in shims.of(release):  # those that its values.yaml has, and what it says of them
        if release < (3, 26):
            given = {name: {"enabled": name != "remote"}, **given}
        else:
            given = {name: {"enabled": False if name == "remote" else None}, **given}
    everything_off = given.get("disableAll", False)
    return {
        name
        for name, shim in given.items()
        if name != "disableAll"
        and (shim["enabled"] is True or (shim["enabled"] is None and not everything_off))
    }


# --- the guarantee


@pytest.mark.parametrize("version", RELEASES)
def test_exactly_the_wanted_shims_are_on(version: str) -> None:
    names = shims.of(of(version).release)
    wanted = [*((name,) for name in names), *combinations(("clh", "fc", "qemu"), 2), names]
    for on in wanted:
        config = of(version, *sorted(on))
        values = values_of(config)
        assert switched_on(values, config.release) == set(on)
        assert chart.runtime_classes(config) == tuple(sorted(f"kata-{name}" for name in on))


@pytest.mark.parametrize("version", RELEASES)
def test_the_default_shim_is_one_that_is_on(version: str) -> None:
    for on in (("qemu",), ("clh",), ("fc", "qemu"), ("dragonball", "qemu-runtime-rs")):
        config = of(version, *on)
        values = values_of(config)
        env = values.get("env", {})
        defaults = [
            *values.get("defaultShim", {}).values(),
            *(v for k, v in env.items() if k.startswith("defaultShim") and v),
        ]
        assert defaults
        assert set(defaults) <= set(on)
        if "defaultShim" in values:
            assert set(values["defaultShim"]) == set(shims.ARCHES)


@pytest.mark.parametrize(
    ("version", "on", "arch", "default"),
    [
        ("3.25.0", ("qemu", "qemu-runtime-rs"), "amd64", "qemu"),
        ("4.0.0", ("qemu", "qemu-runtime-rs"), "amd64", "qemu-runtime-rs"),
        ("4.1.0", ("qemu", "qemu-runtime-rs"), "ppc64le", "qemu"),
        ("4.2.0", ("qemu", "qemu-runtime-rs"), "ppc64le", "qemu-runtime-rs"),
        ("4.1.0", ("qemu",), "amd64", "qemu"),
        ("3.25.0", ("clh", "fc"), "amd64", "clh"),
        ("3.25.0", ("clh", "qemu"), "s390x", "qemu"),
        ("3.25.0", ("clh",), "s390x", "clh"),
        ("3.28.0", ("clh", "qemu-se"), "arm64", "clh"),
        ("9.9.9", ("qemu",), "amd64", "qemu"),
    ],
)
def test_which_shim_is_the_default(version: str, on: tuple[str, ...], arch: str, default: str) -> None:
    assert chart.default_shim(of(version, *on), arch) == default


# --- each generation


def test_as_text_in_env() -> None:
    assert values_of(of("3.8.0", "fc", "qemu", debug=True, default_runtime_class=True), "k3s") == {
        "k8sDistribution": "k3s",
        "env": {
            "debug": "true",
            "shims": "fc qemu",
            "defaultShim": "qemu",
            "createRuntimeClasses": "true",
            "createDefaultRuntimeClass": "true",
            "snapshotterHandlerMapping": "fc:devmapper",
        },
    }


def test_for_each_architecture_in_env() -> None:
    env = values_of(of("3.22.0", "clh", "qemu-se"))["env"]
    assert env["shims"] == "clh qemu-se"
    assert [env[f"shims_{arch}"] for arch in ("x86_64", "aarch64", "s390x", "ppc64le")] == [
        "clh",
        "clh",
        "qemu-se",
        "",
    ]
    assert env["defaultShim_s390x"] == "qemu-se"
    assert env["createDefaultRuntimeClass"] == env["debug"] == "false"


@pytest.mark.parametrize("version", ["3.23.0", "3.24.0"])
def test_what_is_left_in_env_is_emptied_as_it_goes_first(version: str) -> None:
    env = values_of(of(version))["env"]
    arches = ("", "_x86_64", "_aarch64", "_s390x", "_ppc64le")
    assert env == {f"{key}{arch}": "" for key in LEGACY for arch in arches}


def test_the_issues_own_values() -> None:
    values = values_of(of("3.25.0"))
    assert values.pop("shims") == {name: {"enabled": name == "qemu"} for name in shims.of((3, 25))}
    assert values == {
        "k8sDistribution": "rke2",
        "debug": False,
        "snapshotter": {"setup": []},
        "defaultShim": dict.fromkeys(shims.ARCHES, "qemu"),
        "runtimeClasses": {"enabled": True, "createDefault": False, "defaultName": "kata"},
    }


def test_the_shims_of_3_25_are_those_of_its_chart() -> None:
    assert set(shims.of((3, 25))) == {
        *("clh", "cloud-hypervisor", "dragonball", "fc", "qemu", "qemu-runtime-rs", "remote"),
        *("qemu-nvidia-gpu", "qemu-nvidia-gpu-snp", "qemu-nvidia-gpu-tdx", "qemu-snp", "qemu-tdx"),
        *("qemu-se", "qemu-se-runtime-rs", "qemu-cca", "qemu-coco-dev", "qemu-coco-dev-runtime-rs"),
    }


def test_the_number_of_shims_of_4_1_is_that_of_its_chart() -> None:
    assert len(shims.of((4, 1))) == 26


@pytest.mark.parametrize("version", ["3.26.0", "3.31.0"])
def test_all_off_but_those_named(version: str) -> None:
    assert values_of(of(version, "clh", "qemu"))["shims"] == {
        "disableAll": True,
        "clh": {"enabled": True},
        "qemu": {"enabled": True},
    }


@pytest.mark.parametrize("version", ["3.32.0", "4.1.0"])
def test_runtime_rs_waits_longer_for_a_guest(version: str) -> None:
    found = values_of(of(version, "dragonball", "qemu", "qemu-runtime-rs"))
    assert found["deploymentMode"] == "daemonset"
    assert found["shims"]["qemu"] == {"enabled": True}
    drop_in = {"enabled": True, "dropIn": "[agent.kata]\nreconnect_timeout_ms = 45000\n"}
    assert found["shims"]["qemu-runtime-rs"] == found["shims"]["dragonball"] == drop_in


@pytest.mark.parametrize("version", ["4.2.0", "4.3.0", "9.0.0"])
def test_all_is_said_where_the_chart_has_no_values_for_it(version: str) -> None:
    found = values_of(of(version, "fc", "qemu"))["shims"]
    assert found["fc"] == {
        "enabled": True,
        "supportedArches": ["amd64"],
        "containerd": {"snapshotter": "devmapper"},
    }
    assert found["qemu"]["supportedArches"] == list(shims.ARCHES)


def test_nydus_is_set_up_for_what_needs_it_alone() -> None:
    assert values_of(of("3.25.0", "qemu", "qemu-coco-dev"))["snapshotter"] == {"setup": ["nydus"]}
    assert values_of(of("3.29.0", "fc", "qemu"))["snapshotter"] == {"setup": []}


@pytest.mark.parametrize("version", RELEASES)
def test_what_all_releases_have(version: str) -> None:
    config = of(version, image="registry.lab/kata-deploy", image_tag="x", pull_secrets=("mirror",))
    values = values_of(config, "k0s")
    assert values["k8sDistribution"] == "k0s"
    assert values["image"] == {"reference": "registry.lab/kata-deploy", "tag": "x"}
    assert values["imagePullSecrets"] == [{"name": "mirror"}]
    assert "nodeSelector" not in values
    assert "image" not in values_of(of(version))
    assert values_of(replace(config, image=""))["image"] == {"tag": "x"}


def test_a_selection_of_nodes() -> None:
    config = of("3.25.0", node_selector=(("pool", "kata"),))
    assert values_of(config)["nodeSelector"] == {"pool": "kata"}
    selected = values_of(config, selector={"nestvirt.io/kvm": "works"})["nodeSelector"]
    assert selected == {"pool": "kata", "nestvirt.io/kvm": "works"}


def test_a_selection_that_the_chart_would_ignore_is_refused() -> None:
    for config, selector in (
        (of("3.19.0"), {"a": "b"}),
        (of("3.8.0", node_selector=(("a", "b"),)), None),
    ):
        with pytest.raises(SettingsError, match="on all nodes or none"):
            values_of(config, selector=selector)


# --- RuntimeClasses


@pytest.mark.parametrize(
    ("config", "handlers"),
    [
        (of("3.25.0"), {"kata-qemu": "kata-qemu"}),
        (of("3.25.0", debug=True), {"kata-qemu": "kata-qemu"}),
        (
            of("3.25.0", "clh", "qemu", default_runtime_class=True),
            {"kata": "kata-qemu", "kata-clh": "kata-clh", "kata-qemu": "kata-qemu"},
        ),
        (
            of("4.1.0", "qemu-runtime-rs", debug=True, default_runtime_class=True),
            {
                "kata": "kata-qemu-runtime-rs",
                "kata-qemu-runtime-rs": "kata-qemu-runtime-rs",
                "kata-qemu-runtime-rs-debug": "kata-qemu-runtime-rs-debug",
            },
        ),
    ],
)
def test_which_runtime_classes_there_have_to_be(config: KataConfig, handlers: dict[str, str]) -> None:
    assert chart.handlers(config) == handlers
    assert chart.runtime_classes(config) == tuple(handlers)


def test_who_makes_them() -> None:
    assert not chart.renders_runtime_classes(of("3.22.0"))
    assert chart.renders_runtime_classes(of("3.23.0"))


# --- YAML


def test_shown_values_are_the_values() -> None:
    for version in RELEASES:
        config = of(version, "qemu-runtime-rs", distribution="k3s", debug=True)
        assert yaml.safe_load(chart.show_values(config)) == values_of(config, "k3s")


def test_shown_values_say_what_a_cluster_is_needed_for() -> None:
    text = chart.show_values(of("3.25.0"))
    assert text.startswith(
        "# Values of the kata-deploy chart 3.25.0\n# k8sDistribution is told from the nodes\n"
    )
    assert "k8sDistribution" not in yaml.safe_load(text)


def test_longer_text_is_shown_as_it_is_read() -> None:
    assert "    dropIn: |\n      [agent.kata]\n" in chart.show_values(of("4.1.0", "qemu-runtime-rs"))


# --- the distribution


@pytest.mark.parametrize(
    ("version", "distribution"),
    [
        ("v1.30.6+rke2r1", "rke2"),
        ("v1.31.2+k3s1", "k3s"),
        ("v1.30.0+k0s", "k0s"),
        ("v1.30.6", None),
        ("v1.30.6-eks-a1b2", None),
        ("", None),
    ],
)
def test_what_a_kubelet_tells(version: str, distribution: str | None) -> None:
    assert chart.distribution_of(version) == distribution


RKE2, K3S, PLAIN = "v1.30.6+rke2r1", "v1.31.2+k3s1", "v1.30.6"


@pytest.mark.parametrize(
    ("wanted", "kubelets", "distribution", "status", "words"),
    [
        (None, [RKE2, RKE2], "rke2", Status.PASS, "w0 runs v1.30.6+rke2r1"),
        ("rke2", [RKE2], "rke2", Status.PASS, "rke2"),
        (None, [PLAIN], "k8s", Status.PASS, "k8s"),
        ("microk8s", [PLAIN], "microk8s", Status.PASS, "microk8s"),
        ("k3s", [], "k3s", Status.UNKNOWN, "no node"),
        ("k8s", [RKE2], "k8s", Status.FAIL, "k8sDistribution is k8s, and the nodes are rke2"),
        ("rke2", [PLAIN], "rke2", Status.FAIL, "the nodes are k8s"),
        ("rke2", [K3S], "rke2", Status.FAIL, "the nodes are k3s"),
        (None, [RKE2, K3S], "k8s", Status.FAIL, "one distribution for all nodes"),
        ("rke2", [RKE2, PLAIN], "rke2", Status.FAIL, "one distribution for all nodes"),
    ],
)
def test_the_nodes_distribution(
    wanted: str | None, kubelets: list[str], distribution: str, status: Status, words: str
) -> None:
    nodes = {f"w{number}": version for number, version in enumerate(kubelets)}
    told, found = chart.judge_distribution(KataConfig(distribution=wanted), nodes)
    assert (told, found.check, found.status) == (distribution, "cluster-distribution", status)
    assert words in found.evidence
    assert bool(found.cure) is found.ill


def test_each_distribution_has_its_directory() -> None:
    for distribution in DISTRIBUTIONS:
        directory = chart.containerd_directory(distribution)
        assert directory.startswith("/")
        assert not directory.endswith("/")


# --- what is said of the shims


def said(config: KataConfig, nested: bool | None = None) -> list[Finding]:
    found = list(chart.warnings(config, nested=nested))
    assert found
    assert {f.check for f in found} == {"cluster-shims"}
    assert all(bool(f.cure) is f.ill for f in found)
    return found


@pytest.mark.parametrize(
    ("config", "nested", "status", "words"),
    [
        (of("3.25.0"), True, Status.PASS, "qemu: known for Kata 3.25.0"),
        (of("3.25.0", "clh"), True, Status.WARN, "where the node is itself a VM"),
        (of("3.25.0", "clh"), None, Status.WARN, "where the node is itself a VM"),
        (of("3.25.0", "clh"), False, Status.PASS, "clh"),
        (of("3.25.0", "fc"), True, Status.WARN, "devmapper"),
        (of("3.32.0", "dragonball"), True, Status.WARN, "experimental"),
        (of("3.25.0", "qemu-runtime-rs"), True, Status.WARN, "3 s to answer"),
        (of("3.25.0", "qemu-runtime-rs"), False, Status.PASS, "qemu-runtime-rs"),
        (of("3.32.0", "qemu-runtime-rs"), True, Status.PASS, "qemu-runtime-rs"),
        (of("3.25.0", "qemu-snp"), True, Status.FAIL, "confidential"),
        (of("3.25.0", "qemu-snp"), False, Status.WARN, "confidential"),
        (of("3.25.0", "qemu-coco-dev"), True, Status.WARN, "without the hardware"),
        (of("3.25.0", "remote"), None, Status.FAIL, "peer pods"),
        (of("4.1.0", "clh-azure"), None, Status.FAIL, "/dev/mshv"),
        (of("4.1.0", "qemu-nvidia-gpu"), None, Status.WARN, "NVIDIA"),
        (of("4.3.0"), None, Status.WARN, "newer than what is known here, and gets the values of 4.2"),
        (of("5.0.0"), None, Status.WARN, "newer"),
    ],
)
def test_what_is_said_of_a_shim(config: KataConfig, nested: bool | None, status: Status, words: str) -> None:
    (found,) = said(config, nested)
    assert found.status is status
    assert words in found.evidence


def test_what_the_chart_keeps_apart_is_refused() -> None:
    found = said(of("4.2.0", "qemu-nvidia-gpu"), False)
    assert [f.status for f in found] == [Status.WARN, Status.FAIL]
    assert "in a file apart" in found[1].evidence


def test_every_shim_has_its_table_right() -> None:
    for name, shim in shims.SHIMS.items():
        assert shim.on(max(shim.since, shims.FIRST)), name
        assert list(shim.arches) == sorted(shim.arches), name
        assert shim.gone is None or shim.gone > shim.since, name
        assert not shim.successor or shim.successor in shims.of(shim.gone or shims.NEWEST), name
        assert not shim.needs or shim.needs in shims.NEEDS, name
