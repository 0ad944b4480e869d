"""A root of a later Debian, with the newest buildah and docker.io in it, for `--new FOLDER`.

mmdebstrap makes it once, from the archive that this machine's own apt uses. `words` gives what runs a
command in it: in a mount namespace of its own, so that nothing is left mounted, with the benches' folder at
its own path.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from benches.measure import Failed
from tests.support import debian

PACKAGES = (
    "buildah",
    "docker.io",
    "docker-cli",
    "docker-buildx",
    "containerd",
    "runc",
    "ca-certificates",
    "netavark",
)

_ENTER = """
root=$1; seen=$2; shift 2
mount --bind "$root" "$root"
mount --rbind /proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mkdir -p "$root/$seen"
mount --rbind "$seen" "$root/$seen"
mount -t tmpfs tmpfs "$root/run"
exec chroot "$root" "$@"
"""


def words(root: Path, seen: Path) -> tuple[str, ...]:
    """What runs the command behind it in that root.

    Args:
        seen: A folder that is at the same path inside.
    """
    enter = ("unshare", "--mount", "--propagation", "slave", "sh", "-ec", _ENTER, "later")
    return (*enter, str(root.resolve()), str(seen.resolve()))


def make(root: Path, suite: str) -> None:
    """Makes the root where it is not there yet.

    Raises:
        Failed: not root, or mmdebstrap failed; nothing is left behind.
    """
    if (root / "etc" / "img-bench").exists():
        return
    if os.geteuid() != 0:
        raise Failed("--new needs root: a chroot is entered")
    debian.write_root(root, suite, PACKAGES)
    (root / "etc" / "img-bench").write_text(f"{suite}\n")


def tidy(root: Path) -> None:
    """Removes a root."""
    subprocess.run(["rm", "-rf", "--one-file-system", str(root)], check=True)
