"""The house rules of docs/explanation/architecture.md that a program can check."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from nestvirt import __version__, engine
from nestvirt.backends import BACKENDS
from nestvirt.guest import probe, verify, windows
from nestvirt.kata.checks import CHECKS as CLUSTER_CHECKS

ROOT = Path(__file__).parents[1]
FOLDERS = ("nestvirt", "tests", "benchmarks", "playbooks", "docs")
FILE_LINES, FUNCTION_LINES = 400, 50
TRAVELS_ALONE = {Path("nestvirt/guest/probe.py"): 710}  # one file by design: it is sent into guests as it is
VAGUE = {"utils", "helpers", "common", "core", "manager"}

# From below to above; a module imports from its own row and from those below it.
ROWS = (
    {"nestvirt", "errors", "printable", "runbooks"},
    {"model", "configfile", "settings_table", "tls"},
    {"plan", "settings", "guest", "replay"},
    {"backends"},
    {"engine", "journal", "report", "report_fleet", "report_list", "report_html", "junit", "nagios"},
    {"fleet", "kata", "api"},
    {"cli"},
)
RANK = {name: rank for rank, row in enumerate(ROWS) for name in row}


def python_files(*folders: str) -> list[Path]:
    """The Python files of those folders, relative to the root."""
    return sorted(path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), str(path))


PACKAGE = python_files("nestvirt")
ALL = python_files(*FOLDERS)
each_module = pytest.mark.parametrize("path", PACKAGE, ids=str)
each_file = pytest.mark.parametrize("path", ALL, ids=str)


def imports(path: Path) -> Iterator[str]:
    """The modules of ours that a file imports, wherever in it, with dots."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            # from nestvirt import report: what is imported may itself be a module
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "nestvirt":
                yield name if _is_module(name) else name.rpartition(".")[0]


def _is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()


def row_of(dotted: str) -> int:
    parts = dotted.split(".")
    return RANK[parts[1] if len(parts) > 1 else parts[0]]


def own_name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


# --- imports


@each_module
def test_imports_go_downwards(path: Path) -> None:
    if path == Path("nestvirt/__init__.py"):
        return  # it names what programs import; tests/unit/test_api.py sees that it imports none of it
    name = own_name(path)
    upwards = [other for other in imports(path) if row_of(other) > row_of(name)]
    assert not upwards


@each_module
def test_no_backend_imports_another(path: Path) -> None:
    parts = own_name(path).split(".")
    if parts[1:2] != ["backends"] or len(parts) < 3:
        return
    shared = ("nestvirt.backends.base", f"nestvirt.backends.{parts[2]}")
    others = [name for name in imports(path) if name.startswith("nestvirt.backends.")]
    assert not [name for name in others if not f"{name}.".startswith(tuple(f"{s}." for s in shared))]


def test_the_probe_stands_alone() -> None:
    path = Path("nestvirt/guest/probe.py")
    assert list(imports(path)) == []
    ast.parse((ROOT / path).read_text(encoding="utf-8"), feature_version=(3, 6))


# --- sizes and names


@each_file
def test_no_file_is_long(path: Path) -> None:
    lines = len((ROOT / path).read_text(encoding="utf-8").splitlines())
    assert lines <= TRAVELS_ALONE.get(path, FILE_LINES)


@each_file
def test_no_function_is_long(path: Path) -> None:
    functions = [n for n in ast.walk(tree(path)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert not [f.name for f in functions if (f.end_lineno or 0) - f.lineno + 1 > FUNCTION_LINES]


@each_file
def test_no_module_is_named_vaguely(path: Path) -> None:
    assert not {part.removesuffix(".py") for part in path.parts} & VAGUE


# --- what is not done


@each_file
def test_no_error_is_swallowed_unseen(path: Path) -> None:
    """Only the command line, and a fleet's worker, may catch what nobody foresaw; others raise it again."""
    if path in (Path("nestvirt/cli/__init__.py"), Path("nestvirt/fleet/running.py")):
        return
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler) and _broad(node.type):
            last = node.body[-1]
            assert isinstance(last, ast.Raise), f"line {node.lineno}"
            assert last.exc is None, f"line {node.lineno}"


def _broad(kind: ast.expr | None) -> bool:
    kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    return any(
        k is None or (isinstance(k, ast.Name) and k.id in ("Exception", "BaseException")) for k in kinds
    )


@each_module
def test_only_the_command_line_and_the_probe_print(path: Path) -> None:
    if path.parts[1] == "cli" or path == Path("nestvirt/guest/probe.py"):
        return
    calls = [node for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]
    assert not [c.lineno for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]


@each_module
def test_no_function_takes_just_anything(path: Path) -> None:
    """No ``**kwargs`` between modules; a command's own function gets its options by name from click."""
    if path.parts[1] != "cli":
        assert not [f.name for f in _public_functions(tree(path)) if f.args.kwarg is not None]


def _public_functions(scope: ast.Module | ast.ClassDef) -> Iterator[ast.FunctionDef]:
    for node in scope.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            if isinstance(node, ast.ClassDef):
                yield from _public_functions(node)
            else:
                yield node


# --- checks


def checks() -> dict[str, str]:
    """Every check id to the question it asks."""
    backends: dict[str, str] = {}
    for path in _facts():
        for check, question in import_module(f"nestvirt.backends.{path.parent.name}.facts").CHECKS.items():
            assert backends.setdefault(check, question) == question, f"{check} asks two questions"
    tables = [backends, verify.CHECKS, windows.CHECKS, engine.CHECKS, CLUSTER_CHECKS]
    merged = {check: question for table in tables for check, question in table.items()}
    assert len(merged) == sum(map(len, tables)), "a check is in two tables"
    return merged


def _facts() -> list[Path]:
    return sorted((ROOT / "nestvirt/backends").glob("*/facts.py"))


def _texts(folder: str, pattern: str) -> dict[Path, str]:
    return {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / folder).rglob(pattern))}


each_check = pytest.mark.parametrize("check", sorted(checks()))


@each_check
def test_a_check_is_well_named_and_asks_a_question(check: str) -> None:
    assert re.fullmatch(r"(host|vm|guest|cluster)-[a-z-]+", check)
    assert "?" in checks()[check]


@each_check
def test_a_check_has_its_runbook(check: str) -> None:
    anchor = re.compile(rf"""<a id="{check}"></a>|^##+ `?{check}`?$""", re.MULTILINE)
    assert [path for path, text in _texts("docs/runbooks", "*.md").items() if anchor.search(text)]


@each_check
def test_a_check_has_a_test(check: str) -> None:
    mention = re.compile(rf"(?<![\w-]){check}(?![\w-])")
    tests = {path: text for path, text in _texts("tests", "*.py").items() if path != Path(__file__)}
    assert [path for path, text in tests.items() if mention.search(text)]


@each_module
def test_no_finding_is_of_an_unknown_check(path: Path) -> None:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding":
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant):
                assert first.value in checks(), f"line {node.lineno}"


def test_the_probe_makes_every_guest_check(tmp_path: Path) -> None:
    made = [finding["check"] for finding in probe.examine(root=str(tmp_path))["findings"]]
    assert sorted(made) == sorted(verify.CHECKS)


def test_the_shells_reading_makes_no_other() -> None:
    text = (ROOT / "nestvirt/guest/reading.sh").read_text(encoding="utf-8")
    made = set(re.findall(r"finding (guest-[a-z-]+)", text))
    assert made
    assert made <= set(verify.CHECKS)


# --- the rest


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_has_its_contract_test_and_its_guide(backend: str) -> None:
    assert (ROOT / f"tests/contract/test_{backend}.py").is_file()
    assert (ROOT / f"docs/howto/enable-{backend}.md").is_file()


def test_the_changelog_has_this_version() -> None:
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_no_file_names_a_place_of_one_machine() -> None:
    places = re.compile(
        rf"(?<![\w/.~-])/(?:{'wo' + 'rk'}|{'ho' + 'me'}/[a-z]\w*|{'Us' + 'ers'}/\w+)(?![\w-])"
    )
    files = [path for folder in (*FOLDERS, ".ci") for path in (ROOT / folder).rglob("*")]
    files += [*ROOT.glob("*.*"), ROOT / "Makefile"]
    named = []
    for path in files:
        if path.is_file() and path.suffix not in (".pyc", ".gz"):
            found = places.search(path.read_text(encoding="utf-8", errors="replace"))
            if found:
                named.append(f"{path.relative_to(ROOT)}: {found[0]}")
    assert named == []
