"""`pool_classes`: urllib3's connections with three clocks of their own.

A connection stands within its time whatever addresses a name has; an answer's head ends within its time,
however slowly it drips; a body, sent or received, that moves more slowly than a modem is given up. What ends
so is a `TimeoutError` to the library above, and has the words for it from `blame`.
Source: RFC 8305, sections 4 and 5, for trying addresses side by side.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import select
import selectors
import socket
import time
from typing import Any, Protocol

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from img.web.abandon import when_abandoned
from img.web.stretch import Stretch

_HEAD_START_SECONDS = 0.25
_SENT_PIECE_BYTES = 64 << 10
_IN_PROGRESS = (115, 36, 11)  # EINPROGRESS, its BSD number, EAGAIN


class Limits(Protocol):
    """The clocks. `least_bytes_per_second` is what must move on average within `read_seconds`."""

    @property
    def connect_seconds(self) -> float: ...
    @property
    def read_seconds(self) -> float: ...
    @property
    def least_bytes_per_second(self) -> float: ...


class TooSlow(TimeoutError):
    """A connection that moves, and too slowly."""


def pool_classes(given: Limits) -> dict[str, type[urllib3.HTTPConnectionPool]]:
    """Gives the pools of connections for each scheme, as a pool manager takes them."""

    class Answer(_Answer):
        limits = given

    class Plain(_Timed, HTTPConnection):
        limits = given
        response_class = Answer

    class Secure(_Timed, HTTPSConnection):
        limits = given
        response_class = Answer

    class PlainPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


class _Timed(HTTPConnection):
    """What both kinds of connection have in common; stands before urllib3's own class."""

    limits: Limits

    def _new_conn(self) -> socket.socket:
        """Opens the connection, with urllib3's errors."""
        host = self._dns_host.strip("[]")
        try:
            host.encode("idna")
        except UnicodeError as error:
            raise urllib3.exceptions.LocationParseError(host) from error
        seconds = self.limits.connect_seconds
        try:
            found = socket.getaddrinfo(host, self.port or 0, 0, socket.SOCK_STREAM)
            sock = connect(found, seconds)
        except TimeoutError as error:
            raise urllib3.exceptions.ConnectTimeoutError(self, f"none within {seconds:g} s") from error
        except OSError as error:
            raise urllib3.exceptions.NewConnectionError(self, str(error.strerror)) from error
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def getresponse(self) -> Any:
        """Waits for an answer's head, which ends early where the work is abandoned."""
        with when_abandoned(self._abandon):
            return super().getresponse()

    def _abandon(self) -> None:
        sock = self.sock
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def send(self, data: Any) -> None:
        """Sends in pieces, each of which has the time that a connection may be silent."""
        if isinstance(data, Stretch):
            self._send_stretch(data)
            return
        if not isinstance(data, bytes) or len(data) <= _SENT_PIECE_BYTES:
            self._send(data)
            return
        view = memoryview(data)
        for start in range(0, len(view), _SENT_PIECE_BYTES):
            self._send(view[start : start + _SENT_PIECE_BYTES])

    def _send(self, data: Any) -> None:
        if (
            self.sock is not None
        ):  # urllib3 leaves the time for connecting there, and sendall takes it as its whole
            self.sock.settimeout(self.limits.read_seconds)
        with when_abandoned(self._abandon):
            super().send(data)

    def _send_stretch(self, stretch: Stretch) -> None:
        """Has the kernel send what it can, and reads the rest: all of it on a connection with TLS."""
        end = stretch.offset + stretch.count
        for start in range(stretch.offset, end, _SENT_PIECE_BYTES):
            at, until = start, min(start + _SENT_PIECE_BYTES, end)
            if type(self.sock) is socket.socket:
                with when_abandoned(self._abandon):
                    at += sent_by_kernel(self.sock, stretch.file, at, until, self.limits.read_seconds)
            while at < until:
                piece = stretch.read(at, until - at)
                self._send(piece)
                at += len(piece)


def sent_by_kernel(sock: socket.socket, file: int, offset: int, end: int, seconds: float) -> int:
    """Sends bytes of a file that are not read here; gives how many, fewer where they cannot be sent so.

    Raises:
        TimeoutError: they took longer. OSError: the connection broke.
    """
    deadline, at = time.monotonic() + seconds, offset
    sock.settimeout(seconds)  # which also means that the kernel does not wait
    while at < end:
        try:
            sent = os.sendfile(sock.fileno(), file, at, end - at)
        except BlockingIOError:
            waiting = select.poll()
            waiting.register(sock, select.POLLOUT)
            if not waiting.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError("timed out") from None
            continue
        except ConnectionError:
            raise
        except OSError:
            break  # the file's fault, or the connection's: reading tells
        if not sent:
            break  # the file is shorter
        at += sent
    return at - offset


class _Answer(http.client.HTTPResponse):
    """An answer that is read through a `_Clock`."""

    limits: Limits

    def __init__(self, sock: socket.socket, *args: Any, **named: Any) -> None:
        self._clock = _Clock(sock, self.limits)
        super().__init__(self._clock, *args, **named)  # type: ignore[arg-type]

    def begin(self) -> None:
        """Reads the head."""
        super().begin()
        self._clock.head_is_read()


class _Clock(io.RawIOBase):
    """The bytes of one answer as they come; stands in for the socket and for its file."""

    def __init__(self, sock: socket.socket, limits: Limits) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._silent = limits.read_seconds
        self._least = limits.least_bytes_per_second * limits.read_seconds
        self._head_ends = time.monotonic() + 2 * limits.read_seconds
        self._in_head = True
        self._waited, self._moved = 0.0, 0

    def makefile(self, mode: str) -> io.BufferedReader:
        """The file that http.client asks a socket for."""
        return io.BufferedReader(self)

    def head_is_read(self) -> None:
        """From here on it is the body, however long."""
        self._in_head = False
        if self._sock.fileno() >= 0:
            self._sock.settimeout(self._silent)

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Waits for the next bytes.

        Raises:
            TimeoutError: nothing came. TooSlow: too little did.
        """
        started = time.monotonic()
        if self._in_head:
            left = self._head_ends - started
            if left <= 0:
                raise TooSlow("the head of the answer does not end")
            self._sock.settimeout(min(self._silent, left))
        count = self._raw.readinto(buffer)
        self._moved += count or 0
        # Only what is spent here counts: whoever reads may be the one who is slow.
        self._waited += time.monotonic() - started
        if self._waited > self._silent:
            if self._moved < self._least and count:
                raise TooSlow(f"{self._moved} bytes in {self._waited:.0f} seconds")
            self._waited, self._moved = 0.0, 0
        return count

    def close(self) -> None:
        """Gives the socket back."""
        self._raw.close()
        super().close()


def connect(addresses: list[Any], seconds: float) -> socket.socket:
    """Connects to whichever address answers first; a later one starts when an earlier one lingers.

    Args:
        addresses: As `socket.getaddrinfo` gives them.
        seconds: For all of them together.
    Raises:
        TimeoutError: none answered. OSError: there is none, or all refused; the last one's error.
    """
    addresses = _alternating(addresses)
    deadline = time.monotonic() + seconds
    fault: OSError = OSError(0, "the name has no address")
    with selectors.DefaultSelector() as waiting:
        try:
            while addresses or waiting.get_map():
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(0, "no address answered")
                if addresses:
                    try:
                        waiting.register(_started(addresses.pop(0)), selectors.EVENT_WRITE)
                    except OSError as error:
                        fault = error
                        continue
                for key, _ in waiting.select(min(left, _HEAD_START_SECONDS) if addresses else left):
                    sock = key.fileobj
                    assert isinstance(sock, socket.socket)
                    waiting.unregister(sock)
                    number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if not number:
                        sock.settimeout(seconds)
                        return sock
                    sock.close()
                    fault = OSError(number, os.strerror(number))
            raise fault
        finally:
            for key in list((waiting.get_map() or {}).values()):
                key.fileobj.close()  # type: ignore[union-attr]


def _started(info: tuple[Any, ...]) -> socket.socket:
    sock = socket.socket(*info[:3])
    try:
        sock.setblocking(False)
        number = sock.connect_ex(info[4])
        if number and number not in _IN_PROGRESS:
            raise OSError(number, os.strerror(number))
    except BaseException:
        sock.close()
        raise
    return sock


def _alternating(infos: list[Any]) -> list[Any]:
    """The addresses of both families in turn, each in the system's order."""
    first = [info for info in infos if info[0] == infos[0][0]]
    others = [info for info in infos if info[0] != infos[0][0]]
    turns = [info for pair in zip(first, others, strict=False) for info in pair]
    return turns + first[len(others) :] + others[len(first) :]
