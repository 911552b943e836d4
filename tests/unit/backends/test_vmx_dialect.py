"""The reader and writer of .vmx files: whatever the bytes, nothing changes but what shall."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestvirt.backends.workstation.dialect import Document, written

NAME = "vhv.enable"
ON = written(NAME, "TRUE")

ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
spaces = st.text(" \t", max_size=2)
fragments = st.sampled_from([*map(chr, range(256)), "vhv.enable", "VHV.Enable", "=", '"', "#", "|22", "TRUE"])


@st.composite
def definitions(draw: st.DrawFn) -> bytes:
    """A line that sets the name, in one of the forms that it can have."""
    name = draw(st.sampled_from([NAME, "VHV.Enable", "vhv.ENABLE"]))
    value = draw(st.sampled_from(["TRUE", '"FALSE"', '"|46ALSE"', '""', "", '"x # y"', '"perhaps"', "1"]))
    gaps = [draw(spaces) for _ in range(4)]
    comment = draw(st.sampled_from(["", "# by hand", "#\xe9\xff"]))
    return f"{gaps[0]}{name}{gaps[1]}={gaps[2]}{value}{gaps[3]}{comment}".encode("latin-1")


others = st.one_of(
    st.sampled_from(
        [b'memsize = "4"', b"# vhv.enable = 1", b"", b'vhv.enable2 = "x"', b"vhv.enable", b'x = "']
    ),
    st.lists(fragments, max_size=8)
    .map(lambda parts: "".join(parts).encode("latin-1").replace(b"\n", b"").replace(b"\r", b""))
    .filter(lambda raw: not Document.parse(raw).definitions(NAME)),
)


@st.composite
def files(draw: st.DrawFn, most: int = 3) -> bytes:
    """A file of one kind of line ends that is a VM's, with some definitions of the name in it."""
    end = draw(ends)
    count = draw(st.integers(0, most))
    lines = draw(st.lists(others, max_size=8)) + [draw(definitions()) for _ in range(count)]
    shuffled = draw(st.permutations(lines))
    whole = end.join([b'config.version = "8"', b'virtualHW.version = "9"', *shuffled]) + draw(
        st.sampled_from([b"", end])
    )
    return draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + whole


@given(st.one_of(st.binary(max_size=200), files()))
def test_what_is_read_is_written_again(data: bytes) -> None:
    assert bytes(Document.parse(data)) == data


@given(files(), st.sampled_from([ON, written(NAME, "FALSE"), "vhv.enable=no # x"]))
def test_setting_and_taking_back_gives_the_same_bytes(data: bytes, text: str) -> None:
    before = Document.parse(data)
    after = Document.parse(bytes(before.with_text(NAME, text)))
    assert after.text_of(NAME) == text
    assert bytes(after.with_text(NAME, before.text_of(NAME))) == data


@given(files(most=0))
def test_what_was_added_is_removed_and_added_again(data: bytes) -> None:
    added = Document.parse(bytes(Document.parse(data).with_text(NAME, ON)))
    removed = Document.parse(bytes(added.with_text(NAME, None)))
    assert bytes(removed) == data
    assert removed.with_text(NAME, ON) == added


@given(files())
def test_what_was_removed_comes_back(data: bytes) -> None:
    before = Document.parse(data)
    after = before.with_text(NAME, None).with_text(NAME, before.text_of(NAME))
    assert after.text_of(NAME) == before.text_of(NAME)


@given(files(), st.sampled_from([ON, None]))
def test_no_other_line_differs(data: bytes, text: str | None) -> None:
    before = Document.parse(data)
    after = before.with_text(NAME, text)

    def rest(document: Document) -> list[bytes]:
        return [line.raw for line in document.lines if line.name != NAME]

    assert rest(after) == rest(before)
    assert after.bom == before.bom
    assert bool(after.lines[-1].end) is bool(before.lines[-1].end)


@given(st.lists(st.tuples(others, ends), min_size=1, max_size=6), definitions(), ends, st.data())
def test_one_line_in_a_file_of_mixed_line_ends(
    rest: list[tuple[bytes, bytes]], line: bytes, end: bytes, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(rest)))
    pieces = [*rest[:place], (line, end), *rest[place:]]
    whole = b"".join(raw + ended for raw, ended in pieces)
    before = Document.parse(whole)
    was = before.text_of(NAME)
    after = before.with_text(NAME, ON)
    pieces[place] = (ON.encode(), end)
    assert bytes(after) == b"".join(raw + ended for raw, ended in pieces)
    assert bytes(Document.parse(bytes(after)).with_text(NAME, was)) == whole


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (b'a = "b"', b"b"),
        (b"a=b", b"b"),
        (b"\ta =\tb  # c", b"b"),
        (b"a =", b""),
        (b"a = # c", b""),
        (b'a = "b # c"', b"b # c"),
        (b'a = "|22b|22"', b'"b"'),
        (b'a = "|7C|0a|zz|"', b"|\n|zz|"),
        (b'a = b"c', b'b"c'),
        (b'a = "b" c', None),
        (b"a = b c", None),
        (b'a = "b', None),
        (b"a b = c", None),
        (b"= b", None),
        (b"# a = b", None),
        (b"#!/usr/bin/vmware", None),
        (b'a = "b\0"', None),
        (b"", None),
    ],
)
def test_a_line_is_read_as_vmware_reads_it(line: bytes, value: bytes | None) -> None:
    [read] = Document.parse(line + b"\n").lines
    assert (read.name is None, read.value) == ((True, b"") if value is None else (False, value))


@pytest.mark.parametrize(
    ("encoding", "codec", "text"),
    [
        ("UTF-8", "utf-8", "grün"),
        ("windows-1252", "cp1252", "na\xefve €"),
        ("GBK", "gbk", "测试乗"),
        ("Shift_JIS", "cp932", "表ソ①"),
        ("no-such", "utf-8", "grün"),
    ],
)
def test_text_is_read_by_the_encoding_line(encoding: str, codec: str, text: str) -> None:
    escaped = text.encode(codec).replace(b"|", b"|7C")
    document = Document.parse(f'.encoding = "{encoding}"\n'.encode() + b'displayName = "' + escaped + b'"\n')
    assert document.get("DISPLAYNAME") == text
    assert document.encoding == encoding
    assert document.legible


@pytest.mark.parametrize("encoding", ["UTF-16", "utf-32", "cp037", "ISO-2022-JP", "HZ", "utf-7-x\0"])
def test_encoding_that_hides_ascii_is_not_legible(encoding: str) -> None:
    assert not Document.parse(f'.encoding = "{encoding}"\n'.encode("latin-1")).legible


def test_last_definition_counts() -> None:
    document = Document.parse(b"\xef\xbb\xbfvhv.enable = 1\nx = 1\ny = 1\nVHV.enable = 0")
    assert document.get(NAME) == "0"
    assert document.numbers(NAME) == [1, 4]
    assert document.text_of(NAME) == "vhv.enable = 1\n(2 other lines)\nVHV.enable = 0"
    assert bytes(document.with_text(NAME, ON)) == b"\xef\xbb\xbfx = 1\ny = 1\n" + ON.encode()


def test_lines_that_are_further_apart_than_the_file_is_long_come_first() -> None:
    document = Document.parse(b"x = 1\nvhv.enable = 0\n")
    after = document.with_text(NAME, "vhv.enable = 1\n(9 other lines)\nvhv.enable = 0")
    assert bytes(after) == b"vhv.enable = 1\nx = 1\nvhv.enable = 0\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<nonsense a='b'/>",
        'memsize = "4"',
        "vhv.enable = 1\r",
        "vhv.enable = 1\rmemsize = 4",
        "vhv.enable = 1\n",
        "(1 other line)\nvhv.enable = 1",
        "vhv.enable = 1\n(1 other line)",
        "vhv.enable = 1\n(1 other line)\n(2 other lines)\nvhv.enable = 1",
        'vhv.enable = "\u20ac"',
        'vhv.enable = "x\0"',
    ],
)
def test_text_that_sets_something_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"sets|latin-1"):
        Document.parse(b"x = 1\n").with_text(NAME, text)
