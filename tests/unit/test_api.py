"""nestvirt for programs: the names, what they cost, and that they do what the commands do."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import pytest

import nestvirt
from nestvirt import api, backends, settings
from nestvirt.backends.host import modprobe  # a submodule is found as ever
from nestvirt.model import PROOF, Target
from nestvirt.settings_table import Setting
from tests.peers import memory

PAGE = Path(__file__).parents[2] / "docs/howto/use-from-python.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def vms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An in-memory hypervisor with two VMs, known as memory, and as libvirt to the examples."""
    path = tmp_path / "vms.json"
    running = {"power": "running", "nested": None, "live": None}
    path.write_text(
        json.dumps({"id-1": {"name": "web-01", **running}, "id-2": {"name": "web-02", **running}})
    )

    class AsLibvirt(memory.MemoryBackend):
        asked: ClassVar[list[str | None]] = []

        @classmethod
        def connect(cls, target: Target, endpoint: Mapping[str, str]) -> Self:
            cls.asked.append(endpoint.get("uri"))
            return super().connect(target, {"path": str(path)})

    monkeypatch.setitem(backends.BACKENDS, *memory.REGISTRATION)
    monkeypatch.setattr(sys.modules[__name__], "AsLibvirt", AsLibvirt, raising=False)
    monkeypatch.setitem(backends.BACKENDS, "libvirt", f"{__name__}:AsLibvirt")
    known = (Setting("path", ("NESTVIRT_MEMORY_PATH",)), Setting("user", ()))
    monkeypatch.setitem(settings.SETTINGS, "memory", known)
    monkeypatch.setenv("NESTVIRT_MEMORY_PATH", str(path))
    monkeypatch.setenv("NESTVIRT_STATE_DIR", str(tmp_path / "state"))
    return path


def vm(path: Path, name: str = "web-01") -> dict[str, Any]:
    found: dict[str, Any] = next(v for v in json.loads(path.read_text()).values() if v["name"] == name)
    return found


# --- the names


def test_importing_it_imports_nothing_else() -> None:
    script = (
        "import sys, nestvirt; dir(nestvirt); print([m for m in sys.modules if m.startswith('nestvirt.')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_name_is_there_and_listed() -> None:
    assert set(nestvirt.__all__) <= set(dir(nestvirt))
    for name in nestvirt.__all__:
        assert getattr(nestvirt, name) is not None
    assert {*nestvirt._HOME, "__version__"} == set(nestvirt.__all__)


def test_what_type_checkers_see_is_what_there_is() -> None:
    source = Path(nestvirt.__file__).read_text(encoding="utf-8")
    seen = source.partition("if TYPE_CHECKING:")[2].partition("__version__")[0]
    modules = re.findall(r"from nestvirt\.(\w+) import \(?([\w,\s]+?)\)?\n(?=    from|\n)", seen)
    named = {module: {n for n in re.split(r"[,\s]+", names) if n} for module, names in modules}
    assert named == {module: set(names) for module, names in nestvirt._MODULES.items()}


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="enables"):
        nestvirt.enables  # type: ignore[attr-defined]  # noqa: B018
    assert modprobe is not None


# --- what they do


def test_check_changes_nothing_and_says_what_is_broken(vms: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = vms.read_bytes()
    report = nestvirt.check("memory:web-01")
    assert report.conclusion is nestvirt.Status.FAIL
    assert report.first_broken is not None
    assert report.first_broken.check == "vm-cpu"
    assert vms.read_bytes() == before
    assert capfd.readouterr() == ("", "")


def test_check_without_a_target_is_of_this_machine() -> None:
    report = nestvirt.check()
    assert report.target == "this machine"
    assert PROOF in {finding.check for finding in report.findings}


def test_a_dry_run_is_a_plan(vms: Path) -> None:
    report = nestvirt.enable("memory:web-01", dry_run=True)
    assert report.planned
    assert report.changes == (nestvirt.Change("nested", None, "on"),)
    assert vm(vms)["nested"] is None


def test_enable_proves_it_and_undo_puts_it_back(vms: Path, capfd: pytest.CaptureFixture[str]) -> None:
    steps: list[str] = []
    inside = nestvirt.Inside(timeout=5, tell=lambda step, _detail: steps.append(step.name))
    report = nestvirt.enable(Target("memory", "web-01"), inside=inside)
    assert report.conclusion is nestvirt.Status.PASS
    assert report.proof is not None
    assert report.proof.verdict == "works"
    assert vm(vms)["live"] == "on"
    assert steps[0] == "READ"
    assert {"STOP", "APPLY", "READ_BACK", "START", "PROBE"} <= set(steps)
    assert report.run is not None
    undone = nestvirt.undo(report.run)
    assert undone.conclusion is nestvirt.Status.PASS
    assert "nested" not in vm(vms)
    assert capfd.readouterr() == ("", "")


def test_a_second_enable_has_nothing_to_do(vms: Path) -> None:
    nestvirt.enable("memory:web-01")
    again = nestvirt.enable("memory:web-01")
    assert (again.run, again.changes, again.conclusion) == (None, (), nestvirt.Status.PASS)


def test_a_goal_may_be_to_have_none(vms: Path) -> None:
    nestvirt.enable("memory:web-01")
    report = nestvirt.enable("memory:web-01", goal=nestvirt.Goal(nested=False))
    assert report.conclusion is nestvirt.Status.PASS
    assert vm(vms)["live"] != "on"


def test_who_is_asked_may_refuse(vms: Path) -> None:
    plans: list[nestvirt.Plan] = []

    def refuse(plan: nestvirt.Plan) -> None:
        plans.append(plan)
        raise RuntimeError("not today")

    with pytest.raises(RuntimeError, match="not today"):
        nestvirt.enable("memory:web-01", consent=refuse)
    assert plans[0].changes == (nestvirt.Change("nested", None, "on"),)
    assert vm(vms)["nested"] is None


def test_without_a_restart_it_stays_pending(vms: Path) -> None:
    report = nestvirt.enable("memory:web-01", restart=False)
    assert report.first_broken is not None
    assert report.first_broken.check == "vm-cpu-pending"
    assert (vm(vms)["nested"], vm(vms)["live"]) == ("on", None)


def test_where_a_hypervisor_is_may_be_given(vms: Path, tmp_path: Path) -> None:
    with pytest.raises(nestvirt.ConnectionFailed):
        nestvirt.check("memory:web-01", where={"path": str(tmp_path / "nowhere")})
    with pytest.raises(nestvirt.AccessDenied):
        nestvirt.check("memory:web-01", where={"user": "guest"})


@pytest.mark.parametrize(
    ("target", "where", "error", "words"),
    [
        ("web-01", {}, nestvirt.TargetError, "is not a target"),
        ("nothing:web-01", {}, nestvirt.TargetError, "there is no backend 'nothing'"),
        ("memory:web-99", {}, nestvirt.TargetError, "web-99"),
        ("memory:web-01", {"uri": "x"}, nestvirt.SettingsError, "'uri' is no setting of memory"),
    ],
)
def test_a_mistake_is_told(
    vms: Path, target: str, where: dict[str, str], error: type[nestvirt.Error], words: str
) -> None:
    with pytest.raises(error) as caught:
        nestvirt.check(target, where=where)
    assert words in caught.value.message
    assert caught.value.cure


def test_the_cures_name_the_target_as_the_command_takes_it(vms: Path) -> None:
    broken = nestvirt.check("memory:web-01").first_broken
    assert broken is not None
    assert broken.cure == "nestvirt enable memory:web-01"


# --- the page


def test_the_page_has_two_examples() -> None:
    assert len(EXAMPLES) == 2


def test_the_first_example_runs(vms: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(EXAMPLES[0], "example", "exec"), {})  # noqa: S102 - the page's own
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["web-01: fail", "  vm-cpu: nested is None", "  -> nestvirt enable libvirt:web-01"]


def test_the_second_example_runs_and_leaves_nothing(vms: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(EXAMPLES[1], "example", "exec"), {})  # noqa: S102 - the page's own
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "nested: None -> on"
    assert lines[1].startswith("works, seen by memory: {")
    assert "nested" not in vm(vms)
    asked = getattr(sys.modules[__name__], "AsLibvirt").asked  # noqa: B009 - it is there while a test runs
    assert asked == ["qemu:///system"] * 3  # plan, enable and undo are of one VM
    assert "force_off" not in EXAMPLES[1]  # nobody copies that by accident


def test_the_page_names_every_parameter() -> None:
    import inspect

    text = PAGE.read_text(encoding="utf-8")
    for function in (api.check, api.enable, api.undo):
        assert all(parameter in text for parameter in inspect.signature(function).parameters)
