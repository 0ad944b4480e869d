"""The relay between a step and an ssh agent: what passes, what does not, and how it ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from img.builder.perform.agents import Relay, reached
from img.errors import ImgError, UsageError


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A private key without a passphrase."""
    path = tmp_path / "key"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "tested", "-f", str(path)], check=True
    )
    return path


@pytest.fixture
def agent(tmp_path: Path, key: Path) -> Iterator[str]:
    """The socket of an agent that holds the key."""
    folder = tmp_path / "agent"
    folder.mkdir()
    with reached((str(key),), "default", folder) as path:
        yield path


@pytest.fixture
def relay(tmp_path: Path, agent: str) -> Iterator[Path]:
    """The socket of a relay, below a folder with a name longer than an address."""
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    made = Relay(folder / "s", agent)
    short = tmp_path / "s"
    short.symlink_to(folder / "s")
    yield short
    made.close()


def ask(path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs ssh-add."""
    return subprocess.run(
        ["ssh-add", *words],
        cwd=path.parent,
        env={**os.environ, "SSH_AUTH_SOCK": path.name},  # an address holds 108 bytes
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_keys_are_listed_and_used(relay: Path, key: Path) -> None:
    assert "tested" in ask(relay, "-L").stdout
    assert ask(relay, "-T", f"{key}.pub").returncode == 0, "it signs"


def test_the_agent_cannot_be_changed(relay: Path, agent: str, key: Path) -> None:
    for words in (("-D",), ("-d", f"{key}.pub"), (str(key),)):
        assert ask(relay, *words).returncode != 0, words
    assert "tested" in ask(Path(agent), "-L").stdout


def test_what_is_no_message_ends_its_connection_alone(
    relay: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for data in (struct.pack(">I", 0), struct.pack(">I", 1 << 30) + b"x", b"\0"):
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(relay.name)
            caller.sendall(data)
            caller.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                assert caller.recv(1) == b""
    assert ask(relay, "-L").returncode == 0


def test_closing_ends_callers_that_wait(tmp_path: Path, agent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = Relay(tmp_path / "s", agent)
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect("s")
        caller.sendall(struct.pack(">IB", 1, 11))
        assert caller.recv(4)
        made.close()
        while caller.recv(4096):
            pass
    made.close()


def test_an_agent_that_is_not_there_ends_the_connection(tmp_path: Path) -> None:
    made = Relay(tmp_path / "s", str(tmp_path / "nobody"))
    assert ask(tmp_path / "s", "-L").returncode != 0
    made.close()


def test_an_agent_for_keys_ends_with_its_block(tmp_path: Path, key: Path) -> None:
    with reached((str(key),), "default", tmp_path) as path:
        assert "tested" in ask(Path(path), "-L").stdout
    assert ask(Path(path), "-L").returncode != 0


def test_what_is_neither_socket_nor_key_is_told(tmp_path: Path, key: Path, agent: str) -> None:
    for given in ((str(tmp_path),), (str(tmp_path / "nothing"),), (agent, str(key))):
        with pytest.raises(UsageError, match="socket"), reached(given, "default", tmp_path):
            pass


def test_a_key_with_a_passphrase_is_told_and_its_agent_ends(tmp_path: Path) -> None:
    path = tmp_path / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "hunter22", "-f", str(path)], check=True)
    with pytest.raises(ImgError, match="passphrase") as caught, reached((str(path),), "me", tmp_path):
        pass
    assert "--ssh id=" in caught.value.hint


def test_without_openssh_keys_are_refused_by_the_programs_name(
    tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    real = shutil.which("ssh-agent")
    assert real
    (programs / "ssh-agent").symlink_to(real)
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(ImgError, match="ssh-add") as caught, reached((str(key),), "me", tmp_path):
        pass
    assert "OpenSSH" in caught.value.hint
