"""``nestvirt explain``: the runbook of a check."""

from __future__ import annotations

import sys
from difflib import get_close_matches

import click
from click.shell_completion import CompletionItem

from nestvirt import runbooks
from nestvirt.printable import printable


def _completed(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    asked = runbooks.questions().items()
    return [CompletionItem(check, help=question) for check, question in asked if check.startswith(begun)]


@click.command()
@click.argument("check", required=False, shell_complete=_completed)
def explain(check: str | None) -> int:
    """What a check reads, why it fails, what cures it, and what proves the cure: its runbook.

    CHECK is an id, as reports have them. Without one, all are listed, each with the question it asks.

    \b
    Examples:
      nestvirt explain
      nestvirt explain vm-cpu
    """
    questions = runbooks.questions()
    if check is None:
        _list(questions)
        return 0
    if check not in questions:
        near = get_close_matches(check, questions, 3, 0.5)
        instead = f"Did you mean {' or '.join(near)}?" if near else "nestvirt explain lists all."
        raise click.UsageError(f"There is no check {printable(check, 60)!r}. {instead}")
    page = f"# {check}\n\n{questions[check]}\n\n{runbooks.section(check)}\n"
    if sys.stdout.isatty():
        from rich.markdown import Markdown

        from nestvirt.cli.output import stdout_console

        stdout_console().print(Markdown(page, hyperlinks=False))
    else:
        click.echo(page, nl=False)
    return 0


def _list(questions: dict[str, str]) -> None:
    width = max(map(len, questions))
    for layer in runbooks.LAYERS:
        click.echo(layer)
        for check, question in questions.items():
            if check.partition("-")[0] == layer:
                click.echo(f"  {check:<{width}}  {question}")
