"""What a chart makes of the values: real helm renders stub charts with the keys of 3.24, 3.25 and 4.1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from nestvirt.kata import chart
from nestvirt.kata.config import KataConfig
from tests.lab.k8s import ControlPlane

VERSIONS = ("3.24.0", "3.25.0", "4.1.0")
each_version = pytest.mark.parametrize("version", VERSIONS)


def rendered(plane: ControlPlane, version: str, values: str, folder: Path, helm: str = "3") -> list[Any]:
    """The chart's objects, with those values."""
    path = folder / "values.yaml"
    path.write_text(values)
    words = ("template", "kata-deploy", str(plane.chart_file(version)), "-f", str(path))
    return [found for found in yaml.safe_load_all(plane.helm(*words, helm=helm)) if found]


def classes(objects: list[Any]) -> dict[str, str]:
    """RuntimeClass to handler."""
    found = [o for o in objects if o["kind"] == "RuntimeClass"]
    handlers = {o["metadata"]["name"]: o["handler"] for o in found}
    assert len(handlers) == len(found)
    return handlers


def pod_of(objects: list[Any]) -> Any:
    (daemonset,) = (o for o in objects if o["kind"] == "DaemonSet")
    return daemonset["spec"]["template"]["spec"]


def environment(objects: list[Any]) -> dict[str, str]:
    (container,) = pod_of(objects)["containers"]
    return {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}


@each_version
@pytest.mark.parametrize("helm", ["3", "4"])
def test_exactly_the_wanted_runtime_classes_appear(
    control_plane: ControlPlane, tmp_path: Path, version: str, helm: str
) -> None:
    for config in (
        KataConfig(version, shims=("qemu",)),
        KataConfig(version, shims=("clh", "fc"), default_runtime_class=True),
        KataConfig(version, shims=("qemu", "qemu-runtime-rs"), default_runtime_class=True, debug=True),
    ):
        values = chart.to_yaml(chart.values(config, "rke2"))
        objects = rendered(control_plane, version, values, tmp_path, helm)
        assert classes(objects) == chart.handlers(config)
        said = environment(objects)
        assert sorted(said["SHIMS_X86_64"].split()) == list(config.shims)
        assert said["DEFAULT_SHIM_X86_64"] == chart.default_shim(config)


@each_version
def test_the_users_own_keys_would_have_been_ignored(
    control_plane: ControlPlane, tmp_path: Path, version: str
) -> None:
    own = {
        "createDefaultRuntimeClass": False,
        "shims": {"qemu": {"enabled": True}, "clh": {"enabled": False}},
    }
    made = classes(rendered(control_plane, version, yaml.safe_dump(own), tmp_path))
    assert len(made) > 10
    assert "kata-clh" not in made


def test_what_is_left_of_a_former_form_is_overruled(control_plane: ControlPlane, tmp_path: Path) -> None:
    former = {"env": {"shims": "clh", "shims_x86_64": "fc"}}
    assert set(classes(rendered(control_plane, "3.24.0", yaml.safe_dump(former), tmp_path))) == {"kata-fc"}
    ours = chart.values(KataConfig("3.24.0"), "rke2")
    both = {**ours, "env": former["env"] | ours["env"]}
    assert set(classes(rendered(control_plane, "3.24.0", yaml.safe_dump(both), tmp_path))) == {"kata-qemu"}


@each_version
def test_where_it_goes_and_what_it_is_made_of(
    control_plane: ControlPlane, tmp_path: Path, version: str
) -> None:
    config = KataConfig(version, image="registry.lab/kata-deploy", pull_secrets=("mirror",))
    values = chart.values(config, "k3s", selector={"nestvirt.io/kvm": "works"})
    pod = pod_of(rendered(control_plane, version, chart.to_yaml(values), tmp_path))
    assert pod["nodeSelector"]["nestvirt.io/kvm"] == "works"
    assert pod["imagePullSecrets"] == [{"name": "mirror"}]
    assert pod["containers"][0]["image"] == f"registry.lab/kata-deploy:{version}"
    mounted = [v["hostPath"]["path"].rstrip("/") for v in pod["volumes"] if "hostPath" in v]
    assert chart.containerd_directory("k3s") in mounted


def test_the_guests_time_reaches_the_chart(control_plane: ControlPlane, tmp_path: Path) -> None:
    config = KataConfig("4.1.0", shims=("qemu", "qemu-runtime-rs"))
    objects = rendered(control_plane, "4.1.0", chart.to_yaml(chart.values(config, "k8s")), tmp_path)
    parts = [text for o in objects if o["kind"] == "ConfigMap" for text in o["data"].values()]
    assert [text for text in parts if "reconnect_timeout_ms = 45000" in text]
