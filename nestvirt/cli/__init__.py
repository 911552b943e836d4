"""The command line: parse, call, print, exit. No decisions.

A command's module is imported when it is used, so that ``nestvirt --version`` stays quick.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from importlib import import_module
from types import FrameType

import click

from nestvirt import __version__
from nestvirt.errors import Error

COMMANDS = {
    "check": "Does nesting work here, or in a VM? Says what is broken first, and proves what works.",
    "enable": "Give a VM nested virtualization, and prove it by running guest code inside it.",
    "disable": "Take nested virtualization away from a VM again.",
    "list": "Every VM of every hypervisor that is configured, with its nesting, and when it was proven.",
    "undo": "Put back exactly what a run changed, also after a crash in its middle.",
    "kata-install": "Install Kata Containers on a cluster, after asking every node whether VMs run there.",
    "kata-check": "Do pods under Kata's RuntimeClasses run in VMs of their own? Proves it on every node.",
    "kata-uninstall": "Remove Kata Containers from a cluster, and show that nothing of it is left.",
    "kata-logs": "Collect what Kata's parts have logged, without secrets, in one file.",
    "explain": "What a check reads, why it fails, what cures it, and what proves the cure: its runbook.",
    "probe": "The standalone probe: run it, or print it to carry it elsewhere.",
}
"""Command name to its line in the help; the command itself is in the module of that name, with _ for -."""

BUG = 70  # EX_SOFTWARE of sysexits.h


class LazyGroup(click.Group):
    """A group that imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order of a user's work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        name = {"list": "list_vms"}.get(cmd_name, cmd_name.replace("-", "_"))
        command: click.Command = getattr(import_module(f"nestvirt.cli.{name}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 all pass, 1 something fails, 2 usage, 3 could not find out. "
    "Documentation: nestvirt explain (each check's runbook), man nestvirt, and docs/ of the source.",
)
@click.version_option(__version__, prog_name="nestvirt")
def cli() -> None:
    """Enable nested virtualization in a VM, and prove it by running code inside the guest."""


def main() -> None:
    """Entry point: run a command, and turn what it raises into words and an exit code."""
    _prepare()
    said = ""
    try:
        sys.exit(cli.main(standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        said = error.format_message()
        if "unexpected extra argument" in error.message:
            from nestvirt.cli.options import VM_FORMS

            _say(f"A VM is named with an option: {VM_FORMS}.")
        code = error.exit_code
    except click.Abort:
        _say("\nStopped.")
        code = 130
    except Error as error:
        show_error(error)
        code = error.exit_code
    except BrokenPipeError:
        # Whoever read our output has left; say nothing more, not even at the interpreter's end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        _say(f"error: the output cannot be written, or a file not read: {error}")
        code = 1
    except Exception as error:  # the one place for what nobody foresaw
        if os.environ.get("NESTVIRT_DEBUG"):
            raise
        said = f"a fault in nestvirt: {type(error).__name__}: {error}"
        _say(
            f"error: this is {said}\n  do now: set NESTVIRT_DEBUG=1, run it again, and report what it prints"
        )
        for note in getattr(error, "__notes__", []):
            _say(f"  {note}")
        code = BUG
    from nestvirt.cli.output import plugin_code

    sys.exit(plugin_code(code, sys.argv[1:], said))


def show_error(error: Error) -> None:
    """What happened, what was seen, what to do now; on stderr."""
    from nestvirt.printable import printable

    head = "error:" if os.environ.get("NO_COLOR") else click.style("error:", fg="red", bold=True)
    _say(f"{head} {printable(error.message)}")
    if error.evidence:
        _say(f"  seen:   {printable(error.evidence)}")
    if error.cure:
        _say(f"  do now: {printable(error.cure)}")


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # nobody is there to read it
        click.echo(text, err=True)


def _prepare() -> None:
    """Make the process fit for work that must not be left half done."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _interrupt)
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "r+", encoding="utf-8"))  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # an ASCII terminal is no reason to fail


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
