"""The <cpu> element is found, rewritten and put back, and no other byte is touched."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestvirt.backends.libvirt import cpu_xml
from nestvirt.backends.libvirt.cpu_xml import NESTING_FEATURES, Cpu, disabled, enabled, replaced, split
from tests.unit.backends.domains import (
    ADDRESS_BITS,
    CACHE,
    NUMA,
    TOPOLOGY,
    cpus,
    custom,
    domain,
    domains,
    features,
    mode,
)

Pieces = tuple[str, str, str]
FEATURES = st.sampled_from(NESTING_FEATURES)
MODES = st.sampled_from(
    (
        ("host-passthrough", None),
        ("maximum", None),
        ("host-model", None),
        ("custom", "EPYC"),
        ("custom", "Haswell"),
    )
)
RICH = f"""<cpu mode='custom' match='exact' check='full'>
    <model fallback='forbid'>EPYC-Rome</model>
    <vendor>AMD</vendor>
    {TOPOLOGY}
    {CACHE}
    {ADDRESS_BITS}
    {NUMA}{features(svm="disable", x2apic="require", hypervisor="require")}
  </cpu>"""


# --- finding it


@given(domains())
def test_split_finds_the_element_and_nothing_that_looks_like_it(pieces: Pieces) -> None:
    head, element, tail = pieces
    found = split(head + element + tail)
    assert found == ((head, element, tail) if element else (head + tail, None, ""))


@given(domains())
def test_replacing_by_itself_changes_no_byte(pieces: Pieces) -> None:
    whole = "".join(pieces)
    assert replaced(whole, split(whole)[1]) == whole


@given(domains(cpus()), cpus())
def test_replacing_touches_nothing_outside(pieces: Pieces, other: str) -> None:
    head, element, tail = pieces
    assert replaced(head + element + tail, other) == head + other + tail


@given(domains(st.just("")), cpus())
def test_an_element_is_added_where_there_is_none(pieces: Pieces, element: str) -> None:
    whole = "".join(pieces)
    added = replaced(whole, element)
    before, found, after = split(added)
    assert found == element
    assert before.rstrip() + after.lstrip() == whole.removesuffix("</domain>\n").rstrip() + "</domain>\n"


@given(domains(cpus()))
def test_taken_out_and_put_back(pieces: Pieces) -> None:
    whole = "".join(pieces)
    bare = replaced(whole, None)
    assert split(bare)[1] is None
    assert bare == cpu_xml.without_cpu(whole)
    back = replaced(bare, pieces[1])
    assert split(back)[1] == pieces[1]
    assert ET.canonicalize(replaced(back, None), strip_text=True) == ET.canonicalize(bare, strip_text=True)


@given(domains(st.just("")))
def test_without_an_element_there_is_nothing_to_take_out(pieces: Pieces) -> None:
    assert replaced("".join(pieces), None) == "".join(pieces)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("<domain>", id="unclosed"),
        pytest.param("no XML", id="no XML"),
        pytest.param("<domain><cpu/><cpu/></domain>", id="two elements"),
        pytest.param("<domain>\udc80</domain>", id="a surrogate"),
    ],
)
def test_what_cannot_be_split_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the words are expat's or Python's
        split(text)


# --- comparing the rest

BASE = domain(custom("EPYC"))


@pytest.mark.parametrize(
    ("other", "same"),
    [
        pytest.param(BASE, True, id="itself"),
        pytest.param(domain(mode("host-passthrough")), True, id="another cpu"),
        pytest.param(domain(), True, id="no cpu"),
        pytest.param(
            BASE.replace("    <memballoon model='none'/>\n", "").replace(
                "  <devices>\n", "  <devices>\n    <memballoon model='none'/>\n"
            ),
            True,
            id="devices in another order",
        ),
        pytest.param(BASE.replace("  <vcpu", "      <vcpu"), True, id="another indentation"),
        pytest.param(BASE.replace("196608", "196609"), False, id="another memory"),
        pytest.param(BASE.replace("    <memballoon model='none'/>\n", ""), False, id="a device less"),
        pytest.param(
            BASE.replace("<devices>", "<devices><memballoon model='none'/>"), False, id="a device twice"
        ),
        pytest.param(BASE.replace("web-01", "web-02"), False, id="another name"),
        pytest.param(BASE.replace("type='kvm'", "type='qemu'"), False, id="another type"),
        pytest.param(
            BASE.replace("  <clock offset='utc'/>\n", "").replace(
                "<devices>", "<devices><clock offset='utc'/>"
            ),
            False,
            id="moved into the devices",
        ),
    ],
)
def test_same_but_cpu(other: str, same: bool) -> None:
    assert cpu_xml.same_but_cpu(BASE, other) is same
    assert cpu_xml.same_but_cpu(other, BASE) is same


# --- reading it


@pytest.mark.parametrize(
    ("element", "vmx", "svm", "doubled"),
    [
        pytest.param(None, None, None, False, id="no element"),
        pytest.param("<cpu/>", None, None, False, id="empty"),
        pytest.param(custom("EPYC"), None, None, False, id="a model leaves it open"),
        pytest.param(custom("EPYC", svm="require"), None, True, False, id="require"),
        pytest.param(custom("EPYC", svm="force"), None, True, False, id="force"),
        pytest.param(custom("EPYC", svm="optional"), None, None, False, id="optional leaves it open"),
        pytest.param(custom("EPYC", svm="disable"), None, False, False, id="disable"),
        pytest.param(custom("EPYC", svm="forbid"), None, False, False, id="forbid"),
        pytest.param(custom("EPYC", vmx="require", svm="require"), True, True, False, id="both"),
        pytest.param(mode("host-model"), None, None, False, id="host-model leaves it open"),
        pytest.param(mode("host-passthrough"), True, True, False, id="host-passthrough"),
        pytest.param(mode("maximum"), True, True, False, id="maximum"),
        pytest.param(
            mode("host-passthrough", svm="optional"), True, True, False, id="passed, and optional at that"
        ),
        pytest.param(mode("host-passthrough", vmx="disable"), False, True, False, id="passed, but disabled"),
        pytest.param(
            f"<cpu mode='host-model'>{features(vmx='require')}{features(vmx='disable')}</cpu>",
            False,
            None,
            True,
            id="doubled: the last counts",
        ),
        pytest.param("<cpu><feature name='svm'/></cpu>", None, True, False, id="no policy means require"),
    ],
)
def test_reading(element: str | None, vmx: bool | None, svm: bool | None, doubled: bool) -> None:
    cpu = Cpu.parse(element)
    assert (cpu.states("vmx"), cpu.states("svm"), cpu.doubled) == (vmx, svm, doubled)


# --- writing it


def _tree(element: str) -> ET.Element:
    return ET.fromstring(element)  # noqa: S314 - our own


def _foreign(element: str, *, with_model: bool = True) -> list[str]:
    """What must survive, in order: every child but vmx, svm and, where it changes, the model."""
    return [
        ET.canonicalize(ET.tostring(child), strip_text=True)
        for child in _tree(element)
        if child.get("name") not in NESTING_FEATURES and (with_model or child.tag not in ("model", "vendor"))
    ]


@given(st.one_of(cpus(), st.none()), FEATURES, MODES, st.sampled_from((None, "none", "full")))
def test_enabled_shows_the_feature_and_keeps_the_rest(
    current: str | None, feature: str, choice: tuple[str, str | None], check: str | None
) -> None:
    wanted = enabled(current, feature, mode=choice[0], model=choice[1], check=check)
    cpu = Cpu.parse(wanted)
    assert cpu.states(feature) is True
    assert not cpu.doubled
    assert {name for name, _ in cpu.policies} <= {feature}
    assert (cpu.mode, cpu.model) == choice
    assert check is None or _tree(wanted).get("check") == check
    assert _foreign(wanted, with_model=False) == _foreign(current or "<cpu/>", with_model=False)
    again = enabled(wanted, feature, mode=choice[0], model=choice[1], check=check)
    assert again == wanted


@given(st.one_of(cpus(), st.none()), FEATURES)
def test_disabled_hides_the_feature_and_keeps_the_rest(current: str | None, feature: str) -> None:
    wanted = disabled(current, feature)
    cpu = Cpu.parse(wanted)
    assert cpu.states(feature) is False
    assert cpu.policies == ((feature, "disable"),)
    assert _foreign(wanted) == _foreign(current or "<cpu><model fallback='forbid'>qemu64</model></cpu>")
    assert disabled(wanted, feature) == wanted


@given(cpus(), FEATURES, MODES)
def test_what_is_written_is_one_element_of_a_domain(
    current: str, feature: str, choice: tuple[str, str | None]
) -> None:
    wanted = enabled(current, feature, mode=choice[0], model=choice[1])
    assert split(replaced(domain(current), wanted))[1] == wanted


def test_the_text_is_as_libvirt_writes_it() -> None:
    assert enabled(RICH, "svm", mode="custom", model="EPYC-Rome") == RICH.replace(
        "    <feature policy='disable' name='svm'/>\n", ""
    ).replace("\n  </cpu>", "\n    <feature policy='require' name='svm'/>\n  </cpu>")


@pytest.mark.parametrize(
    ("current", "choice", "opening"),
    [
        pytest.param(
            custom("qemu64", check="full"),
            ("host-passthrough", None),
            "<cpu mode='host-passthrough'",
            id="a new mode drops match and check",
        ),
        pytest.param(
            mode("host-passthrough"),
            ("host-passthrough", None),
            "<cpu mode='host-passthrough' check='partial' migratable='on'",
            id="the same mode keeps them",
        ),
        pytest.param(
            mode("host-passthrough"),
            ("custom", "EPYC"),
            "<cpu mode='custom' match='exact'",
            id="a model is matched exactly",
        ),
        pytest.param(
            custom("EPYC", check="full"),
            ("custom", "EPYC"),
            "<cpu mode='custom' match='exact' check='full'",
            id="the same model keeps them",
        ),
        pytest.param(None, ("host-passthrough", None), "<cpu mode='host-passthrough'", id="from nothing"),
    ],
)
def test_attributes(current: str | None, choice: tuple[str, str | None], opening: str) -> None:
    wanted = enabled(current, "svm", mode=choice[0], model=choice[1])
    assert wanted.startswith((f"{opening}>", f"{opening}/>"))


def test_foreign_text_is_escaped() -> None:
    current = """<cpu mode='custom'><model vendor_id="a&apos;b&lt;&amp;">X&lt;Y&gt;&amp;Z</model></cpu>"""
    model = _tree(disabled(current, "vmx")).find("model")
    assert model is not None
    assert (model.text, model.get("vendor_id")) == ("X<Y>&Z", "a'b<&")
