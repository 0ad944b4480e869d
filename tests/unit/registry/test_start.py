"""Importing the wire costs no HTTP library: a build whose bases are here needs none."""

from __future__ import annotations

import subprocess
import sys


def test_no_http_library_is_loaded_before_the_first_call() -> None:
    program = (
        "import sys, img.registry as r\n"
        "r.Registry(keychain=r.ConfigFile('/nonexistent'), options=r.Options())\n"
        "print(*{'requests', 'urllib3', 'ssl', 'email', 'subprocess'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(filter(None, sys.path))},
    )
    assert done.stdout.strip() == ""
