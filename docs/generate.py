"""Writes the reference pages that follow from the code: ``python -m docs.generate``.

tests/test_docs.py fails where a page is not what this program would write.
"""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from pathlib import Path

import click

from docs import kata_config, man, schemas
from nestvirt import engine
from nestvirt.backends import BACKENDS
from nestvirt.cli import COMMANDS, cli
from nestvirt.guest import verify, windows
from nestvirt.kata.checks import CHECKS as CLUSTER_CHECKS

HERE = Path(__file__).parent
NOTE = "<!-- Written by `python -m docs.generate`; changes by hand are lost. -->\n"
LAYERS = {
    "host": "The machine that runs the VM.",
    "vm": "The VM's definition and state, as its hypervisor tells them.",
    "guest": "What the probe finds inside the guest, or on this machine; of Windows, what it says of itself.",
    "cluster": "A Kubernetes cluster that runs pods in VMs (Kata Containers), and each of its nodes.",
}


def pages() -> dict[Path, str]:
    """Path to content of every generated page."""
    return {
        HERE / "reference/commands.md": commands_page(),
        HERE / "reference/checks.md": checks_page(),
        HERE / "reference/kata-config.md": kata_config.page(NOTE),
        HERE / "reference/nestvirt.1": man.page(),
        HERE / "reference/fleet.schema.json": schemas.fleet(),
        HERE / "reference/list.schema.json": schemas.listing(),
    }


def checks() -> dict[str, str]:
    """Every check id of the product to the question it asks."""
    found: dict[str, str] = {}
    for path in BACKENDS.values():
        found |= import_module(path.partition(":")[0]).CHECKS
    return found | engine.CHECKS | verify.CHECKS | windows.CHECKS | CLUSTER_CHECKS


def commands_page() -> str:
    """The command line, from click's own description of it."""
    context = click.Context(cli, info_name="nestvirt")
    parts = [NOTE, "# Commands\n", f"{cli.help}\n", "| command | |", "|---|---|"]
    parts += [f"| [`nestvirt {name}`](#nestvirt-{name}) | {line} |" for name, line in COMMANDS.items()]
    parts += [
        "",
        "`nestvirt --version` prints the version; `-h` or `--help` goes with every command.",
        "The report goes to stdout, everything else to stderr. [What the exit codes mean](exit-codes.md);",
        "[variables and profiles](environment.md); [the JSON](json.md).\n",
    ]
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None  # noqa: S101 - it is in COMMANDS
        parts += _command(name, command, context)
    return "\n".join(parts)


def _command(name: str, command: click.Command, parent: click.Context) -> list[str]:
    words, _, examples = inspect.cleandoc(command.help or "").partition("\b")
    context = click.Context(command, info_name=name, parent=parent)
    usage = " ".join(["nestvirt", name, *command.collect_usage_pieces(context)])
    parts = [f"## `nestvirt {name}`\n", f"{words.strip()}\n", f"```text\n{usage}\n```\n"]
    options = [option for option in command.params if isinstance(option, click.Option)]
    parts += ["| option | |", "|---|---|", *map(_option, options), ""]
    if examples:
        lines = [line.strip() for line in examples.splitlines()]
        parts += ["Examples:\n", "```sh", *(line for line in lines if line.startswith("nestvirt")), "```", ""]
    return parts


def _option(option: click.Option) -> str:
    forms = [f"`{form}`" for form in option.opts]
    if not option.is_flag:
        choices = option.type.choices if isinstance(option.type, click.Choice) else None
        value = "\\|".join(map(str, choices)) if choices else option.metavar
        forms[-1] = f"`{option.opts[-1]} {value}`"
    default = f" Default: `{option.default}`." if option.show_default and not option.is_flag else ""
    return f"| {', '.join(forms)} | {(option.help or '').replace('|', chr(92) + '|')}{default} |"


def checks_page() -> str:
    """Every check, with its runbook."""
    parts = [NOTE, "# Checks\n"]
    parts += [
        "A check id is stable: it is never renamed. Its runbook says what was read, why it happens, and how",
        "to cure it. Within a layer, the order is that of the [chain](../explanation/chain.md).\n",
    ]
    for layer, meaning in LAYERS.items():
        parts += [f"## {layer}\n", f"{meaning}\n", "| check | question |", "|---|---|"]
        for check, question in checks().items():
            if check.partition("-")[0] == layer:
                parts.append(f"| [`{check}`](../runbooks/{layer}.md#{check}) | {question} |")
        parts.append("")
    return "\n".join(parts)


def main() -> int:
    """Write every page; name those that changed."""
    for path, text in pages().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            click.echo(f"written: {path.relative_to(HERE.parent)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
