"""The other end of the library: one engine operation in a process of its own.

`Client` starts `python -m img.worker`, writes one call to its standard input and reads JSON lines from its
standard output: events as they come, then the result or the error. The process is fresh, has one
thread, and so may enter the namespace (DESIGN D2); when its caller dies, it dies.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import sys
import threading
from collections.abc import Mapping
from typing import Any, TextIO

from img.engine import BuildRequest, Engine, Settings
from img.errors import ImgError, to_fields
from img.interrupts import Interrupts
from img.progress import Event, to_json
from img.values import asdict, is_dataclass

CALLS = frozenset(
    {
        "build",
        "pull",
        "pull_all",
        "push",
        "push_all",
        "copy",
        "push_list",
        "tag",
        "remove",
        "save",
        "export",
        "load",
        "unpack",
        "usage",
        "prune",
        "check_store",
    }
    | {"cache_mounts", "export_cache_mount", "import_cache_mount", "remove_cache_mounts"}
)
"""The operations that a caller may ask for."""


def main() -> int:
    """Reads one call, carries it out, writes what comes of it; gives the exit code."""
    _die_with_caller(Interrupts())
    call = json.loads(sys.stdin.readline())
    # What the operation itself may print must not get between the lines.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    lines = _Lines(out)
    threading.excepthook = lambda args: None
    try:
        value = perform(call, lines.event)
    except KeyboardInterrupt:
        return 130
    except ImgError as error:
        lines.write({"error": to_fields(error), "hint": error.hint})
        return error.exit_code
    except OSError as error:
        lines.write({"os_error": [error.errno, error.strerror, error.filename]})
        return 5
    lines.write({"result": value})
    return 0


def _die_with_caller(interrupts: Interrupts) -> None:
    """Takes the end of standard input (the caller is gone, or gave up) as an interrupt."""

    def on_input(number: int, frame: object) -> None:
        """Input came, or ended; only its end matters, and only where nothing has ended us before."""
        poll = select.poll()
        poll.register(0, select.POLLHUP)
        if not interrupts.begun and any(event & select.POLLHUP for _, event in poll.poll(0)):
            interrupts()

    interrupts.listen()
    signal.signal(signal.SIGIO, on_input)
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)


def perform(call: Mapping[str, Any], progress: Any) -> Any:
    """Carries one call out; gives its result as plain data."""
    name, args = str(call["call"]), dict(call["args"])
    if name not in CALLS:
        raise ImgError(f"there is no call {name!r}")
    settings: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in call["settings"].items()
    }
    with Engine(Settings(**settings), progress) as engine:
        if name == "build":
            return plain(engine.build(BuildRequest.from_data(args["request"])))
        if name == "copy":
            from img.engine.copying import CopyRequest

            return plain(engine.copy(CopyRequest.from_data(args["request"])))
        if "output" in args:
            return _written(engine, name, args)
        return plain(getattr(engine, name)(**args))


def _written(engine: Engine, name: str, args: dict[str, Any]) -> None:
    """Operations that write a file: beside its place, then renamed."""
    output = args.pop("output")
    partial = f"{output}.{os.getpid()}.part"
    if name == "export":
        args["manifest"], args["config"] = args["manifest"].encode(), args["config"].encode()
    try:
        with open(partial, "wb") as file:
            getattr(engine, name)(out=file, **args)
        os.replace(partial, output)
    finally:
        if os.path.exists(partial):
            os.unlink(partial)


def plain(value: Any) -> Any:
    """A result as plain data."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


class _Lines:
    """JSON lines from several threads."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.Lock()

    def write(self, data: Mapping[str, Any]) -> None:
        with self._lock:
            self._out.write(json.dumps(data) + "\n")
            self._out.flush()

    def event(self, event: Event) -> None:
        try:
            self.write(to_json(event))
        except BrokenPipeError:
            pass  # the caller is gone: its end of our input ends us, and an event must not raise


if __name__ == "__main__":
    sys.exit(main())
