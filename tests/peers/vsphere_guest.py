"""What the guests of the vSphere peer find on their PATH: programs of this machine, a python3, and a sh.

The last two answer nestvirt's probe and its reading in shell by what their VM was started with, and do
nothing else with them; any other script is run.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from nestvirt.guest import verify
from tests.peers.guest_answers import NO_FLAG, WORKS, probe_answer, reading_answer

TOOLS = """
    cat chmod cut dd env grep head id kill ls mkdir mktemp mv printf rm rmdir sed sleep stat tail test timeout
    touch tr true uname wc
"""

PYTHON = """\
#!/bin/sh
# python3 -I FILE | -, with nestvirt's probe and no other program
[ "$1" = -I ] || { echo "this guest's python3 knows -I only" >&2; exit 2; }
file=$2
[ "$file" = - ] && file=/dev/stdin
/usr/bin/cmp -s "$file" "$NV_ANSWERS/probe.py" || { echo "this guest runs the probe only" >&2; exit 2; }
state=$(/bin/cat "$NV_INSIDE")
/bin/cat "$NV_ANSWERS/probe-$state.json"
[ "$state" = works ]
"""

SHELL = """\
#!/bin/sh
# sh -s | sh FILE, with nestvirt's reading; another script is run
case "$1" in
  -s) script=$(/bin/mktemp) && /bin/cat >"$script" && set -- "$script" ;;
  *) script= ;;
esac
if /usr/bin/cmp -s "$1" "$NV_ANSWERS/reading.sh"; then
  state=$(/bin/cat "$NV_INSIDE")
  /bin/cat "$NV_ANSWERS/reading-$state.json"
  if [ "$state" = works ]; then code=3; else code=1; fi
else
  /bin/sh "$@"
  code=$?
fi
[ -z "$script" ] || /bin/rm "$script"
exit "$code"
"""


def furnish(folder: Path) -> None:
    """Fill a folder with them."""
    programs, python = folder / "bin", folder / "python"
    for each in (programs, python):
        each.mkdir(parents=True)
    for tool in TOOLS.split():
        if found := shutil.which(tool, path="/usr/bin:/bin"):
            (programs / tool).symlink_to(found)
    for place, text in ((python / "python3", PYTHON), (programs / "sh", SHELL)):
        place.write_text(text)
        place.chmod(0o755)
    scripts = Path(verify.__file__).parent
    for name in ("probe.py", "reading.sh"):
        shutil.copyfile(scripts / name, folder / name)
    for state in (WORKS, NO_FLAG):
        (folder / f"probe-{state}.json").write_text(probe_answer(state))
        (folder / f"reading-{state}.json").write_text(reading_answer(state))
