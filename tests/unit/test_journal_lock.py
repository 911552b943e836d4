"""One run at a time works on a VM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nestvirt.errors import Busy
from nestvirt.journal import Journal
from nestvirt.model import Vm

VM = Vm("6695eb01-f6a4-8304-79aa-97f2502e193f", "web-01")
OTHER = Vm("0d1f6a0c-95f1-4b0f-8a42-b0a7bfd7a3a1", "web-02")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


HOLD = """
import sys
from pathlib import Path
from nestvirt.journal import Journal
from nestvirt.model import Vm
with Journal(Path(sys.argv[1])).lock("libvirt", Vm(sys.argv[2], "web-01")):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_another_process_is_kept_off_until_it_ends_however_it_ends(journal: Journal, tmp_path: Path) -> None:
    for end in (signal.SIGKILL, signal.SIGTERM, None):
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path), VM.id],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "locked\n"
            with pytest.raises(Busy, match="web-01") as caught, journal.lock("libvirt", VM):
                pytest.fail("two processes hold one lock")
            assert f"process {holder.pid} " in caught.value.evidence
            with journal.lock("libvirt", OTHER), journal.lock("other", VM):
                pass
            if end is not None:
                os.kill(holder.pid, end)
            holder.communicate()
        with journal.lock("libvirt", VM):
            pass


def test_a_lock_is_let_go_after_an_error(journal: Journal) -> None:
    with pytest.raises(ZeroDivisionError), journal.lock("libvirt", VM):
        raise ZeroDivisionError
    with journal.lock("libvirt", VM):
        pass
