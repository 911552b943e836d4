"""The documentation says what is so: pages are current, links resolve, commands exist, schemas hold."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import jsonschema  # type: ignore[import-untyped]
import pytest

from docs import generate
from nestvirt import errors, report, settings
from nestvirt.cli import cli
from nestvirt.errors import Error
from nestvirt.guest import probe, verify
from nestvirt.journal import Journal
from nestvirt.model import PROOF, Change, Finding, Goal, Layer, Power, Proof, Report, Status, Target, Vm
from tests.lab import pictured

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:^|[$(]|&&|\bif )\s*nestvirt(?= |$)", re.MULTILINE)
INLINE = re.compile(r"`(nestvirt [a-z][^`]*)`")
# The probe's causes that are not keys of CURES: those that a step gives itself.
STEP_CAUSES = re.compile(r'_Broken\(\s*"([a-z-]+)"|errno\.E(?:BUSY|INTR): "([a-z-]+)"|\("([a-z-]+)", late\)')


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """Ids given by hand, and those that GitHub makes of headings."""
    text = prose(page)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    slugs = (re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in plain)
    return set(re.findall(r'<a id="([^"]+)">', text)) | set(slugs)


def commands(page: Path) -> Iterator[list[str]]:
    """The arguments of every nestvirt command that the page shows."""
    text = page.read_text(encoding="utf-8")
    for language, body in FENCE.findall(text):
        if language not in ("sh", "console"):
            continue
        for line in body.splitlines():
            for found in COMMAND.finditer(line):
                yield arguments(line[found.end() :])
    for shown in INLINE.findall(FENCE.sub("", text).replace("\n", " ")):
        yield arguments(shown.removeprefix("nestvirt"))


def arguments(line: str) -> list[str]:
    """The words up to where the shell would end the command."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = []
    for word in lexer:
        if set(word) <= set("|&;<>()"):
            break
        words.append(word)
    return words


@pytest.mark.parametrize("path", generate.pages(), ids=name_of)
def test_generated_page_is_current(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == generate.pages()[path], "run: python -m docs.generate"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_resolve(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        found = target.exists() and target.is_relative_to(ROOT)
        if not found or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_exist(page: Path) -> None:
    root = click.Context(cli, info_name="nestvirt")
    for words in commands(page):
        if not words or words[0] in ("--version", "--help", "-h"):
            continue
        command = cli.get_command(root, words[0])
        assert command is not None, f"no such command: {words}"
        if len(words) == 1 and page.name == "commands.md":
            continue  # its heading, without what it requires
        given = [word for word in words[1:] if word not in ("--help", "-h")]
        command.make_context(words[0], given, parent=root)  # parses, and runs nothing


def test_a_wrong_command_would_be_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "`nestvirt enable\n--nope`\n```console\n$ nestvirt probe --print | ssh x && nestvirt undo\n```\n"
    )
    assert list(commands(page)) == [["probe", "--print"], ["undo"], ["enable", "--nope"]]
    enable = cli.get_command(click.Context(cli, info_name="nestvirt"), "enable")
    assert enable is not None
    with pytest.raises(click.NoSuchOption):
        enable.make_context("enable", ["--nope"])


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_page_is_reachable(page: Path) -> None:
    """From the map, or it is the map, or stands at the root."""
    if page.parent == ROOT or page == DOCS / "index.md":
        return
    linked = {(DOCS / link.partition("#")[0]).resolve() for link in links(DOCS / "index.md")}
    assert page in linked


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))


@pytest.mark.parametrize("check", generate.checks())
def test_check_has_its_runbook(check: str) -> None:
    page = DOCS / "runbooks" / f"{check.partition('-')[0]}.md"
    text = page.read_text(encoding="utf-8")
    _, heading, section = text.partition(f'<a id="{check}"></a>\n## `{check}`\n')
    assert heading
    section = section.partition("\n## ")[0]
    for part in ("Symptom.", "What was read.", "Why it happens", "ure.", "Proof."):
        assert part in section


def test_no_runbook_for_a_check_that_does_not_exist() -> None:
    for layer in generate.LAYERS:
        text = (DOCS / "runbooks" / f"{layer}.md").read_text(encoding="utf-8")
        assert set(re.findall(r"^## `([^`]+)`$", text, re.MULTILINE)) <= set(generate.checks())


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_findings_in_examples_are_of_checks_that_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    shown = re.findall(r"^ *(?:PASS|WARN|FAIL|UNKNOWN) +([a-z-]+) ", text, re.MULTILINE)
    assert set(shown) <= set(generate.checks())


def test_every_cause_has_its_line() -> None:
    source = Path(probe.__file__).read_text(encoding="utf-8")
    own = {word for match in STEP_CAUSES.findall(source) for word in match if word}
    assert {"entry-failed", "wrong-result", "kvm-api", "kvm-busy", "hung"} <= own
    wanted = own | set(probe.CURES) | {"kvm-refused", "slow-exits", "not-proven", "guest-unreachable"}
    assert wanted == set(re.findall(r'<a id="([^"]+)">', (DOCS / "runbooks/causes.md").read_text()))


def test_every_error_is_listed_with_its_exit_code() -> None:
    text = (DOCS / "reference/exit-codes.md").read_text(encoding="utf-8")
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Error)]
    assert len(kinds) > 10
    for kind in kinds:
        assert f"| `{kind.__name__}` | {kind.exit_code} |" in text


def test_every_variable_is_listed() -> None:
    text = (DOCS / "reference/environment.md").read_text(encoding="utf-8")
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "nestvirt").rglob("*.py"))
    read = {name for source in sources for name in re.findall(r'environ\.get\("(\w+)"', source)}
    read |= {name for of in settings.SETTINGS.values() for setting in of for name in setting.variables}
    assert read >= {"NESTVIRT_DEBUG", "NESTVIRT_LIBVIRT_URI"}
    for name in read - {"PATH"}:
        assert f"`{name}" in text


def schema(name: str) -> Any:
    found = json.loads((DOCS / "reference" / name).read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


def finding(status: Status, check: str = PROOF, layer: Layer = Layer.GUEST) -> Finding:
    return Finding(check, layer, status, "evidence\x1b[2J", "cure")


REPORTS = {
    "works": Report(
        "libvirt@lab:web-01",
        (finding(Status.PASS), finding(Status.WARN, "vm-type", Layer.VM)),
        (Change("cpu", None, "<cpu/>"),),
        Proof("works", None, "ssh", {"exit_ns": 60000, "elapsed_ms": 227.5}),
        "20261124-065316-ed99ae",
    ),
    "fails": Report("libvirt:x", (finding(Status.FAIL, "vm-cpu", Layer.VM), finding(Status.SKIP))),
    "unknown": Report("this machine", (finding(Status.UNKNOWN),), proof=Proof("unknown", "not-run", "local")),
    "undone": Report("libvirt:x", (), run="20261124-065316-ed99ae", remains=("power-cycle",), goal=None),
    "withdrawn": Report("libvirt:x", (finding(Status.PASS, "guest-withdrawn"),), goal=Goal(nested=False)),
    "nothing": Report("libvirt:x", ()),
}


@pytest.mark.parametrize("name", REPORTS)
def test_schema_accepts_a_report(name: str) -> None:
    schema("report.schema.json").validate(json.loads(report.to_json(REPORTS[name])))


WRITTEN = {"check": "vm-cpu", "subject": "", "layer": "vm", "status": "pass", "evidence": "", "cure": ""}


def test_schema_accepts_the_finding_that_is_mutilated_below() -> None:
    whole = json.loads(report.to_json(REPORTS["works"]))
    schema("report.schema.json").validate(whole | {"findings": [WRITTEN]})


@pytest.mark.parametrize(
    "mutilate",
    [
        {"verdict": "passed"},
        {"verdict": "fail"},
        {"first_broken": "vm-cpu"},
        {"schema_version": 2},
        {"target": ""},
        {"run": "yesterday"},
        {"remains": "nothing"},
        {"surplus": True},
        {"proof": {"verdict": "works"}},
        {"changes": [{"setting": "cpu", "before": 1, "after": None}]},
        {"findings": [WRITTEN | {"check": "cpu"}]},
        {"findings": [WRITTEN | {"status": "PASS"}]},
        {"findings": [WRITTEN | {"subject": 1}]},
        {"findings": [{field: value for field, value in WRITTEN.items() if field != "subject"}]},
    ],
    ids=str,
)
def test_schema_rejects_a_mutilated_report(mutilate: dict[str, object]) -> None:
    whole = json.loads(report.to_json(REPORTS["works"]))
    assert not schema("report.schema.json").is_valid(whole | mutilate)


def test_schema_rejects_a_report_with_a_field_less() -> None:
    whole = json.loads(report.to_json(REPORTS["works"]))
    for field in whole:
        assert not schema("report.schema.json").is_valid({k: v for k, v in whole.items() if k != field})


@pytest.mark.parametrize("kind", [Error, *Error.__subclasses__()])
def test_schema_accepts_an_error(kind: type[Error]) -> None:
    shown = json.loads(report.error_to_json(kind("what", evidence="seen", cure="do")))
    schema("report.schema.json").validate(shown)
    assert not schema("report.schema.json").is_valid(shown | {"verdict": "fail"})


def test_schema_accepts_the_list_of_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from nestvirt.cli.runs import list_runs
    from nestvirt.fleet.record import FleetRuns

    journal, target, vm = Journal(tmp_path), Target("libvirt", "web-01"), Vm("u", "web-01")
    for outcome in (None, "applied", "put-back", "continued", "undone"):
        record = journal.begin("enable", target, vm, Power.RUNNING, {})
        if outcome is not None:
            record.end(outcome)
    with journal.lock("libvirt", vm):
        list_runs(journal, FleetRuns(tmp_path), "json")
    listed = json.loads(capsys.readouterr().out)
    schema("report.schema.json").validate(listed)
    assert [run["state"] for run in listed["runs"]] == [
        "undone",
        "continued",
        "put-back",
        "applied",
        "under way",
    ]
    listed["runs"][0]["state"] = "fine"
    assert not schema("report.schema.json").is_valid(listed)


def test_probe_schema_accepts_what_the_probe_says() -> None:
    answer = probe.examine()
    schema("probe.schema.json").validate(answer)
    for field in answer:
        assert not schema("probe.schema.json").is_valid({k: v for k, v in answer.items() if k != field})
    assert not schema("probe.schema.json").is_valid(answer | {"verdict": "pass"})


def test_probe_schema_accepts_what_the_shell_reading_says() -> None:
    script = Path(verify.__file__).with_name("reading.sh")
    said = subprocess.run(["sh", script], capture_output=True, check=False)
    schema("probe.schema.json").validate(json.loads(said.stdout))


def test_json_examples_are_valid() -> None:
    page = (DOCS / "reference/json.md").read_text(encoding="utf-8")
    examples = [json.loads(body) for language, body in FENCE.findall(page) if language == "json"]
    described = {"fleet": "fleet.schema.json", "vms": "list.schema.json"}
    names = [next((described[key] for key in described if key in e), "report.schema.json") for e in examples]
    assert names == [*["report.schema.json"] * 3, "fleet.schema.json", "list.schema.json"]
    for example, name in zip(examples, names, strict=True):
        schema(name).validate(example)


def test_a_drawing_loads_nothing_and_is_of_a_proof() -> None:
    drawn = (DOCS / "images/demo.svg").read_text(encoding="utf-8")
    assert not re.findall(r"url\(['\"]?https?:|@import|<script|href=", drawn)
    words = re.sub(r"&#160;", " ", re.sub(r"<[^>]+>", "", drawn))
    for said in ("$ nestvirt enable --libvirt web-01 --yes", "FAIL", "ran guest code in the guest"):
        assert said in words


def test_the_picture_of_the_page_is_of_the_page_as_it_is() -> None:
    """Where the code draws it differently: ``make pictures``."""
    assert pictured.stamp((DOCS / "images/report.png").read_bytes()) == pictured.digest()


def test_a_picture_keeps_its_stamp() -> None:
    picture = (DOCS / "images/report.png").read_bytes()
    for words in ("0" * 64, "f" * 64):
        assert pictured.stamp(pictured.stamped(picture[:8] + picture[-12:], words)) == words
    assert pictured.stamp(picture[:8] + picture[-12:]) == ""


def test_probe_schema_knows_the_probes_words() -> None:
    words = json.loads((DOCS / "reference/probe.schema.json").read_text(encoding="utf-8"))["properties"]
    assert set(words["verdict"]["enum"]) == set(verify.VERDICTS) == set(probe.SUMMARIES)
    assert set(words["numbers"]["properties"]) == {*probe.NUMBERS, "elapsed_ms"}
