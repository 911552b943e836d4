"""The options of a run over many that its record keeps, so that --resume and undo go on in the same way."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from nestvirt.cli.options import ENDPOINT
from nestvirt.fleet.recorded import UNDOES, Recorded

KEPT = (
    *(name.replace("-", "_") for name in ENDPOINT),
    *("cpu", "mac_spoofing", "no_restart", "force_off", "timeout", "load_modules", "ssh_config"),
    *("parallel", "batch", "max_failures", "drain_nodes", "delete_emptydir_data", "context", "kubeconfig"),
    UNDOES,
)
OF_NODES = ("drain_nodes", "context", "kubeconfig")
AS_BEFORE = ("parallel", "batch", "max_failures", "timeout", "ssh_config", *OF_NODES)
"""Of them, what holds for the way back, too; what may lose data or cut the power is to be said anew."""


def kept(options: Mapping[str, Any]) -> dict[str, object]:
    """What a record keeps of the options; a file's name holds in any folder."""
    told = {name: options[name] for name in KEPT if options.get(name) not in (None, False)}
    paths = {name for name in ("ssh_config", "kubeconfig", "ca_file") if name in told}
    return told | {name: str(Path(str(told[name])).absolute()) for name in paths}


def as_before(
    options: Mapping[str, Any], recorded: Recorded, names: Collection[str] = KEPT
) -> dict[str, Any]:
    """The options with these as the run had them, but for those that are given now."""
    context = click.get_current_context()
    given = {n for n in names if context.get_parameter_source(n) is ParameterSource.COMMANDLINE}
    return {**options, **{n: v for n, v in recorded.options.items() if n in names and n not in given}}
