"""Ctrl-C at any moment of a power cycle of a real VM: it ends with 130, and the VM is as it was."""

from __future__ import annotations

import signal
import time

import pytest

from tests.e2e.shell import Shell, same_configuration


@pytest.mark.parametrize("delay", [0.05, 0.2, 0.4, 0.7, 1.1, 1.5])
def test_ctrl_c_after_any_while_ends_in_order(shell: Shell, delay: float) -> None:
    """The signal may come while libvirt's C reports an error to a handler in Python, or while it waits."""
    name = shell.rig.make()
    before = shell.rig.see(name)
    process = shell.start("enable", "--libvirt", name, "--yes", "--timeout", "60")
    shell.until_it_says(process, "stopping")
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    after = shell.rig.see(name)
    if "not proven" in err:  # it was quicker than the signal
        assert (after.nested, after.running) == (True, True)
    else:
        assert same_configuration(after, before), err
