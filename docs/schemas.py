"""The JSON schemas of fleets and lists: their own part is here, that of a report is taken in whole.

So each file stands alone, for validators that fetch nothing, and no part is written twice by hand.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nestvirt.model import Ending, Power
from nestvirt.report_list import STATES

REPORT = Path(__file__).parent / "reference/report.schema.json"
WITHIN = "urn:nestvirt:report:1#/$defs/"
COUNT = {"type": "integer", "minimum": 0}
TEXT = {"type": "string", "maxLength": 1000}


def strict(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An object that has all of these and nothing else."""
    return {
        "type": "object",
        "required": list(properties),
        "additionalProperties": False,
        "properties": properties,
        **more,
    }


def told(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    """A schema, with what it is."""
    return {"description": description, **schema}


def nullable(schema: dict[str, Any]) -> dict[str, Any]:
    """The same, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


HEAD: dict[str, Any] = {"schema_version": {"const": 1}, "nestvirt": {"$ref": f"{WITHIN}version"}}
ERROR: dict[str, Any] = {"$ref": f"{WITHIN}failure/properties/error"}


def document(name: str, title: str, shapes: dict[str, Any]) -> str:
    """A schema of one of several shapes, the report's in it."""
    report = json.loads(REPORT.read_text(encoding="utf-8"))
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:nestvirt:{name}:1",
        "title": title,
        "$comment": "Written by `python -m docs.generate`; changes by hand are lost.",
        "oneOf": [{"$ref": f"#/$defs/{shape}"} for shape in shapes if not shape.startswith("part")]
        + [{"$ref": f"{WITHIN}failure"}],
        "$defs": {**shapes, "report.schema.json": report},
    }
    return json.dumps(whole, indent=2) + "\n"


def _row() -> dict[str, Any]:
    of = {
        "target": told("backend[@profile]:name.", {"type": "string", "minLength": 1}),
        "name": told(
            "What its users call the VM; null where it was not found.",
            nullable({"type": "string", "minLength": 1, "maxLength": 200}),
        ),
        "ending": told(
            "plan: a dry run has something to do. not-begun: the run ended before. Else a report's verdict; "
            "an error is fail or unknown.",
            {"enum": [ending.value for ending in Ending]},
        ),
        "changed": told("Whether this run changed a setting of it.", {"type": "boolean"}),
        "seconds": told("How long it took.", {"type": "number", "minimum": 0}),
        "note": told("Why it was not begun, for people; may be empty.", TEXT),
        "report": nullable({"$ref": f"{WITHIN}report"}),
        "error": told("What stands in the place of a report.", nullable(ERROR)),
    }
    one_of_both = {
        "anyOf": [{"properties": {"report": {"type": "null"}}}, {"properties": {"error": {"type": "null"}}}]
    }
    return strict(of, **one_of_both)


def _summary() -> dict[str, Any]:
    counts = ["total", *(ending.replace("-", "_") for ending in Ending), "changed"]
    return {
        "command": {"enum": ["check", "enable", "disable", "undo"]},
        "verdict": told(
            "The worst of all: fail, then unknown (also not-begun), then plan, then pass.",
            {"enum": ["pass", "plan", "fail", "unknown"]},
        ),
        "run": told(
            "What --resume and undo take; null where nothing was begun. Of an undo, the run taken back.",
            {"type": ["string", "null"]},
        ),
        "stopped": told(
            "Why it ended before all were done; null where it did not.", {"type": ["string", "null"]}
        ),
        "seconds": told("The wall time of all.", {"type": "number", "minimum": 0}),
        "summary": told("How many ended how.", strict(dict.fromkeys(counts, COUNT))),
    }


def fleet() -> str:
    """What check, enable, disable and undo print of many targets with -o json, and a line of -o jsonl."""
    row = _row()
    line = strict(HEAD | row["properties"], anyOf=row["anyOf"])
    shapes = {
        "fleet": strict(
            HEAD | _summary() | {"fleet": {"type": "array", "items": {"$ref": "#/$defs/part-row"}}}
        ),
        "line": told("-o jsonl: one target, written as it ends.", line),
        "last-line": told("-o jsonl: what all come to.", strict(HEAD | _summary())),
        "part-row": row,
    }
    return document("fleet", "What nestvirt prints of many targets: -o json, or a line of -o jsonl", shapes)


def listing() -> str:
    """What list prints with -o json, and a line of -o jsonl."""
    vm = {
        "target": told("What check and enable take for it.", {"type": "string", "minLength": 1}),
        "id": told("What stays when it is renamed.", {"type": "string"}),
        "name": {"type": "string"},
        "power": {"enum": [power.value for power in Power]},
        "nesting": told(
            "pending: set or taken away, and not in effect until a power cycle. unknown: could not be read.",
            {"enum": list(STATES)},
        ),
        "drift": told("How what is configured and what is in effect differ; null where not.", nullable(TEXT)),
        "proven": told(
            "When guest code was last seen to run in it, ISO 8601 in UTC; null for never.",
            {"type": ["string", "null"], "format": "date-time"},
        ),
        "labels": told(
            "What patterns may ask for.",
            {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string"}}},
        ),
        "note": told("What else is to be known of it; may be empty.", TEXT),
    }
    failed = {"endpoint": told("backend[@profile].", {"type": "string", "minLength": 1}), "error": ERROR}
    summary = strict(dict.fromkeys(["total", *STATES, "errors"], COUNT))
    shapes = {
        "list": strict(
            HEAD
            | {
                "vms": {"type": "array", "items": {"$ref": "#/$defs/part-vm"}},
                "errors": {"type": "array", "items": strict(failed)},
                "summary": summary,
            }
        ),
        "line": told("-o jsonl: one VM.", strict(HEAD | vm)),
        "failed-line": told(
            "-o jsonl: a hypervisor that could not be asked, or a name that means none of its VMs.",
            strict(HEAD | failed),
        ),
        "last-line": told("-o jsonl: how many are how.", strict(HEAD | {"summary": summary})),
        "part-vm": strict(vm),
    }
    return document("list", "What nestvirt list prints: -o json, or a line of -o jsonl", shapes)
