"""An interrupt that comes several times is one; one that comes later insists."""

from __future__ import annotations

import subprocess
import sys

import pytest
from img.interrupts import SAME_SECONDS, Interrupts


def test_what_comes_again_at_once_breaks_nothing_off_and_what_comes_later_does() -> None:
    now = [100.0]
    interrupts = Interrupts(lambda: now[0])
    assert not interrupts.begun
    with pytest.raises(KeyboardInterrupt):
        interrupts()
    assert interrupts.begun
    now[0] += SAME_SECONDS * 0.9
    interrupts()
    now[0] += SAME_SECONDS * 0.9
    with pytest.raises(KeyboardInterrupt):
        interrupts()
    interrupts()


def test_ctrl_c_while_the_command_line_is_imported_is_told_as_one() -> None:
    code = (
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'img.cli': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "from img.__main__ import main\n"
        "main()\n"
    )
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (130, "img: interrupted\n")
