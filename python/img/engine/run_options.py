"""`run_options`: what a `BuildRequest` says of every RUN, checked once, as the builder takes it.

`building` calls it before anything is read. Sources: docker buildx build, "--add-host", "--ulimit";
getrlimit(2).
"""

from __future__ import annotations

from img import regex
from img.builder import RunOptions
from img.dockerfile.near import did_you_mean
from img.engine.requests import BuildRequest
from img.errors import UsageError
from img.executor import UNLIMITED, Rlimit

NETWORKS = ("default", "none", "host")
ENTITLEMENTS = ("security.insecure", "network.host")
GATEWAY = "host-gateway"

_LIMITS = (
    "as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss",
    "rtprio", "rttime", "sigpending", "stack",
)  # fmt: skip
_HOST = regex.compile(r"([^\s:=]+)[:=](\S+)")


def run_options(request: BuildRequest) -> RunOptions:
    """Reads the request's words for every RUN.

    Raises:
        UsageError: one of them makes no sense.
    """
    _one_of("the network", request.network, NETWORKS)
    for name in request.allow:
        _one_of("an entitlement", name, ENTITLEMENTS)
    if request.shm_bytes < 0:
        raise UsageError("the size of /dev/shm cannot be negative")
    return RunOptions(
        secret_files=request.secret_files,
        secret_values=request.secret_values,
        agents=request.agents,
        hosts=tuple(parse_host(text) for text in request.add_hosts),
        shm_bytes=request.shm_bytes,
        offline=request.offline,
        rlimits=tuple({limit.kind: limit for limit in map(parse_ulimit, request.ulimits)}.values()),
    )


def _one_of(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        hint = did_you_mean(value, choices) or f"it is {' or '.join(choices)}"
        raise UsageError(f"{what} cannot be {value!r}", hint=hint)


def parse_host(text: str) -> tuple[str, str]:
    """Reads `name:address`, `name=address` or `name:[address]`.

    `host-gateway` is this machine as a step sees it: a step has the machine's own network.

    Raises:
        UsageError: there is no name, or no address.
    """
    match = _HOST.fullmatch(text)
    if match is None:
        raise UsageError(f"--add-host {text}: it is no NAME:ADDRESS", hint="e.g. --add-host db:10.0.0.5")
    name, address = match.groups()
    if address == GATEWAY:
        return name, "127.0.0.1"
    import ipaddress  # only --add-host needs it

    bare = address[1:-1] if address.startswith("[") and address.endswith("]") else address
    try:
        return name, str(ipaddress.ip_address(bare))
    except ValueError as error:
        hint = f"write an IPv4 or IPv6 address, or {GATEWAY}"
        raise UsageError(f"--add-host {text}: {address!r} is no address", hint=hint) from error


def parse_ulimit(text: str) -> Rlimit:
    """Reads `name=soft[:hard]`; -1 is no limit, and a hard limit that is not given is the soft one.

    Raises:
        UsageError: the name is no limit, or a number is none.
    """
    name, equals, limits = text.partition("=")
    if not equals:
        raise UsageError(f"--ulimit {text}: it is no NAME=SOFT[:HARD]", hint="e.g. --ulimit nofile=1024:4096")
    if name not in _LIMITS:
        hint = did_you_mean(name, _LIMITS) or f"the limits are {', '.join(_LIMITS)}"
        raise UsageError(f"--ulimit {text}: there is no limit {name!r}", hint=hint)
    soft, colon, hard = limits.partition(":")
    found = Rlimit(
        kind=f"RLIMIT_{name.upper()}", soft=_limit(text, soft), hard=_limit(text, hard if colon else soft)
    )
    if found.soft > found.hard:
        raise UsageError(f"--ulimit {text}: the soft limit is above the hard one")
    return found


def _limit(text: str, number: str) -> int:
    if number == "-1":
        return UNLIMITED
    if not (number.isascii() and number.isdecimal()) or int(number) >= UNLIMITED:
        raise UsageError(f"--ulimit {text}: {number!r} is no number", hint="-1 means no limit")
    return int(number)
