"""The reference page of Kata's configuration: what the code knows, as tables. docs/generate.py writes it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from nestvirt.kata import chart
from nestvirt.kata.config import DEFAULT_VERSION, KEYS, NOT_OURS, ROOT, KataConfig
from nestvirt.kata.shims import NEEDS, NEWEST, SHIMS, Release

WIDTH = 120
EXAMPLE = f"""\
{ROOT}:
  version: "{DEFAULT_VERSION}"
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
DEFAULTS = {
    "version": f'`"{DEFAULT_VERSION}"`',
    "k8sDistribution": "told from the nodes",
    "debug": "`false`",
    "createDefaultRuntimeClass": "`false`",
    "shims": "`qemu: {enabled: true}`",
    "image": "the chart's own",
    "imagePullSecrets": "none",
    "nodeSelector": "every node",
}
INTRO = f"""\
# Kata's configuration

`nestvirt kata-install --config FILE` reads a YAML file with the key `{ROOT}`; other keys beside
it are other programs' affair. What the file does not say is as the defaults are. How to use it:
[install Kata](../howto/install-kata.md).

```yaml
{EXAMPLE}```

The file is read strictly: an unknown key is an error that names the nearest right one, and so is a key
that is there twice, text where a flag should be, a shim that the release does not have, or a release
without quotes (YAML reads 3.30 as 3.3). That matters because **the chart ignores what it does not know**:
with a slip in its own values it installs something else, and says nothing.

`nestvirt kata-install --config FILE --show-values` prints what the chart will get, and needs no cluster
for it.

## Keys
"""
TRANSLATION = f"""\
## What becomes of it

The chart's own keys have changed many times. These are the values that it gets, each from the release on
that is named; releases newer than {".".join(map(str, NEWEST))} get the values of that one, with a warning.

Exactly the shims that are on are installed, and no other RuntimeClass appears; the default shim is always
one of them. After the chart has been rendered, and before anything is changed, the RuntimeClasses in it
are compared with those that are wanted.
"""


def page(note: str) -> str:
    """The page.

    Args:
        note: what is to stand at its beginning.
    """
    parts = [note, INTRO, "| key | what for | default |", "|---|---|---|"]
    parts += [f"| `{key}` | {words} | {DEFAULTS[key]} |" for key, words in KEYS.items()]
    parts += ["", "Not taken, though the chart has them:", ""]
    parts += [f"- `{key}`: {words}." for key, words in NOT_OURS.items()]
    parts += ["", TRANSLATION, "| from | new in the chart's values |", "|---|---|"]
    parts += [f"| {_name(since)} | {words} |" for since, words in chart.GENERATIONS.items()]
    parts += ["", "| key | from | becomes |", "|---|---|---|", *_translations(), "", *_always(), *_shims()]
    return "\n".join(parts) + "\n"


def _name(release: Release) -> str:
    return ".".join(map(str, release))


def _translations() -> Iterator[str]:
    """For each key and generation, which of the chart's keys follow from it: found by changing it."""
    base = KataConfig(distribution="k8s")
    changed: dict[str, dict[str, Any]] = {
        "k8sDistribution": {"distribution": "rke2"},
        "debug": {"debug": True},
        "createDefaultRuntimeClass": {"default_runtime_class": True},
        "shims.clh.enabled": {"shims": ("clh", "qemu")},
        "image": {"image": "registry.lab/kata-deploy", "image_tag": "mine"},
        "imagePullSecrets": {"pull_secrets": ("mirror",)},
        "nodeSelector": {"node_selector": (("pool", "kata"),)},
    }
    for key, fields in changed.items():
        former = ""
        for release in chart.GENERATIONS:
            if key == "nodeSelector" and release < chart.NODE_SELECTOR:
                continue
            plain = replace(base, version=f"{_name(release)}.0")
            before, after = _leaves(_values(plain)), _leaves(_values(replace(plain, **fields)))
            new = ", ".join(f"`{at}: {of}`" for at, of in after.items() if before.get(at) != of)
            if new != former:
                yield f"| `{key}` | {_name(release)} | {new} |"
            former = new


def _values(config: KataConfig) -> Mapping[str, Any]:
    return chart.values(config, config.distribution)


def _leaves(value: object, at: str = "") -> dict[str, str]:
    if not isinstance(value, Mapping):
        text = {True: "true", False: "false"}.get(value) if isinstance(value, bool) else None
        return {at: text or (f'"{value}"' if isinstance(value, str) else str(value))}
    found: dict[str, str] = {}
    for key, inner in value.items():
        found |= _leaves(inner, f"{at}.{key}" if at else str(key))
    return found


def _always() -> list[str]:
    drop_in = (
        f"`shims.NAME.dropIn` with `reconnect_timeout_ms = {chart.GUEST_TIMEOUT_MS}` for runtime-rs' shims,"
        f" from {_name(chart.DROP_IN)} on: {chart.GUEST_TIMEOUT_MS // 1000} s for the guest to answer, as the"
        " Go runtime gives it, in place of 3 s. A guest whose host is itself a VM takes longer to boot."
        " Before that release the chart cannot set it, and there is a warning."
    )
    default = (
        "`defaultShim`, for each architecture: `qemu` (from 4.0 on `qemu-runtime-rs`) if it is on, else the"
        " first shim that is on and runs there."
    )
    listed = [
        drop_in,
        "`snapshotter.setup: []`, unless a shim is on that needs nydus: no node gets one for nothing.",
        default,
        f"`deploymentMode: daemonset` from {_name(chart.DROP_IN)} on.",
        f"`supportedArches` and `containerd.snapshotter` of what is on, from {_name(chart.PROFILES)} on.",
    ]
    wrapped = [textwrap.fill(f"- {line}", WIDTH, subsequent_indent="  ") for line in listed]
    return ["What the chart gets besides:", "", *wrapped, ""]


def _shims() -> Iterator[str]:
    yield "## Shims\n"
    yield "The RuntimeClass of a shim is `kata-NAME`. Which for what: [use Kata](../howto/use-kata.md).\n"
    yield "| shim | in releases | on (in the newest of them) | |"
    yield "|---|---|---|---|"
    for name, shim in SHIMS.items():
        until = f" to before {_name(shim.gone)}" if shim.gone else " on"
        last = max(since for since in shim.arches if shim.gone is None or since < shim.gone)
        need = NEEDS.get(shim.needs)
        words = f"it {need.words}" if need else ""
        use = f"; use {shim.successor} then" if shim.successor else ""
        yield f"| `{name}` | {_name(shim.since)}{until}{use} | {', '.join(shim.arches[last])} | {words} |"
