"""`is_signal`: the signals that STOPSIGNAL may name.

Source: Dockerfile reference, "STOPSIGNAL"; signal(7).
"""

from __future__ import annotations

from img import regex

NAMES = (
    "SIGABRT", "SIGALRM", "SIGBUS", "SIGCHLD", "SIGCLD", "SIGCONT", "SIGFPE", "SIGHUP", "SIGILL", "SIGINT",
    "SIGIO", "SIGIOT", "SIGKILL", "SIGPIPE", "SIGPOLL", "SIGPROF", "SIGPWR", "SIGQUIT", "SIGSEGV",
    "SIGSTKFLT", "SIGSTOP", "SIGSYS", "SIGTERM", "SIGTRAP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG",
    "SIGUSR1", "SIGUSR2", "SIGVTALRM", "SIGWINCH", "SIGXCPU", "SIGXFSZ", "SIGRTMIN", "SIGRTMAX",
)  # fmt: skip
"""The names of Linux, those of real-time signals without their offsets."""

_REAL_TIME = regex.compile(r"SIG(?:RTMIN\+(?:[1-9]|1[0-5])|RTMAX-(?:[1-9]|1[0-4]))")
_NUMBER = regex.compile(r"[+-]?0*[1-9][0-9]{0,8}")


def is_signal(text: str) -> bool:
    """Tells whether a text names a signal of Linux.

    Args:
        text: A number, any but 0, as docker takes it; or a name in any case, with `SIG` or without;
            `RTMIN+n` with n up to 15, `RTMAX-n` with n up to 14.
    """
    if _NUMBER.fullmatch(text):
        return True
    name = "SIG" + text.upper().removeprefix("SIG")
    return name in NAMES or _REAL_TIME.fullmatch(name) is not None
