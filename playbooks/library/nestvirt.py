#!/usr/bin/python
"""Run a command of nestvirt, and say of it what Ansible says: changed or not, the diff, failed and why.

It decides nothing itself: what is to be done, and what came of it, is in the JSON that the command prints.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: nestvirt
short_description: Run a command of nestvirt, and report as Ansible does
description:
  - Runs the command line on the machine that the task is delegated to, with C(-o json).
  - In check mode, a command that changes something runs with C(--dry-run), else with C(--yes).
author: nestvirt
options:
  argv:
    description:
      - The command and what follows it, as on the command line.
      - Without C(-o), C(--yes) and C(--dry-run), which this module gives itself.
    type: list
    elements: str
    required: true
  executable:
    description: The program, on PATH or as a path.
    type: str
    default: nestvirt
  secrets:
    description:
      - Variables of its environment that nobody is to see.
      - Unlike those of C(environment), they are in no command line, and Ansible does not show them.
    type: dict
    default: {}
  report_file:
    description: Where the JSON is written, whole. That does not count as a change.
    type: path
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
"""

EXAMPLES = r"""
- name: Let a VM nest, and prove it
  nestvirt:
    argv: [enable, "libvirt:web-01"]
  delegate_to: localhost
"""

RETURN = r"""
rc:
  description: The exit code. 0 all pass, 1 something fails, 2 usage, 3 it could not be found out.
  type: int
  returned: always
rows:
  description: A row for each target, with target, ending, changed, power_cycled, run and why.
  type: list
  elements: dict
  returned: always
"""

CHANGING = ("enable", "disable", "undo", "kata-install")
READING = ("check", "kata-check")
STARTING = ("kata-check",)
"""They change nothing that lasts, and start pods, which check mode must not."""

OURS = ("-o", "--output", "-y", "--yes", "--dry-run")
MOST = 20
"""So many reasons are told; the report has all of them."""


def main() -> None:
    """What Ansible runs."""
    module = AnsibleModule(
        argument_spec={
            "argv": {"type": "list", "elements": "str", "required": True},
            "executable": {"type": "str", "default": "nestvirt"},
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "report_file": {"type": "path"},
        },
        supports_check_mode=True,
    )
    command = command_of(module)
    if module.check_mode and module.params["argv"][0] in STARTING:
        module.exit_json(skipped=True, rc=0, rows=[], msg="it starts pods, and check mode starts none")
    secrets = {name: str(value) for name, value in module.params["secrets"].items()}
    code, stdout, stderr = module.run_command(command, environ_update={**secrets, "NO_COLOR": "1"})
    try:
        told = json.loads(stdout)
    except ValueError:  # what is wrong with the command line itself is text on stderr
        said = stderr.strip() or stdout.strip() or "it said nothing"
        module.fail_json(msg=f"{' '.join(command)}: {said}", rc=code or 70, rows=[])
    keep(module, stdout)
    result = result_of(told, code)
    if code:
        module.fail_json(**result)
    module.exit_json(**result)


def command_of(module: Any) -> list[str]:
    """The words to run."""
    argv = module.params["argv"]
    name = argv[0] if argv else ""
    if name not in (*CHANGING, *READING):
        module.fail_json(
            msg=f"argv begins with {name!r}, not with one of: {', '.join((*CHANGING, *READING))}"
        )
    given = [word for word in argv if word.partition("=")[0] in OURS or word.startswith("-o")]
    if given:
        module.fail_json(msg=f"{given[0]} is given by this module itself; leave it out of argv")
    wanted = module.params["executable"]
    program = shutil.which(str(Path(wanted).expanduser()))
    if program is None:
        cure = "install nestvirt there (docs/howto/run-playbooks.md), or set nestvirt_executable to its path"
        module.fail_json(msg=f"there is no program {wanted} on the machine that this runs on; {cure}")
    manner = ["--dry-run" if module.check_mode else "--yes"] if name in CHANGING else []
    return [program, *argv, *manner, "-o", "json"]


def keep(module: Any, text: str) -> None:
    """Write the report where it is wanted."""
    wanted = module.params["report_file"]
    if not wanted:
        return
    try:
        Path(wanted).parent.mkdir(parents=True, exist_ok=True)
        Path(wanted).write_text(text, encoding="utf-8")
    except OSError as error:
        module.warn(f"the report could not be written: {error}")


def result_of(told: dict[str, Any], code: int) -> dict[str, Any]:
    """Ansible's words for what the command has told."""
    targets = told["fleet"] if "fleet" in told else [alone(told)]
    rows = [row_of(target) for target in targets]
    reasons = [reason for row in rows for reason in row["why"]]
    more = [f"and {len(reasons) - MOST} more"] if len(reasons) > MOST else []
    counts = {ending: sum(row["ending"] == ending for row in rows) for ending in (r["ending"] for r in rows)}
    summary = ", ".join(f"{count} {ending}" for ending, count in counts.items())
    return {
        "rc": code,
        "changed": any(row["changed"] for row in rows),
        "rows": rows,
        "msg": "\n".join([summary or "no target", *reasons[:MOST], *more]),
        "diff": [part for target in targets for part in diff_of(target)],
    }


def alone(told: dict[str, Any]) -> dict[str, Any]:
    """The report of a single target, or the error in its place, as one of many."""
    if "error" in told:
        return {"target": "", "ending": "error", "report": None, "error": told["error"]}
    ending = "plan" if told["dry_run"] else told["verdict"]
    return {"target": told["target"], "ending": ending, "report": told, "error": None}


def row_of(target: dict[str, Any]) -> dict[str, Any]:
    """A target in short."""
    report = target["report"] or {}
    cycled = report.get("power_cycled", False)
    return {
        "target": target["target"],
        "ending": target["ending"],
        "changed": bool(target.get("changed") or report.get("changes") or cycled),
        "power_cycled": cycled,
        "run": report.get("run") or (target["error"] or {}).get("run"),
        "proof": report.get("proof"),
        "why": reasons_of(target),
    }


def reasons_of(target: dict[str, Any]) -> list[str]:
    """Why it is not as it should be: what failed, or else what could not be found out."""
    name, error, report = target["target"], target["error"], target["report"]
    if error:
        told = filter(None, (name, error["kind"], error["message"], error["evidence"]))
        return [with_cure(": ".join(told), error["cure"])]
    if report is None:
        return [f"{name}: {target['note']}"] if target["ending"] != "pass" else []
    if target["ending"] not in ("fail", "unknown"):
        return []
    found = report["findings"]
    ill = [f for f in found if f["status"] == "fail"] or [f for f in found if f["status"] == "unknown"]
    told_of = [
        with_cure(": ".join(filter(None, (name, f["subject"], f["check"], f["evidence"]))), f["cure"])
        for f in ill
    ]
    return told_of or [f"{name}: {target['ending']}"]


def with_cure(words: str, cure: str) -> str:
    """A reason, and what to do."""
    return f"{words}; do this: {cure}" if cure else words


def diff_of(target: dict[str, Any]) -> list[dict[str, str]]:
    """What was changed of it, or would be."""
    report = target["report"]
    if report is None:
        return []
    parts = []
    for change in report["changes"]:
        sides = {side: lines_of(change[side]) for side in ("before", "after")}
        header = f"{target['target']}: {change['setting']}"
        parts.append({**sides, "before_header": header, "after_header": header})
    if report["dry_run"]:
        parts += [{"prepared": f"{target['target']}: {line}\n"} for line in report["remains"]]
    elif report["power_cycled"] and not parts:
        parts.append({"prepared": f"{target['target']}: no setting; power-cycled\n"})
    return parts


def lines_of(value: str | None) -> str:
    """A setting's value as whole lines; none where it is not set."""
    return "" if value is None else value if value.endswith("\n") else f"{value}\n"


if __name__ == "__main__":
    main()
