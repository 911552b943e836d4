"""Which line of modprobe.d, or word of the kernel's command line, decides a parameter."""

from __future__ import annotations

import pytest

from nestvirt.backends.host.modprobe import Word, blacklist_lines, file_after, in_order, install_lines, words

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
        ("options kvm_amd nested", ""),
        ("options\tkvm-amd\tnested=Y # why", "Y"),
        ("options kvm_amd npt=1 \\\n nested=0", "0"),
        ("options kvm_amd nested=1 nested=0", "0"),
        ('options kvm_amd "nested=1"', "1"),
        ("install kvm_amd /sbin/modprobe --ignore-install kvm_amd nested=1", None),
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


def test_install_lines_are_named() -> None:
    files = {f"{ETC}/a.conf": "# x\ninstall kvm-amd /bin/false\ninstall kvm_intel /bin/false"}
    assert install_lines(files, "kvm_amd") == [f"{ETC}/a.conf:2"]


def test_blacklist_lines_are_named() -> None:
    assert blacklist_lines({f"{ETC}/a.conf": "\nblacklist kvm-amd\n"}, "kvm_amd") == [f"{ETC}/a.conf:2"]


@pytest.mark.parametrize(
    ("cmdline", "value"),
    [
        ("root=ZFS=a#b kvm_amd.nested=0", "0"),
        ("a='x kvm_amd.nested=0 b='y", "0"),
        ('x="kvm_amd.nested=1 y" kvm-amd.nested=0', "0"),
        ('"kvm_amd.nested=1"', "1"),
        ("kvm_amd.nested", ""),
        ("xkvm_amd.nested=1", None),
    ],
)
def test_command_line_is_split_as_the_kernel_splits_it(cmdline: str, value: str | None) -> None:
    assert [word[2] for word in found({}, cmdline)] == ([] if value is None else [value])


@pytest.mark.parametrize(
    ("value", "boolean", "integer"),
    [
        ("1", True, True),
        ("0", False, False),
        ("2", None, True),
        ("0x1", False, True),  # kstrtobool looks at the first character
        ("Y", True, None),
        ("y", True, None),
        ("on", True, None),
        ("true", True, None),
        ("N", False, None),
        ("off", False, None),
        ("false", False, None),
        ("", True, None),
        ("o", None, None),
        ("maybe", None, None),
    ],
)
def test_value_as_the_kernel_reads_it(value: str, boolean: bool | None, integer: bool | None) -> None:
    assert Word("f", 1, value).on is boolean
    assert Word("f", 1, value, integer=True).on is integer


def after(files: dict[str, str]) -> str:
    return file_after(files, words(files, "", "kvm_amd", "nested"), "zz-nestvirt.conf", OURS)


def test_our_file_sorts_after_all_that_set_it_and_is_nobody_elses() -> None:
    assert after({}) == f"{ETC}/zz-nestvirt.conf"
    assert after({f"{ETC}/kvm.conf": "options kvm_amd nested=0"}) == f"{ETC}/zz-nestvirt.conf"
    late = {f"{LIB}/zzz.conf": "options kvm_amd nested=0"}
    assert after(late) == f"{ETC}/zzzz-nestvirt.conf"
    foreign = {f"{LIB}/zz-nestvirt.conf": "options kvm_amd npt=1"}
    assert after(foreign) == f"{ETC}/z-nestvirt.conf"
    setting = {f"{ETC}/zz-nestvirt.conf": "options kvm_amd nested=0"}
    assert after(setting) == f"{ETC}/zz-nestvirtz-nestvirt.conf"
    own = {f"{ETC}/zz-nestvirt.conf": f"{OURS}\noptions kvm_amd nested=0"}
    assert after(own) == f"{ETC}/zz-nestvirt.conf"
    assert after({**own, **late}) == f"{ETC}/zzzz-nestvirt.conf"


@pytest.mark.parametrize("name", ["~kvm.conf", "{x}.conf", "\u00fc.conf", "z~.conf", "zzzz.conf", "zz.conf"])
def test_our_file_sorts_after_whatever_name(name: str) -> None:
    path = after({f"{ETC}/{name}": "options kvm_amd nested=0"})
    assert path.rpartition("/")[2] > name
    assert path.endswith("nestvirt.conf")
