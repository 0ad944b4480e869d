"""Runs the installed `img` as a person does: as a process, with a store of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import trees

PROGRAM = Path(sys.executable).parent / "img"
PASSED_ON = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "TMPDIR")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one command ended."""

    args: tuple[str, ...]
    code: int
    stdout: str
    stderr: str

    @property
    def text(self) -> str:
        """All that was written: what was said on the way, then the result."""
        return self.stderr + self.stdout

    def json(self) -> Any:
        """Standard output, parsed."""
        return json.loads(self.stdout)

    def __str__(self) -> str:
        return f"$ img {' '.join(self.args)}\nexit code {self.code}\n{self.text}"


class Img:
    """The console script with its own store and home.

    Attributes:
        state: The store's folder.
        home: The home folder; `.docker/config.json` goes here.
    """

    def __init__(self, state: Path, home: Path, *globals: str) -> None:
        """`globals` go before the verb of every call."""
        self.state = state
        self.home = home
        self.globals = globals

    def __call__(
        self,
        *args: str | Path,
        stdin: bytes | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 300,
    ) -> Outcome:
        """Runs one command to its end, whatever that is."""
        words = tuple(str(a) for a in args)
        done = subprocess.run(
            self.command(*words),
            input=stdin if stdin is not None else b"",
            capture_output=True,
            cwd=cwd or self.home,
            env={**self.environment(), **(env or {})},
            timeout=timeout,
            check=False,
        )
        return Outcome(
            args=words,
            code=done.returncode,
            stdout=done.stdout.decode(errors="replace"),
            stderr=done.stderr.decode(errors="replace"),
        )

    def ok(self, *args: str | Path, **options: Any) -> Outcome:
        """Runs one command that must succeed."""
        outcome = self(*args, **options)
        assert outcome.code == 0, str(outcome)
        return outcome

    def fails(self, code: int, *args: str | Path, **options: Any) -> Outcome:
        """Runs one command that must fail with this exit code, and with no traceback."""
        outcome = self(*args, **options)
        assert outcome.code == code, str(outcome)
        assert "Traceback" not in outcome.text, str(outcome)
        return outcome

    def start(self, *args: str | Path) -> subprocess.Popen[bytes]:
        """Starts one command in a session of its own; its output is one pipe."""
        return subprocess.Popen(
            # A shell's background job ignores SIGINT; what the tests start must not inherit that.
            ["env", "--default-signal=INT", *self.command(*(str(a) for a in args))],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.home,
            env=self.environment(),
            start_new_session=True,
        )

    def command(self, *args: str) -> list[str]:
        """The whole command line."""
        return [str(PROGRAM), "--state", str(self.state), *self.globals, *args]

    def environment(self) -> dict[str, str]:
        """A clean environment."""
        passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            **passed,
        }

    def build(self, context: Path, *args: str | Path, tag: str = "t", **options: Any) -> Outcome:
        """Builds a folder, which must succeed."""
        return self.ok("build", "-t", tag, *args, context, **options)

    def image(self, name: str = "t") -> trees.ReadImage:
        """Reads an image's files and configuration through `img save`."""
        archive = self.home / "saved.tar"
        archive.unlink(missing_ok=True)
        self.ok("save", "--format", "oci", "-o", archive, name)
        image = trees.read_image(archive)
        archive.unlink()
        return image


def steps_run(outcome: Outcome) -> list[str]:
    """The RUN and COPY steps that a plain build did not take from the cache: their titles, no reasons."""
    lines = outcome.stderr.splitlines()
    starts = [i for i, line in enumerate(lines) if line == "--->" and lines[i - 1].startswith("RUN ")]
    ran = (lines[i - 1] for i in starts if lines[i + 1] != "Using cache")
    return [line.rpartition("] (")[0] + "]" if line.endswith(")") else line for line in ran]
