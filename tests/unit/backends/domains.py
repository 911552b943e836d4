"""Domain XML to test with: fixed, in the shape that libvirt 9 prints, and generated, which is nastier."""

from __future__ import annotations

import string

from hypothesis import strategies as st

TOPOLOGY = "<topology sockets='1' dies='1' cores='4' threads='2'/>"
CACHE = "<cache mode='passthrough'/>"
ADDRESS_BITS = "<maxphysaddr mode='emulate' bits='42'/>"
NUMA = "<numa>\n      <cell id='0' cpus='0-7' memory='4194304' unit='KiB' memAccess='shared'/>\n    </numa>"


def domain(
    cpu: str = "",
    *,
    kind: str = "kvm",
    arch: str = "x86_64",
    agent: str | None = "connected",
    name: str = "web-01",
    on_poweroff: str = "destroy",
) -> str:
    """A domain as libvirt prints it.

    Args:
        cpu: its <cpu> element, or nothing.
        agent: the state of the guest agent's channel; "" for a channel without one, None for no channel.
    """
    state = f" state='{agent}'" if agent else ""
    target = f"<target type='virtio' name='org.qemu.guest_agent.0'{state}/>"
    channel = f"\n    <channel type='unix'>\n      {target}\n    </channel>" if agent is not None else ""
    return f"""\
<domain type='{kind}'>
  <name>{name}</name>
  <uuid>6695eb01-f6a4-8304-79aa-97f2502e193f</uuid>
  <memory unit='KiB'>196608</memory>
  <vcpu placement='static'>1</vcpu>
  <os>
    <type arch='{arch}' machine='pc-q35-7.2'>hvm</type>
    <boot dev='hd'/>
  </os>{f"{chr(10)}  {cpu}" if cpu else ""}
  <clock offset='utc'/>
  <on_poweroff>{on_poweroff}</on_poweroff>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>{channel}
    <memballoon model='none'/>
  </devices>
</domain>
"""


def features(**policies: str) -> str:
    """<feature> elements: svm="require" is what libvirt writes for it."""
    return "".join(f"\n    <feature policy='{policy}' name='{name}'/>" for name, policy in policies.items())


def custom(model: str, *, check: str = "partial", **policies: str) -> str:
    """A <cpu> with a named model."""
    return (
        f"<cpu mode='custom' match='exact' check='{check}'>\n"
        f"    <model fallback='forbid'>{model}</model>{features(**policies)}\n  </cpu>"
    )


def mode(name: str, *, check: str = "partial", **policies: str) -> str:
    """A <cpu> without a named model."""
    opening = f"<cpu mode='{name}' check='{check}' migratable='on'"
    return f"{opening}>{features(**policies)}\n  </cpu>" if policies else f"{opening}/>"


# What is drawn below is well-formed, and has what a parser by regular expression falls for.
_WORDS = st.text(alphabet=string.ascii_letters + " \n>'\"äß漢🖥]/=-", max_size=30).map(
    lambda text: text.replace("]]>", "")
)
_ATTRIBUTE = _WORDS.map(lambda text: text.replace("'", "").replace("\n", " "))
_LOOKALIKE = st.sampled_from(
    ("<cpu mode='custom'>", "</cpu>", "<cpu/>", "<cpu a='", "</domain>", "<vcpu>1</vcpu>", "<cputune/>")
)
_COMMENT = st.one_of(_WORDS, _LOOKALIKE).map(lambda text: f"<!--{text.replace('--', '')} -->")
_CDATA = st.one_of(_WORDS, _LOOKALIKE).map(lambda text: f"<description><![CDATA[{text}]]></description>")
_TITLE = st.tuples(_ATTRIBUTE, _WORDS).map(lambda pair: f"<title note='{pair[0]}'>{pair[1]}</title>")
_METADATA = st.tuples(_ATTRIBUTE, _LOOKALIKE).map(
    lambda pair: (
        f"<metadata><x:cpu xmlns:x='http://example.org/{len(pair[0])}' note='{pair[0]}'><cpu/>"
        f"<![CDATA[{pair[1]}]]></x:cpu><cpu xmlns='urn:other' mode='none'><model/></cpu></metadata>"
    )
)
_PLAIN = st.sampled_from(
    (
        "<vcpu placement='static'>2</vcpu>",
        "<cputune><shares>2048</shares></cputune>",
        "<devices><disk type='file'><source file='/a &gt; b &amp; c'/></disk></devices>",
        "<cpus>1</cpus>",
        "<?cpu mode='custom'?>",
        "\n  ",
    )
)
_BODY = st.lists(st.one_of(_COMMENT, _CDATA, _TITLE, _METADATA, _PLAIN), max_size=5).map("\n  ".join)

_POLICY = st.sampled_from(("require", "force", "optional", "disable", "forbid"))
_FEATURE = st.sampled_from(("vmx", "svm", "vmx", "svm", "avx2", "pcid", "vmx-ept", "x2apic")).flatmap(
    lambda name: _POLICY.map(lambda policy: f"<feature policy='{policy}' name='{name}'/>")
)
_MODEL = st.sampled_from(("EPYC", "Skylake-Client", "qemu64")).map(
    lambda name: f"<model fallback='allow'>{name}</model>"
)
_CHILD = st.one_of(
    _COMMENT, _FEATURE, st.sampled_from((TOPOLOGY, CACHE, ADDRESS_BITS, NUMA, "<vendor>AMD</vendor>"))
)
_OPENING = st.sampled_from(
    (
        "<cpu",
        "<cpu mode='custom' match='exact' check='full'",
        "<cpu mode='host-model' check='partial'",
        '<cpu mode="host-passthrough" check="none" migratable="on"',
        "<cpu mode='maximum' check='none'\n   migratable='on'",
        "<cpu mode='custom' match='a > b'",
        """<cpu match='say "/>"' """,
    )
)


@st.composite
def cpus(draw: st.DrawFn) -> str:
    """Any <cpu> element, also some that libvirt would refuse."""
    opening = draw(_OPENING)
    children = draw(st.lists(_CHILD, max_size=6))
    model = draw(_MODEL) if "custom" in opening and draw(st.booleans()) else ""
    if not children and not model and draw(st.booleans()):
        return f"{opening}/>"
    return f"{opening}>{model}{''.join(children)}</cpu{draw(st.sampled_from(('', ' ')))}>"


@st.composite
def domains(draw: st.DrawFn, cpu: st.SearchStrategy[str] | None = None) -> tuple[str, str, str]:
    """A domain in three pieces: before its <cpu>, the element (or nothing), after it."""
    declaration = draw(st.sampled_from(("", '<?xml version="1.0"?>\n', "<!-- <cpu/> -->\n")))
    head = f"{declaration}<domain type='kvm' xmlns:x='http://example.org/x'>\n  {draw(_BODY)}"
    element = draw(cpu if cpu is not None else st.one_of(cpus(), st.just("")))
    return head, element, f"{draw(_BODY)}\n</domain>\n"
