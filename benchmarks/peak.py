"""What a command takes: seconds, and its largest resident size."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence

# Linux counts what a process was before its exec as well: a child of this large one would seem as large.
BETWEEN = """
import json, resource, subprocess, sys, time
null, start = subprocess.DEVNULL, time.perf_counter()
subprocess.run(sys.argv[1:], stdin=null, stdout=null, stderr=null)
seconds = time.perf_counter() - start
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024]))
"""


def taken(command: Sequence[str], environment: Mapping[str, str] | None = None) -> tuple[float, float]:
    """Seconds of a command, and MiB at its peak."""
    words = [sys.executable, "-I", "-S", "-c", BETWEEN, *command]
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, check=True)
    seconds, mebibytes = json.loads(done.stdout)
    return float(seconds), float(mebibytes)
