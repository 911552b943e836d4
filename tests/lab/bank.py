"""Boots the bank of machines, and shows who was right about each: the probe, kvm-ok or virt-host-validate.

python -m tests.lab.bank [--only NAME]... [--write]
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.lab.boot import Said, Seen, look
from tests.lab.machines import MACHINES, Machine

AT_ONCE = 2
PAGE = Path(__file__).parents[2] / "docs/explanation/proved.md"
BEGIN, END = "<!-- bank: begin (python -m tests.lab.bank --write) -->", "<!-- bank: end -->"
HEAD = ("machine", "truth", "nestvirt", "kvm-ok", "virt-host-validate", "seconds")


def row(machine: Machine, seen: Seen) -> tuple[str, ...]:
    """One line of the table."""
    said = " / ".join(filter(None, (seen.probe["verdict"], seen.probe["cause"])))
    said += "".join(f"; {check}: {seen.status(check)}" for check in machine.statuses)
    if faults := seen.faults(machine):
        said += f" **wrong: {'; '.join(faults)}**"
    peers = (kvm_ok(seen.kvm_ok), virt_host_validate(seen.virt_host_validate))
    return (machine.name, machine.truth, said, *peers, f"{seen.seconds:.0f}")


def kvm_ok(said: Said) -> str:
    """Its verdict, in its words."""
    words = re.search(r"KVM acceleration (can.*used)", said.text)
    return words[1] if words else f"no verdict, exit {said.code}"


def virt_host_validate(said: Said) -> str:
    """Its words on the three things that KVM needs; after a failure it leaves out the rest."""
    asked = re.findall(
        r"Checking (?:for|if) (hardware virtualization|device /dev/kvm .*?) *: (\w+)", said.text
    )
    if not asked:
        return f"exit {said.code}"
    if {status for _, status in asked} == {"PASS"}:
        return f"PASS, {len(asked)} times"
    return ", ".join(f"{subject.removeprefix('device ')}: {status}" for subject, status in asked)


def table(rows: Sequence[Sequence[str]]) -> str:
    """The rows as Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (HEAD, ["---"] * len(HEAD), *rows))


def write(text: str, page: Path = PAGE) -> None:
    """Put the table between the page's marks, or make the page."""
    before = page.read_text() if page.exists() else f"# What was proved\n\n{BEGIN}\n{END}\n"
    head, _, rest = before.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not end:
        raise SystemExit(f"{page} has no marks {BEGIN} and {END}")
    page.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bank; 1 if the probe was wrong anywhere."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.bank", description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", metavar="NAME", choices=[m.name for m in MACHINES])
    parser.add_argument("--write", action="store_true", help=f"replace the table in {PAGE.name}")
    asked = parser.parse_args(arguments)
    if asked.only and asked.write:
        parser.error("--write needs the whole bank")
    machines = [machine for machine in MACHINES if not asked.only or machine.name in asked.only]
    rows, wrong = [], False
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for machine, seen in zip(machines, pool.map(look, machines), strict=True):
            rows.append(row(machine, seen))
            wrong = wrong or bool(seen.faults(machine))
            print(f"{machine.name}: {rows[-1][2]} ({rows[-1][-1]} s)", file=sys.stderr, flush=True)
    print(table(rows))
    if asked.write:
        write(table(rows))
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
