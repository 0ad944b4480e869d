"""Other people's tools, each with storage of its own, to check results with."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.support import hosts, trees

# Root of a container may lack CAP_SYS_RESOURCE: ask for limits that anybody may set.
LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")


class Peers:
    """podman and buildah over one throw-away storage; skopeo and umoci need none."""

    def __init__(self, folder: Path) -> None:
        """`folder`: where the storage goes; made here, removed by `close`."""
        self.folder = folder
        folder.mkdir(parents=True)
        # podman takes no run folder of more than 50 characters.
        self.short = Path(tempfile.mkdtemp(prefix="pr", dir="/tmp"))

    def close(self) -> None:
        """Removes the storage."""
        hosts.remove_tree(self.folder)
        hosts.remove_tree(self.short)

    def run(self, *command: str, timeout: float = 600) -> str:
        """Runs a tool to its good end; gives its standard output."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"$ {' '.join(command)}\n{done.stdout}{done.stderr}"
        return done.stdout

    def podman(self, *args: str) -> str:
        """podman with runc, which runs on every layout of control groups."""
        options = [*self._storage(), "--runtime", "runc", "--cgroup-manager", "cgroupfs"]
        return self.run("podman", *options, "--tmpdir", str(self.folder / "tmp"), *args)

    def podman_run(self, image: str, *args: str) -> str:
        """Runs a container to its end; gives its standard output."""
        return self.podman("run", "--rm", "--network=none", *LIMITS, image, *args)

    def buildah(self, *args: str) -> str:
        """buildah, whose RUN needs no runtime."""
        return self.run("buildah", *self._storage(), *args)

    def bud(self, context: Path, tag: str, *args: str) -> trees.ReadImage:
        """Builds with buildah and reads the result."""
        common = ["--isolation=chroot", "--tls-verify=false", "--layers", "--format=oci"]
        self.buildah("bud", *common, "-t", tag, *args, str(context))
        archive = self.folder / "built.tar"
        archive.unlink(missing_ok=True)
        self.buildah("push", tag, f"oci-archive:{archive}")
        return without_marks(trees.read_image(archive))

    def _storage(self) -> Sequence[str]:
        folder = self.folder
        return (
            "--root",
            f"{folder}/root",
            "--runroot",
            f"{self.short}/s",
            "--storage-driver",
            "overlay",
        )

    def _environment(self) -> dict[str, str]:
        passed = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(self.folder),
            "XDG_RUNTIME_DIR": str(self.short),
            "TMPDIR": str(self.folder),
            **passed,
        }


def without_marks(image: trees.ReadImage) -> trees.ReadImage:
    """The image without overlay's own marks, which an old buildah leaves in layers of an ordinary user."""
    tree = {
        path: dataclasses.replace(
            entry, xattrs=tuple(x for x in entry.xattrs if not x[0].startswith("user.overlay."))
        )
        for path, entry in image.tree.items()
    }
    return dataclasses.replace(image, tree=tree)
