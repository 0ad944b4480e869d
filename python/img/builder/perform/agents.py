"""`Relay`: an ssh agent as a step sees it: a socket of the builder's that passes on what may be asked.

`perform.mounts` makes one for each `RUN --mount=type=ssh`. The step's user needs no access to the real
socket, and cannot change the agent: keys may be listed and used for signing, and nothing else is
passed on. No key ever enters this process; where the caller gave key files, OpenSSH's own agent
holds them for the length of the step.
Source: draft-ietf-sshm-ssh-agent, sections 3 and 5.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from img.errors import ImgError, UsageError

_FAILURE = b"\x05"
_PASSED_ON = (11, 13)
"""SSH_AGENTC_REQUEST_IDENTITIES and SSH_AGENTC_SIGN_REQUEST."""

_LONGEST = 256 * 1024
"""Bytes of the longest message, as OpenSSH has it."""


class Relay:
    """Listens at a socket and speaks to an agent for each of its callers, until `close`."""

    def __init__(self, path: Path, agent: str) -> None:
        """Starts listening.

        Args:
            path: Where the socket is made; its folder exists.
            agent: The real agent's socket.
        """
        self._agent = agent
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _bind(self._listener, path)
            self._listener.listen(16)
        except BaseException:
            self._listener.close()
            raise
        self._start(self._serve)

    def close(self) -> None:
        """Ends every connection and waits for the threads; safe to call twice."""
        with self._lock:
            self._closed = True
            for end in (self._listener, *self._open):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _start(self, work: object, *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _serve(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return  # closed
            agent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            with self._lock:
                if self._closed:
                    caller.close()
                    agent.close()
                    return
                self._open |= {caller, agent}
                self._start(self._speak, caller, agent)

    def _speak(self, caller: socket.socket, agent: socket.socket) -> None:
        """One connection: each request has its answer before the next one is read."""
        try:
            _connect(agent, self._agent)
            while (request := _message(caller)) is not None:
                answer: bytes | None = _FAILURE
                if request[:1] and request[0] in _PASSED_ON:
                    _send(agent, request)
                    answer = _message(agent)
                if answer is None:
                    return
                _send(caller, answer)
        except OSError:
            return  # either side went; the other one sees its end
        finally:
            with self._lock:
                self._open -= {caller, agent}
            caller.close()
            agent.close()


@contextmanager
def reached(agent: tuple[str, ...], id: str, folder: Path) -> Iterator[str]:
    """Gives the socket of what the caller named: its own, or that of an agent started for its keys.

    Raises:
        UsageError: it is neither a socket nor key files.
        ImgError: OpenSSH is missing, or cannot use a key.
    """
    sockets = [path for path in agent if Path(path).is_socket()]
    if len(agent) == 1 and sockets:
        yield agent[0]
        return
    if sockets:
        raise UsageError(f"--ssh {id}: {sockets[0]} is a socket, which stands alone")
    for path in agent:
        if not Path(path).is_file():
            raise UsageError(f"--ssh {id}: {path} is neither a socket nor a key file")
    with _started(agent, id, folder) as path:
        yield path


@contextmanager
def _started(keys: tuple[str, ...], id: str, folder: Path) -> Iterator[str]:
    """An agent of OpenSSH with these keys, ended with the block, or soon after this process."""
    for program in ("ssh-agent", "ssh-add"):
        from shutil import which  # few builds have keys

        if which(program) is None:
            raise ImgError(
                f"--ssh {id}: keys need {program}, which is not here",
                hint="install the OpenSSH client, or name the socket of an agent: --ssh id=SOCKET",
            )
    # The agent ends when the program that it runs does, and that ends when our pipe does: a kill of
    # this process leaves no agent that holds keys.
    name = f"agent-{os.getpid()}"  # whose it is, for who looks at processes; a path may be too long
    command = ["ssh-agent", "-a", name, "sh", "-c", 'echo "$SSH_AGENT_PID"; cat']
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(folder)}
    waiting = subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    assert waiting.stdin is not None and waiting.stdout is not None
    try:
        number = waiting.stdout.readline().strip()
        if not number.isdigit():
            raise ImgError(f"--ssh {id}: ssh-agent did not start")
        try:
            for key in keys:
                _add(key, id, folder, {**environment, "SSH_AUTH_SOCK": name})
            yield str(folder / name)
        finally:
            with suppress(ProcessLookupError):
                os.kill(int(number), signal.SIGTERM)
    finally:
        waiting.stdin.close()
        waiting.stdout.close()
        waiting.wait()


def _add(key: str, id: str, folder: Path, environment: dict[str, str]) -> None:
    """Gives the agent a key. Nobody is asked for a passphrase: a build cannot be."""
    done = subprocess.run(
        ["ssh-add", "-q", "--", os.path.abspath(key)],
        cwd=folder,
        env={**environment, "SSH_ASKPASS_REQUIRE": "never"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        start_new_session=True,
        check=False,
    )
    if done.returncode:
        raise ImgError(
            f"--ssh {id}: the key {key} cannot be used: it has a passphrase, or others may read it",
            hint="add it to an agent of your own with ssh-add, and give its socket: --ssh id=$SSH_AUTH_SOCK",
        )


# ---- sockets --------------------------------------------------------------------------------------


def _bind(listener: socket.socket, path: Path) -> None:
    """Binds at a path of any length: an address holds 108 bytes, so the folder goes by descriptor."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


def _connect(agent: socket.socket, path: str) -> None:
    folder = os.open(os.path.dirname(path) or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        agent.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
    finally:
        os.close(folder)


def _send(to: socket.socket, message: bytes) -> None:
    to.sendall(struct.pack(">I", len(message)) + message)


def _message(source: socket.socket) -> bytes | None:
    """One message without its length; None at the end, or where it is too long to be one."""
    head = _exactly(source, 4)
    if head is None:
        return None
    (length,) = struct.unpack(">I", head)
    return _exactly(source, length) if 0 < length <= _LONGEST else None


def _exactly(source: socket.socket, count: int) -> bytes | None:
    data = bytearray()
    while len(data) < count:
        piece = source.recv(count - len(data))
        if not piece:
            return None
        data += piece
    return bytes(data)
