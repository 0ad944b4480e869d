"""A store on a disk of its own that is soon full: no privilege is needed to have one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support import hosts
from tests.support.command import Img


def in_little_room(img: Img, state: Path, script: str) -> str:
    """Runs a shell script where `state` is a tmpfs of 40 MiB; gives all that was written.

    Args:
        img: Whose environment the script has.
        state: Existing folder, the store of the script's `img`. It is empty again afterwards.
        script: What to run; `img` in it is the command with that store.
    """
    prepared = f"""
        set -u
        mount -t tmpfs -o size=40m,mode=755 tmpfs {state}
        img() {{ {sys.executable} -m img --state {state} "$@"; }}
    """
    done = subprocess.run(
        [*hosts.inside("unshare", "--mount", "sh", "-c", prepared + script)],
        env=img.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    return done.stdout
