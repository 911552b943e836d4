"""The kata-deploy chart: its own values for each release, and what an installation by them looks like.

The chart has no schema for its values: what it does not know, it ignores. And its keys mean something else
every few releases; ``GENERATIONS`` says what changed when. Read in values.yaml, templates/_helpers.tpl and
templates/runtimeclasses.yaml of kata-containers' tools/packaging/kata-deploy/helm-chart/kata-deploy, at
commits between 3.8 and 4.2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from nestvirt.errors import SettingsError
from nestvirt.kata import shims
from nestvirt.kata.config import KataConfig
from nestvirt.kata.shims import NEWEST, SHIMS, Release
from nestvirt.model import Finding, Layer, Status

CHART = "oci://ghcr.io/kata-containers/kata-deploy-charts/kata-deploy"
"""Where the chart is published, from release 3.12 on."""

DEFAULT_RUNTIME_CLASS = "kata"
GUEST_TIMEOUT_MS = 45_000
"""What runtime-rs is to give a guest to answer in: as much as the Go runtime gives. Its own 3 s are too short
for a guest that boots in a VM on a VM."""

STRINGS: Release = (3, 8)
NODE_SELECTOR: Release = (3, 20)
PER_ARCH: Release = (3, 22)
STRUCTURED: Release = (3, 23)
NO_STRINGS: Release = (3, 25)
DISABLE_ALL: Release = (3, 26)
DROP_IN: Release = (3, 32)
DEBUG_CLASSES: Release = (4, 1)
PROFILES: Release = (4, 2)
GENERATIONS: dict[Release, str] = {
    STRINGS: "all in env, as text: env.shims, env.debug …; kata-deploy's pods make the RuntimeClasses",
    NODE_SELECTOR: "nodeSelector",
    PER_ARCH: "env.shims_x86_64, env.defaultShim_x86_64 and so on, which go before env.shims",
    STRUCTURED: "shims.NAME.enabled, on by default; the chart makes the RuntimeClasses; env goes first",
    NO_STRINGS: "nothing of that is left in env",
    DISABLE_ALL: "shims.disableAll switches off what is not named",
    DROP_IN: "shims.NAME.dropIn, a part of Kata's configuration; deploymentMode",
    DEBUG_CLASSES: "debug makes a further RuntimeClass kata-NAME-debug for each shim",
    PROFILES: "fc, and what needs special hardware, has no values any more: all of it has to be said",
}
"""The first release of each form of the values, and what is new in it."""

_DIRECTORIES = {
    "k8s": "/etc/containerd",
    "k3s": "/var/lib/rancher/k3s/agent/etc/containerd",
    "rke2": "/var/lib/rancher/rke2/agent/etc/containerd",
    "k0s": "/etc/k0s",
    "microk8s": "/var/snap/microk8s/current/args",
}
_SUFFIX = re.compile(r"\+(rke2|k3s|k0s)")
_LEGACY = ("shims", "defaultShim")


def values(
    config: KataConfig, distribution: str | None, *, selector: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The chart's own values for that release: exactly the shims that are wanted, and no other.

    Args:
        distribution: what the nodes are; None leaves it out, where there is no cluster to tell it from.
        selector: labels that a node needs to have, beside those of the configuration.

    Raises:
        SettingsError: the chart of that release cannot do it.
    """
    release = min(config.release, NEWEST)
    result: dict[str, Any] = {"k8sDistribution": distribution} if distribution else {}
    if config.image or config.image_tag:
        image = {"reference": config.image, "tag": config.image_tag}
        result["image"] = {key: value for key, value in image.items() if value}
    if config.pull_secrets:
        result["imagePullSecrets"] = [{"name": name} for name in config.pull_secrets]
    labels = dict(config.node_selector) | dict(selector or {})
    if labels and release < NODE_SELECTOR:
        raise SettingsError(
            f"the chart of Kata {config.version} installs on all nodes or none",
            evidence=f"it has no nodeSelector, which would be {', '.join(sorted(labels))}",
            cure="choose 3.20.0 or newer",
        )
    if labels:
        result["nodeSelector"] = labels
    form = _structured if release >= STRUCTURED else _strings
    return result | form(config, release)


def _strings(config: KataConfig, release: Release) -> dict[str, Any]:
    """All in ``env``, and all of it text: the chart hands it to kata-deploy's pods as it is."""
    env = {
        "debug": _word(config.debug),
        "shims": " ".join(config.shims),
        "defaultShim": default_shim(config),
        "createRuntimeClasses": "true",
        "createDefaultRuntimeClass": _word(config.default_runtime_class),
        "snapshotterHandlerMapping": ",".join(
            f"{name}:{SHIMS[name].snapshotter}"
            for name in config.shims
            if SHIMS[name].snapshotter == "devmapper"
        ),
    }
    if release >= PER_ARCH:
        for arch, linux in shims.LINUX_ARCHES.items():
            env[f"shims_{linux}"] = " ".join(shims.supporting(arch, config.shims, release))
            env[f"defaultShim_{linux}"] = default_shim(config, arch)
    return {"env": env}


def _word(flag: bool) -> str:
    return "true" if flag else "false"


def _structured(config: KataConfig, release: Release) -> dict[str, Any]:
    on = {name: _shim(name, release) for name in config.shims}
    if release >= DISABLE_ALL:
        chosen: dict[str, Any] = {"disableAll": True, **on}
    else:
        chosen = {name: on.get(name, {"enabled": False}) for name in shims.of(release)}
    nydus = any(SHIMS[name].snapshotter == "nydus" for name in config.shims)
    result: dict[str, Any] = {
        "debug": config.debug,
        "snapshotter": {"setup": ["nydus"] if nydus else []},
        "shims": chosen,
        "defaultShim": {arch: default_shim(config, arch) for arch in shims.ARCHES},
        "runtimeClasses": {
            "enabled": True,
            "createDefault": config.default_runtime_class,
            "defaultName": DEFAULT_RUNTIME_CLASS,
        },
    }
    if release < NO_STRINGS:
        # The former keys are still read, and go first wherever they are not empty.
        arches = ("", *(f"_{linux}" for linux in shims.LINUX_ARCHES.values()))
        result["env"] = {f"{key}{arch}": "" for key in _LEGACY for arch in arches}
    if release >= DROP_IN:
        result["deploymentMode"] = "daemonset"
    return result


def _shim(name: str, release: Release) -> dict[str, Any]:
    shim = SHIMS[name]
    result: dict[str, Any] = {"enabled": True}
    if release >= DROP_IN and shims.is_rust(name):
        result["dropIn"] = f"[agent.kata]\nreconnect_timeout_ms = {GUEST_TIMEOUT_MS}\n"
    if release >= PROFILES:
        result["supportedArches"] = list(shim.on(release))
        result["containerd"] = {"snapshotter": shim.snapshotter}
    return result


def default_shim(config: KataConfig, arch: str = "amd64") -> str:
    """The shim of the default RuntimeClass, which is always one that is on.

    That of the release itself where it is on (qemu; from 4.0 on qemu-runtime-rs); else the first that runs on
    that architecture. On one that none of them runs on, kata-deploy is to fail, and not to install another.
    """
    release = min(config.release, NEWEST)
    runs = shims.supporting(arch, config.shims, release) or config.shims
    preferred = ("qemu-runtime-rs", "qemu") if release >= (4, 0) else ("qemu", "qemu-runtime-rs")
    return next((name for name in (*preferred, *runs) if name in runs), runs[0])


def handlers(config: KataConfig) -> dict[str, str]:
    """RuntimeClass to its handler: exactly those that there have to be afterwards."""
    names = [f"kata-{name}" for name in config.shims]
    if config.debug and config.release >= DEBUG_CLASSES:
        names += [f"{name}-debug" for name in names]
    found = {name: name for name in names}
    if config.default_runtime_class:
        found[DEFAULT_RUNTIME_CLASS] = f"kata-{default_shim(config)}"
    return dict(sorted(found.items()))


def runtime_classes(config: KataConfig) -> tuple[str, ...]:
    """The names of the RuntimeClasses that there have to be afterwards, and of no other."""
    return tuple(handlers(config))


def renders_runtime_classes(config: KataConfig) -> bool:
    """Whether they are in what the chart renders; before 3.23, kata-deploy's pods make them."""
    return bool(config.release >= STRUCTURED)


def to_yaml(values: Mapping[str, Any]) -> str:
    """Values as YAML, in the order given, longer text as it is read."""
    import yaml  # not needed by commands that have nothing to do with clusters

    class Dumper(yaml.SafeDumper):
        pass

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    return str(yaml.dump(dict(values), Dumper=Dumper, sort_keys=False, default_flow_style=False))


def show_values(config: KataConfig, *, selector: Mapping[str, str] | None = None) -> str:
    """What ``--show-values`` prints: YAML that ``helm install -f`` takes. It needs no cluster.

    Raises:
        SettingsError: the chart of that release cannot do it.
    """
    lines = [f"# Values of the kata-deploy chart {config.version}"]
    if config.distribution is None:
        lines.append("# k8sDistribution is told from the nodes")
    return "\n".join([*lines, to_yaml(values(config, config.distribution, selector=selector))])


def containerd_directory(distribution: str) -> str:
    """The node's directory in which kata-deploy looks for containerd's configuration."""
    return _DIRECTORIES[distribution]


def distribution_of(kubelet_version: str) -> str | None:
    """What a node's kubelet says of its distribution; None where that does not tell: k8s, or microk8s."""
    match = _SUFFIX.search(kubelet_version)
    return match[1] if match else None


def judge_distribution(config: KataConfig, kubelets: Mapping[str, str]) -> tuple[str, Finding]:
    """Which distribution the nodes are of, and whether that is the configured one.

    A wrong one makes kata-deploy write where no containerd reads, without any error.

    Args:
        kubelets: node to its kubeletVersion.

    Returns:
        The distribution to give to the chart, and what is to be said of it (cluster-distribution).
    """
    kinds: dict[str | None, str] = {}
    for node, version in sorted(kubelets.items()):
        kinds.setdefault(distribution_of(version), f"{node} runs {version}")
    seen, wanted = "; ".join(kinds.values()), config.distribution
    if not kinds:
        cure = "add a node, or correct nodeSelector"
        return wanted or "k8s", _distribution(Status.UNKNOWN, "there is no node that could tell it", cure)
    plain = wanted if wanted in ("k8s", "microk8s") else "k8s"
    found = {kind or plain for kind in kinds}
    if len(found) > 1:
        words = "the chart takes one distribution for all nodes"
        return wanted or "k8s", _distribution(
            Status.FAIL,
            f"{words}: {seen}",
            "select the nodes of one with nodeSelector, and set k8sDistribution",
        )
    told = found.pop()
    if wanted is not None and wanted != told:
        evidence = f"k8sDistribution is {wanted}, and the nodes are {told}: {seen}"
        return wanted, _distribution(Status.FAIL, evidence, f"write k8sDistribution: {told}, or leave it out")
    return told, _distribution(Status.PASS, f"{told}: {seen}")


def _distribution(status: Status, evidence: str, cure: str = "") -> Finding:
    return Finding("cluster-distribution", Layer.CLUSTER, status, evidence, cure)


def warnings(config: KataConfig, *, nested: bool | None = None) -> Sequence[Finding]:
    """What is to be said of the wanted shims before anything is done (cluster-shims); one finding at least.

    Args:
        nested: whether nodes are VMs themselves; None where that is not known.
    """
    found = [finding for name in config.shims for finding in _warnings_of(name, config, nested)]
    if config.release > NEWEST:
        newest = ".".join(map(str, NEWEST))
        found.append(
            _of_shims(
                Status.WARN,
                f"Kata {config.version} is newer than what is known here, and gets the values of {newest}",
                "read what --dry-run would install, or choose a known release",
            )
        )
    return found or [_of_shims(Status.PASS, f"{', '.join(config.shims)}: known for Kata {config.version}")]


def _warnings_of(name: str, config: KataConfig, nested: bool | None) -> list[Finding]:
    found = []
    need = shims.NEEDS.get(SHIMS[name].needs)
    if need is not None and not (SHIMS[name].needs == "bare-metal" and nested is False):
        status = Status.FAIL if need.fatal is True or (need.fatal == "nested" and nested) else Status.WARN
        found.append(_of_shims(status, f"{name} {need.words}", need.cure))
    if SHIMS[name].needs in ("coco-dev", "tee", "gpu") and config.release >= PROFILES:
        evidence = (
            f"{name}: the chart of {config.version} keeps it, and what its hardware needs, in a file apart"
        )
        found.append(_of_shims(Status.FAIL, evidence, "install it with that file and helm itself"))
    if shims.is_rust(name) and config.release < DROP_IN and nested is not False:
        evidence = (
            f"{name} of Kata {config.version} gives a guest 3 s to answer, which its chart cannot change; "
            "a guest on a node that is a VM may take longer"
        )
        found.append(_of_shims(Status.WARN, evidence, "use qemu, or 3.32.0 or newer"))
    return found


def _of_shims(status: Status, evidence: str, cure: str = "") -> Finding:
    return Finding("cluster-shims", Layer.CLUSTER, status, evidence, cure)
