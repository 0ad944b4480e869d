"""Logins that img and other tools leave for each other."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.command import Img
from tests.support.registry import Registry, copy

pytestmark = pytest.mark.once

USER, PASSWORD = "ali", "open sesame"
# The password, hashed with bcrypt at its lowest cost.
HTPASSWD = f"{USER}:$2b$04$VI3hoehx4mKMBVB/jDnVfeKnUck.5WxPzjgvVjKHETUK.VLYBdb3O"


def test_each_finds_what_the_other_left(img: Img, busybox_layout: Path, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.json", tmp_path / "theirs.json"
    env = {**img.environment(), "XDG_RUNTIME_DIR": str(tmp_path)}

    def skopeo(*words: str | Path, stdin: str = "") -> str:
        done = subprocess.run(
            ["skopeo", *words], env=env, input=stdin, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    with Registry(tmp_path / "registry", htpasswd=HTPASSWD) as registry:
        name = f"{registry.host}/team/busybox"
        copy(f"oci:{busybox_layout}:latest", f"docker://{name}", f"--dest-creds={USER}:{PASSWORD}")
        plain = "--tls-verify=false"
        img.ok(
            "login", "--authfile", ours, "-u", USER, "--password-stdin", f"{registry.host}/team",
            stdin=PASSWORD.encode(),
        )  # fmt: skip
        assert "Digest" in skopeo("inspect", plain, "--authfile", ours, f"docker://{name}")
        skopeo(
            "login",
            plain,
            "--authfile",
            theirs,
            "-u",
            USER,
            "--password-stdin",
            registry.host,
            stdin=PASSWORD,
        )
        assert img.ok("login", "--get-login", "--authfile", theirs, registry.host).stdout == f"{USER}\n"
        img.ok("pull", "--authfile", theirs, name)
        skopeo("logout", "--authfile", theirs, registry.host)
        img.fails(3, "pull", "--authfile", theirs, name)
