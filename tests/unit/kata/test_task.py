"""The objects of a short pod."""

from __future__ import annotations

import json
import re

from hypothesis import given
from hypothesis import strategies as st

from nestvirt.kata.task import Setting, Task

SETTING = Setting("0123abcd", "kube-system", 300)
DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def pod(task: Task) -> dict[str, dict[str, object]]:
    made: dict[str, dict[str, object]] = json.loads(json.dumps(SETTING.pod(3, task)))
    return made


@given(st.text(max_size=80), st.integers(0, 9999))
def test_its_name_is_a_dns_label(purpose: str, index: int) -> None:
    name = SETTING.pod_name(index, Task("Node_1.example", purpose, "i", ("true",)))
    assert DNS_LABEL.fullmatch(name)


def test_a_privileged_one_sees_the_node() -> None:
    spec = pod(Task("w", "p", "i", ("sh",), privileged=True))["spec"]
    assert spec["hostPID"] is spec["hostNetwork"] is True
    container = spec["containers"][0]  # type: ignore[index]
    assert container["securityContext"] == {"privileged": True}
    assert container["volumeMounts"] == [{"name": "host", "mountPath": "/host", "readOnly": True}]


def test_another_one_satisfies_the_level_restricted() -> None:
    spec = pod(Task("w", "p", "i", ("sh",), runtime_class="kata-qemu", files={"a": "b"}))["spec"]
    context = spec["containers"][0]["securityContext"]  # type: ignore[index]
    assert context["runAsNonRoot"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostPID", "hostNetwork", "hostIPC"} & set(spec)
    assert [set(volume) for volume in spec["volumes"]] == [{"name", "configMap"}]  # type: ignore[attr-defined]
    assert spec["runtimeClassName"] == "kata-qemu"


def test_it_goes_to_its_node_past_every_taint_and_ends_by_itself() -> None:
    made = pod(Task("Worker.1", "p", "i", ("sh",)))
    spec = made["spec"]
    assert "nodeName" not in spec
    assert '"values": ["Worker.1"]' in json.dumps(spec["affinity"])
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["activeDeadlineSeconds"] == 300
    assert spec["automountServiceAccountToken"] is False
    assert spec["restartPolicy"] == "Never"
    assert made["metadata"]["labels"] == {
        "app.kubernetes.io/managed-by": "nestvirt",
        "nestvirt.io/run": "0123abcd",
        "nestvirt.io/task": "3",
    }


def test_data_is_not_part_of_the_command() -> None:
    task = Task("w", "p", "i", ("sh", "/nestvirt/x.sh"), env={"A": "$(rm -rf /)"}, files={"x.sh": "echo"})
    container = pod(task)["spec"]["containers"][0]  # type: ignore[index]
    assert container["command"] == ["sh", "/nestvirt/x.sh"]
    assert container["env"] == [{"name": "A", "value": "$(rm -rf /)"}]


def test_equal_files_are_shared() -> None:
    assert SETTING.files_name({"a": "1", "b": "2"}) == SETTING.files_name({"b": "2", "a": "1"})
    assert SETTING.files_name({"a": "1"}) != SETTING.files_name({"a": "2"})
    assert SETTING.config_map({"a": "1"})["data"] == {"a": "1"}
