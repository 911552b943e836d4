"""The cpu string: what is written is what was read, less or more the one thing that is meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestvirt.backends.proxmox.cpu import Cpu, is_generic, shows_nesting, vendor_of

FLAGS = st.lists(
    st.tuples(st.sampled_from("+-"), st.sampled_from(["pcid", "aes", "spec-ctrl", "pdpe1gb"])).map("".join),
    min_size=1,
    max_size=4,
    unique_by=lambda flag: flag[1:],
).map(lambda flags: f"flags={';'.join(flags)}")
MODELS = st.sampled_from(["host", "EPYC-Rome", "x86-64-v2-AES", "custom-x", "cputype=kvm64"])
SUBS = st.lists(st.sampled_from(["hidden=1", "phys-bits=host", "level=30", "hv-vendor-id=x"]), unique=True)


@st.composite
def cpu_strings(draw: st.DrawFn) -> str:
    """Every order of parts that qm.conf allows; at least one part."""
    parts = draw(SUBS) + draw(st.lists(MODELS, max_size=1)) + draw(st.lists(FLAGS, max_size=1))
    return ",".join(draw(st.permutations(parts or ["host"])))


@given(cpu_strings())
def test_read_and_written_is_the_same(text: str) -> None:
    assert str(Cpu.parse(text)) == text


@given(cpu_strings())
def test_flag_put_in_and_taken_out_again_leaves_the_rest(text: str) -> None:
    cpu = Cpu.parse(text)
    for sign in "+-":
        marked = cpu.with_nested_flag(sign)
        assert f"{sign}nested-virt" in marked.flags
        assert sorted(str(marked.with_nested_flag(None)).split(",")) == sorted(text.split(","))


@given(cpu_strings())
def test_another_type_leaves_every_other_part(text: str) -> None:
    cpu = Cpu.parse(text)
    changed = cpu.with_model("max")
    assert changed.model == "max"
    assert [p for p in changed.parts if "=" in p and not p.startswith("cputype=")] == [
        p for p in cpu.parts if "=" in p and not p.startswith("cputype=")
    ]
    assert changed.with_model(cpu.model).model == cpu.model


@pytest.mark.parametrize(
    ("text", "model"),
    [
        (None, "kvm64"),
        ("host", "host"),
        ("hidden=1", "kvm64"),
        ("flags=+aes,cputype=max", "max"),
        ("a,b=1", "a"),
    ],
)
def test_type(text: str | None, model: str) -> None:
    assert Cpu.parse(text).model == model


@pytest.mark.parametrize(
    ("text", "shows"),
    [
        ("host", True),
        ("max", True),
        ("host,flags=-nested-virt", False),
        ("EPYC", False),
        ("EPYC,flags=+nested-virt", True),
        ("Skylake-Server-v5,flags=+aes;+nested-virt", True),
        ("x86-64-v2-AES", False),
        ("x86-64-v4,flags=+nested-virt", None),
        ("kvm64,flags=+nested-virt", None),
        ("custom-x", None),
        ("custom-x,flags=-nested-virt", False),
        (None, False),
    ],
)
def test_shows_nesting(text: str | None, shows: bool | None) -> None:
    assert shows_nesting(Cpu.parse(text)) is shows


@pytest.mark.parametrize(
    ("model", "vendor", "generic"),
    [
        ("EPYC-Milan-v2", "amd", False),
        ("Opteron_G5", "amd", False),
        ("Icelake-Server-noTSX", "intel", False),
        ("486", "intel", False),
        ("x86-64-v2-AES", None, True),
        ("kvm32", None, True),
        ("qemu64", None, True),
        ("host", None, False),
        ("custom-EPYC", None, False),
    ],
)
def test_whose_model(model: str, vendor: str | None, generic: bool) -> None:
    assert (vendor_of(model), is_generic(model)) == (vendor, generic)
