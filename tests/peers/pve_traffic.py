"""What was sent to the Proxmox peer: counted, and checked against the API description of PVE 9."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fakepve import schema

EXEC = "/nodes/{node}/qemu/{vmid}/agent/exec"
POLLS = {
    "/nodes/{node}/qemu/{vmid}/status/current",
    "/nodes/{node}/tasks/{upid}/status",
    "/nodes/{node}/qemu/{vmid}/agent/ping",
    "/nodes/{node}/qemu/{vmid}/agent/exec-status",
}
"""What is asked again and again while something is waited for."""


@dataclass
class Traffic:
    """The requests since the last ``clear``.

    Attributes:
        counts: by method and path template.
        violations: what PVE's own description of its API does not allow.
        rules: the permissions that it names for what was sent, by method and path template.
        writes: the configuration writes, as they came.
    """

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    rules: dict[tuple[str, str], object] = field(default_factory=dict)
    writes: list[dict[str, Any]] = field(default_factory=list)

    @property
    def polls(self) -> int:
        """How many only waited for something."""
        return sum(count for (_, template), count in self.counts.items() if template in POLLS)

    @property
    def others(self) -> int:
        """How many asked for something, or did something."""
        return self.counts.total() - self.polls

    def count(self, method: str, ending: str) -> int:
        """How many had that method, and a path template with that ending."""
        return sum(n for (verb, path), n in self.counts.items() if verb == method and path.endswith(ending))

    def table(self) -> list[str]:
        """For people: a line for each kind of request."""
        return [f"{count:4} {method:4} {path}" for (method, path), count in sorted(self.counts.items())]

    def clear(self) -> None:
        """Forget all of it, but not what was wrong."""
        self.counts.clear()
        self.writes.clear()

    def note(self, method: str, path: str, values: Mapping[str, Any], *, old: bool) -> None:
        """Count and check one request.

        Args:
            old: whether it is a version whose exec takes another kind of parameter.
        """
        match = schema.load().match(path)
        if match is None:
            self.counts[method, path] += 1
            self.violations.append(f"there is no {path}")
            return
        kind = (method, match.template)
        self.counts[kind] += 1
        info = match.methods.get(method)
        if info is None:
            self.violations.append(f"there is no {method} {match.template}")
            return
        self.rules[kind] = info.get("permissions")
        if match.template.endswith("/qemu/{vmid}/config") and method in ("PUT", "POST"):
            self.writes.append(dict(values))
        declared = (info.get("parameters") or {}).get("properties", {})
        sent = {**values, **{key: value for key, value in match.params.items() if key in declared}}
        if old and match.template == EXEC:
            sent["command"] = ["exempt: one string up to PVE 7"]
        elif match.template == EXEC and "\0" in str(sent.get("command")):
            self.violations.append("exec with NULs, the form of PVE 7")
        _, errors = schema.validate(info.get("parameters"), sent)
        self.violations += [f"{method} {match.template}: {name}: {why}" for name, why in errors.items()]
