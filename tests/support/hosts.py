"""What this machine and this user can do, and cleaning up after ids that are not one's own."""

from __future__ import annotations

import functools
import os
import pwd
import shutil
import subprocess
from pathlib import Path


def is_root() -> bool:
    """Runs the suite as root?"""
    return os.geteuid() == 0


@functools.cache
def has_range() -> bool:
    """Has this ordinary user a range in /etc/subuid, and newuidmap to use it?"""
    if is_root() or shutil.which("newuidmap") is None:
        return False
    names = {pwd.getpwuid(os.geteuid()).pw_name, str(os.geteuid())}
    try:
        lines = Path("/etc/subuid").read_text().splitlines()
    except OSError:
        return False
    return any(line.split(":")[0] in names for line in lines)


def many_ids() -> bool:
    """Can a build here own files by other ids than one?"""
    return is_root() or has_range()


def inside(*command: str) -> list[str]:
    """The command, run as root over this user's own ids, where it is not root already."""
    if is_root():
        return list(command)
    ids = ["--map-auto"] if has_range() else []
    return ["unshare", "--user", "--map-root-user", *ids, "--", *command]


def remove_tree(path: Path) -> None:
    """Removes a tree whoever of this user's ids owns its parts."""
    if path.exists():
        subprocess.run(inside("rm", "-rf", "--one-file-system", str(path)), check=False, capture_output=True)
