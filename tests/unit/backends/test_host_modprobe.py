"""Which line of modprobe.d, or word of the kernel's command line, decides a parameter."""

from __future__ import annotations

import pytest

from nestvirt.backends.host.modprobe import Word, file_after, in_order, words

ETC, RUN, LIB = "/etc/modprobe.d", "/run/modprobe.d", "/usr/lib/modprobe.d"
OURS = "# ours"


def found(files: dict[str, str], cmdline: str = "", module: str = "kvm_amd") -> list[tuple[str, int, str]]:
    return [(word.path, word.line, word.value) for word in words(files, cmdline, module, "nested")]


def test_files_are_read_by_name_whatever_their_folder() -> None:
    files = {f"{LIB}/b.conf": "", f"{ETC}/c.conf": "", f"{RUN}/a.conf": "", "/srv/d.conf": ""}
    assert in_order(files) == [f"{RUN}/a.conf", f"{LIB}/b.conf", f"{ETC}/c.conf"]


def test_name_in_an_earlier_folder_hides_the_same_in_a_later_one() -> None:
    files = {f"{LIB}/kvm.conf": "options kvm_amd nested=1", f"{ETC}/kvm.conf": "# nothing"}
    assert found(files) == []


def test_last_word_comes_last_and_the_command_line_after_all_files() -> None:
    files = {
        f"{ETC}/zz.conf": "options kvm_amd nested=1",
        f"{ETC}/kvm.conf": "\noptions kvm-amd npt=1 nested=0\n",
    }
    assert found(files, "ro kvm-amd.nested=0 quiet") == [
        (f"{ETC}/kvm.conf", 2, "0"),
        (f"{ETC}/zz.conf", 1, "1"),
        ("/proc/cmdline", 0, "0"),
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("options kvm_amd nested=1", "1"),
        ("options kvm_amd nested", "1"),
        ("options\tkvm-amd\tnested=Y # why", "Y"),
        ("options kvm_amd npt=1 \\\n nested=0", "0"),
        ("options kvm_amd nested=1 nested=0", "0"),
        ('options kvm_amd "nested=1"', "1"),
        ("install kvm_amd /sbin/modprobe --ignore-install kvm_amd nested=1", "1"),
        ("# options kvm_amd nested=1", None),
        ("options kvm_intel nested=1", None),
        ("options kvm_amd nestedness=1", None),
        ("options kvm_amd", None),
        ("alias kvm_amd nested=1", None),
        ("options kvm_amd nested='1", "'1"),
        ("", None),
    ],
)
def test_line(text: str, value: str | None) -> None:
    values = [word[2] for word in found({f"{ETC}/a.conf": text})]
    assert (values[-1] if values else None) == value


def test_line_is_numbered_where_it_begins() -> None:
    assert found({f"{ETC}/a.conf": "#\n\noptions kvm_amd \\\nnpt=1 \\\nnested=1\n"}) == [
        (f"{ETC}/a.conf", 3, "1")
    ]


@pytest.mark.parametrize("value", ["1", "Y", "y", "yes", "on", "true"])
def test_true_as_the_kernel_reads_it(value: str) -> None:
    assert Word("f", 1, value).on


@pytest.mark.parametrize("value", ["0", "N", "n", "off", "", "false"])
def test_false(value: str) -> None:
    assert not Word("f", 1, value).on


def after(files: dict[str, str]) -> str:
    return file_after(files, words(files, "", "kvm_amd", "nested"), "zz-nestvirt.conf", OURS)


def test_our_file_sorts_after_all_that_set_it_and_is_nobody_elses() -> None:
    assert after({}) == f"{ETC}/zz-nestvirt.conf"
    assert after({f"{ETC}/kvm.conf": "options kvm_amd nested=0"}) == f"{ETC}/zz-nestvirt.conf"
    late = {f"{LIB}/zzz.conf": "options kvm_amd nested=0"}
    assert after(late) == f"{ETC}/zzzz-nestvirt.conf"
    foreign = {f"{ETC}/zz-nestvirt.conf": "options kvm_amd npt=1"}
    assert after(foreign) == f"{ETC}/zzz-nestvirt.conf"
    own = {f"{ETC}/zz-nestvirt.conf": f"{OURS}\noptions kvm_amd nested=0"}
    assert after(own) == f"{ETC}/zz-nestvirt.conf"
    assert after({**own, **late}) == f"{ETC}/zzzz-nestvirt.conf"
