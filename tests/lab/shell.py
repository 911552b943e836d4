"""``make lab``: a shell in which nestvirt, and a VM without nesting, are there to be tried.

The VM is the demo's: it runs under a libvirt of its own, and is gone when the shell ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.lab.demo import VM
from tests.lab.libvirtd import LibvirtLab


def main() -> int:
    """Bring the VM up, run the shell (or the words given), and take all of it away again."""
    words = sys.argv[1:] or [os.environ.get("SHELL", "/bin/sh")]
    print(f"lab: bringing up a libvirt of its own, with a VM called {VM} (the first time takes a minute)")
    with LibvirtLab() as lab, tempfile.TemporaryDirectory() as state:
        lab.define(VM, svm=False)
        lab.start(VM)
        lab.wait_agent(VM)
        own = {
            "LIBVIRT_DEFAULT_URI": lab.uri,
            "NESTVIRT_STATE_DIR": state,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        print(
            f"lab: nestvirt and virsh see {VM} in this shell; leave it with exit, and all of it is gone",
            flush=True,
        )
        return subprocess.run(words, env={**os.environ, **own}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
