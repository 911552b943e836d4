"""The one switch in its two spellings: written and read back, and turned."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestvirt.backends.vsphere.setting import Nesting

VALUES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
KEYS = st.sampled_from(["vhv.enable", "VHV.Enable", "vhv.ENABLE"])
FIELDS = st.sampled_from([None, True, False])
WITHOUT = st.builds(Nesting, FIELDS)
WITH = st.builds(Nesting, FIELDS, KEYS, VALUES)


@given(st.one_of(WITHOUT, WITH))
def test_what_is_written_is_read_back(nesting: Nesting) -> None:
    assert Nesting.parse(nesting.text) == nesting


@given(st.one_of(WITHOUT, WITH), st.booleans())
def test_turned_it_is_so_and_turning_is_once(nesting: Nesting, on: bool) -> None:
    turned = nesting.turned(on)
    assert turned.enabled is on
    assert turned.turned(on) == turned
    assert turned.name == nesting.name


@pytest.mark.parametrize(
    ("nesting", "text", "enabled"),
    [
        (Nesting(), None, False),
        (Nesting(True), "true", True),
        (Nesting(False), "false", False),
        (Nesting(None, "vhv.enable", "TRUE"), "vhv.enable=TRUE", True),
        (Nesting(None, "vhv.enable", "false"), "vhv.enable=false", False),
        (Nesting(True, "vhv.enable", "true"), "true, vhv.enable=true", True),
        (Nesting(True, "vhv.enable", "FALSE"), "true, vhv.enable=FALSE", None),
        (Nesting(False, "vhv.enable", "TRUE"), "false, vhv.enable=TRUE", None),
    ],
)
def test_spelling(nesting: Nesting, text: str | None, enabled: bool | None) -> None:
    assert (nesting.text, nesting.enabled) == (text, enabled)


@pytest.mark.parametrize(
    "text", ["yes", "true, other=1", "<nonsense a='b'/>", "true, ", "other.key=1", "vhv.enable"]
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a value"):
        Nesting.parse(text)
