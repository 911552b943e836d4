"""The archive: what is in it, what its members are called, how it is written."""

from __future__ import annotations

import base64
import gzip
import io
import json
import stat
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestvirt.errors import SettingsError
from nestvirt.kata import bundle
from nestvirt.kata.cluster import Cluster
from nestvirt.kata.kube import Kube


@given(
    st.text(max_size=200)
    | st.lists(st.sampled_from(["..", ".", "/", "a", "\\", "~", "\x00", "ä"])).map("/".join)
)
def test_no_name_leads_out_of_the_archive(name: str) -> None:
    path = PurePosixPath(bundle.safe_path(f"nodes/{name}/files/{name}"))
    assert not path.is_absolute()
    assert not {"..", ".", ""} & set(path.parts)
    assert str(path).isascii()
    assert str(path).isprintable()


def test_names_that_are_made_alike_are_kept_apart() -> None:
    files: dict[str, bytes] = {}
    missing: list[str] = []
    bundle._gather(
        iter([("nodes/a:b", b"1"), ("nodes/a;b", b"2"), ("nodes/x", b" \n"), "no x"]), files, missing
    )
    assert files == {"nodes/a_b": b"1", "nodes/a_b.2": b"2"}
    assert missing == ["no x"]


def test_the_same_files_make_the_same_archive() -> None:
    files = {"b": b"2", "a/c": b"1"}
    first = bundle.packed(files)
    assert first == bundle.packed(dict(reversed(files.items())))
    with tarfile.open(fileobj=io.BytesIO(first)) as archive:
        assert archive.getnames() == ["nestvirt-kata-logs/a/c", "nestvirt-kata-logs/b"]
        assert {(m.mode, m.mtime, m.uid, m.type) for m in archive} == {(0o600, 0, 0, tarfile.REGTYPE)}


def test_it_is_its_owners_only_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "logs.tar.gz"
    bundle.write({"a": b"1"}, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["logs.tar.gz"]
    with pytest.raises(SettingsError, match="is there already"):
        bundle.write({"a": b"2"}, path)
    with pytest.raises(SettingsError, match="cannot be written"):
        bundle.write({"a": b"2"}, tmp_path / "no" / "logs.tar.gz")


def test_what_fails_in_the_middle_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_files: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(bundle, "packed", stop)
    with pytest.raises(KeyboardInterrupt):
        bundle.write({"a": b"1"}, tmp_path / "logs.tar.gz")
    assert list(tmp_path.iterdir()) == []


def test_a_users_own_pod_is_not_handed_on() -> None:
    pod = {
        "metadata": {"name": "shop", "labels": {"a": "b"}, "annotations": {"c": "hunter22"}},
        "spec": {
            "runtimeClassName": "kata-qemu",
            "nodeName": "w1",
            "containers": [
                {"image": "shop", "command": ["shop", "hunter22"], "env": [{"name": "A", "value": "b"}]}
            ],
        },
        "status": {"phase": "Pending"},
    }
    assert bundle.shown("pods", pod) == {
        "metadata": {"name": "shop"},
        "spec": {"runtimeClassName": "kata-qemu", "nodeName": "w1"},
        "status": {"phase": "Pending"},
    }
    for name in ("kata-deploy-x", "nestvirt-proof-x"):
        ours = pod | {"metadata": {"name": name}}
        assert bundle.shown("pods", ours) == ours
    assert bundle.shown("jobs", pod) == pod


class Listed(Kube):
    """A cluster whose every list has this one pod."""

    def list(
        self, kind: str, *, namespace: str | None = None, selector: str = "", fields: str = ""
    ) -> list[dict[str, Any]]:
        spec = {"runtimeClassName": "kata", "containers": [{"command": ["hunter22"]}]}
        return [{"metadata": {"name": "shop"}, "spec": spec, "status": {}}]


def test_no_users_pod_is_in_the_archive_whole() -> None:
    wish = bundle.Wish("kube-system", "kata-deploy", "busybox", 1, lambda _step, _detail: None)
    files = dict(
        part for part in bundle._objects(Listed(), Cluster((1, 30)), wish) if isinstance(part, tuple)
    )
    assert b"shop" in files["cluster/pods-kube-system.json"]
    assert b"hunter22" not in files["cluster/pods-kube-system.json"]


def packed_release(found: object) -> str:
    """As Helm keeps a release in a Secret."""
    return base64.b64encode(base64.b64encode(gzip.compress(json.dumps(found).encode(), mtime=0))).decode()


def test_a_release_is_unpacked() -> None:
    assert bundle.unpacked(packed_release({"config": {"debug": True}})) == {"config": {"debug": True}}


@pytest.mark.parametrize("data", [None, 7, "", "x", base64.b64encode(b"eA==").decode(), packed_release([1])])
def test_what_is_no_release_is_none(data: object) -> None:
    assert bundle.unpacked(data) is None


def test_a_release_is_not_unpacked_without_bounds() -> None:
    huge = packed_release({"config": "x" * (bundle.VALUES_LIMIT + 1)})
    assert len(huge) < bundle.VALUES_LIMIT / 10
    assert bundle.unpacked(huge) is None
