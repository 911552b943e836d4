"""``make demo``: a libvirt VM without nesting becomes one that provably nests, and is put back again.

Everything is real: libvirt, QEMU (emulating an AMD machine, so that no hardware is asked for), a booted
Debian kernel, its guest agent. The machine's own libvirt is neither used nor changed.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.lab.libvirtd import LibvirtLab

VM = "web-01"
STORY = [
    ("A VM as most are: nobody has thought of nesting. What does it lack?", ["check", "--libvirt", VM], 1),
    ("What would be changed?", ["enable", "--libvirt", VM, "--dry-run"], 0),
    ("Change it: stop, write, read back, start, and prove it.", ["enable", "--libvirt", VM, "--yes"], 0),
    ("It stays so: guest code runs in the guest.", ["check", "--libvirt", VM], 0),
    ("Put back exactly what was changed.", ["undo", "--yes"], 0),
]


def main() -> int:
    """Tell the story; 0 where every step ended as it should."""
    print(f"demo: bringing up a libvirt of its own, with a VM called {VM} (the first time takes a minute)")
    with LibvirtLab() as lab, tempfile.TemporaryDirectory() as state:
        lab.define(VM, svm=False)
        lab.start(VM)
        lab.wait_agent(VM)
        before = lab.virsh("dumpxml", "--inactive", VM)
        environment = {**os.environ, "LIBVIRT_DEFAULT_URI": lab.uri, "NESTVIRT_STATE_DIR": state}
        for title, arguments, expected in STORY:
            print(f"\n\n### {title}\n$ nestvirt {shlex.join(arguments)}", flush=True)
            program = Path(sys.executable).with_name("nestvirt")
            code = subprocess.run([program, *arguments], env=environment, check=False).returncode
            if code != expected:
                print(f"demo: exit code {code} where {expected} was expected", file=sys.stderr)
                return 1
        if lab.virsh("dumpxml", "--inactive", VM) != before:
            print("demo: the definition is not what it was", file=sys.stderr)
            return 1
        print(f"\n\n### virsh agrees: the definition of {VM} is byte for byte what it was before.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
