"""The man page, from click's own description of the command line, like reference/commands.md."""

from __future__ import annotations

import inspect
import re

import click

from nestvirt import __version__, settings
from nestvirt.cli import COMMANDS, cli

NOTE = '.\\" Written by `python -m docs.generate`; changes by hand are lost.\n'
EXIT_STATUS = (
    ("0", "All pass: the goal was seen to be met. Also a dry run whose plan can be carried out."),
    ("1", "Something fails, or could not be carried out."),
    ("2", "Usage: an unknown command, option, target or setting; nobody there to be asked and no --yes."),
    ("3", "It could not be found out."),
    ("70", "A fault in nestvirt."),
    ("130", 'Stopped by Ctrl-C, SIGTERM, a closed terminal, or an "n" at the question.'),
)
FILES = (
    ("~/.config/nestvirt/config.toml", "Defaults and profiles; elsewhere with NESTVIRT_CONFIG."),
    ("~/.local/state/nestvirt/", "The record of all runs, for undo; elsewhere with NESTVIRT_STATE_DIR."),
)


def page() -> str:
    """All of it."""
    parts = [
        NOTE,
        f'.TH NESTVIRT 1 "" "nestvirt {__version__}" "User Commands"\n',
        ".SH NAME\nnestvirt \\- enable nested virtualization in a VM, and prove it\n",
        ".SH SYNOPSIS\n.B nestvirt\n.I COMMAND\n.RI [ OPTION ].\\|.\\|.\n",
        f".SH DESCRIPTION\n{_text(cli.help or '')}\n",
        ".PP\nThe report goes to standard output, everything else to standard error.\n",
        ".SH COMMANDS\n",
        *(f".TP\n.B {_text(f'nestvirt {name}')}\n{_text(line)}\n" for name, line in COMMANDS.items()),
    ]
    context = click.Context(cli, info_name="nestvirt")
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None  # noqa: S101 - it is in COMMANDS
        parts += _command(name, command, context)
    parts += [".SH EXIT STATUS\n", *(_item(code, meaning) for code, meaning in EXIT_STATUS)]
    parts += [".PP\nWith \\fB\\-o nagios\\fR: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.\n"]
    parts += [".SH ENVIRONMENT\n", *(_item(name, of) for name, of in _variables().items())]
    parts += [".SH FILES\n", *(_item(path, meaning) for path, meaning in FILES)]
    parts += [".SH SEE ALSO\n.BR virsh (1),\n.BR qm (1),\n.BR kubectl (1),\n.BR virt\\-host\\-validate (1)\n"]
    return "".join(parts)


def _command(name: str, command: click.Command, parent: click.Context) -> list[str]:
    words, _, examples = inspect.cleandoc(command.help or "").partition("\b")
    context = click.Context(command, info_name=name, parent=parent)
    usage = " ".join(command.collect_usage_pieces(context))
    parts = [f'.SH "NESTVIRT {_text(name.upper())}"\n', f".B {_text(f'nestvirt {name}')}\n{_text(usage)}\n"]
    parts += [f".PP\n{_text(paragraph)}\n" for paragraph in re.split(r"\n\s*\n", words.strip())]
    parts += [_option(option) for option in command.params if isinstance(option, click.Option)]
    lines = [line.strip() for line in examples.splitlines() if line.strip().startswith("nestvirt")]
    if lines:
        shown = "\n".join(_text(line) for line in lines)
        parts.append(f".PP\nExamples:\n.PP\n.nf\n.RS 4\n{shown}\n.RE\n.fi\n")
    return parts


def _option(option: click.Option) -> str:
    forms = ", ".join(f"\\fB{_text(form)}\\fR" for form in option.opts)
    if not option.is_flag:
        choices = option.type.choices if isinstance(option.type, click.Choice) else None
        forms += f" \\fI{_text('|'.join(map(str, choices)) if choices else option.metavar or '')}\\fR"
    default = f" Default: {option.default}." if option.show_default and not option.is_flag else ""
    return f".TP\n{forms}\n{_text((option.help or '') + default)}\n"


def _item(term: str, meaning: str) -> str:
    return f".TP\n.B {_text(term)}\n{_text(meaning)}\n"


def _variables() -> dict[str, str]:
    """Our own variables, and what each is another name of; reference/environment.md has all the others."""
    found = {
        "NESTVIRT_CONFIG": "The configuration file.",
        "NESTVIRT_STATE_DIR": "The folder of the record.",
        "NESTVIRT_DEBUG": "Set to anything: a fault in nestvirt shows where it happened.",
        "NO_COLOR": "Set to anything: no colour, and no live progress.",
    }
    for backend, known in settings.SETTINGS.items():
        for setting in known:
            for name in setting.variables[:1]:
                also = f" Also {', '.join(setting.variables[1:])}." if setting.variables[1:] else ""
                found.setdefault(name, f"{backend}: {setting.name.replace('_', ' ')}.{also}")
    return found


def _text(text: str) -> str:
    """Words as roff has them: nothing of them is taken for a request."""
    escaped = " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-")
    escaped = escaped.replace("'", "\\(aq").replace("`", "\\(ga").replace("~", "\\(ti").replace("^", "\\(ha")
    escaped = "".join(c if c.isascii() else f"\\[u{ord(c):04X}]" for c in escaped)
    return f"\\&{escaped}" if escaped.startswith(".") else escaped
