"""What `img build` takes from outside the context: named contexts, secrets, agents, limits. Flags to values.

`build` calls `outside`; only here and in `common` is the environment read.
Sources: docker buildx build, "--secret", "--ssh"; BuildKit session/secrets and session/sshforward.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from img.cli import clicks as click
from img.cli.common import pairs


def outside(flags: dict[str, Any]) -> dict[str, Any]:
    """Reads the flags that bring something in; gives fields of a `BuildRequest`.

    Raises:
        click.UsageError: one of them is malformed, or names what is not there.
    """
    return {
        "contexts": pairs(flags["contexts"], "--build-context", bare=False),
        **secrets_and_agents(flags),
        "allow": flags["allow"],
        "network": flags["network"],
        "add_hosts": flags["add_hosts"],
        "shm_bytes": _size(flags["shm_size"], "--shm-size"),
        "ulimits": flags["ulimits"],
    }


def secrets_and_agents(flags: dict[str, Any]) -> dict[str, Any]:
    """Reads the flags of secrets and agents alone; gives fields of a `BuildRequest`.

    Raises:
        click.UsageError: as `outside`.
    """
    return {**_secrets(flags["secrets"]), "agents": _agents(flags["agents"])}


def _secrets(words: Sequence[str]) -> dict[str, Any]:
    """Secrets by id: those in files, those whose value is in a variable, and those whose value counts.

    The last of an id counts.
    """
    files: dict[str, str] = {}
    values: dict[str, str] = {}
    hashed: dict[str, None] = {}
    for word in words:
        id_, file, variable, counts = _secret(word)
        for known in (files, values, hashed):
            known.pop(id_, None)
        if counts:
            hashed[id_] = None
        if variable:
            values[id_] = os.environ.get(variable, "")  # one that is not set is empty, as for docker
        elif os.path.isfile(file):
            files[id_] = os.path.abspath(file)
        else:
            what = "is a folder" if os.path.isdir(file) else "does not exist"
            raise click.UsageError(f"--secret id={id_}: the file {file} {what}.")
    return {"secret_files": files, "secret_values": values, "secret_hashes": tuple(hashed)}


def _secret(word: str) -> tuple[str, str, str, bool]:
    """Reads one `--secret`: its id, its file or its variable, and whether its value counts in cache keys."""
    found = dict.fromkeys(("id", "src", "env", "type", "cache"), "")
    for field in _fields(word, "--secret"):
        name, equals, value = field.partition("=")
        key = {"source": "src"}.get(name.lower(), name.lower())
        if not equals or key not in found:
            hint = "id=ID[,src=FILE|,env=NAME][,type=file|env][,cache=hash]"
            raise click.UsageError(f"--secret does not know {_name(field)!r}: it takes {hint}.")
        found[key] = value
    if found["type"] not in ("", "file", "env"):
        raise click.UsageError(f"--secret: the type is file or env, not {found['type']!r}.")
    if found["cache"] not in ("", "hash"):
        raise click.UsageError(f"--secret: cache is hash, not {found['cache']!r}.")
    if not found["id"]:
        raise click.UsageError("--secret needs an id: --secret id=ID,src=FILE.")
    if found["type"] == "env" and not found["env"]:
        found["env"], found["src"] = found["src"], ""
    if not found["env"] and not found["src"]:
        key = "env" if found["id"] in os.environ else "src"
        found[key] = found["id"]
    return found["id"], found["src"], found["env"], found["cache"] == "hash"


def _name(field: str) -> str:
    """A field without its value, which may be what must not be shown."""
    return field.partition("=")[0] if "=" in field else field[:20]


def _agents(words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Agents by id: a socket, or key files."""
    agents: dict[str, tuple[str, ...]] = {}
    for word in words:
        id_, _, paths = word.partition("=")
        if not id_:
            raise click.UsageError(f"--ssh takes default or ID[=SOCKET|KEY[,KEY]], not {word!r}.")
        named = tuple(path for path in paths.split(",") if path)
        if not named:
            socket = os.environ.get("SSH_AUTH_SOCK", "")
            if not socket:
                raise click.UsageError(
                    f"--ssh {id_}: $SSH_AUTH_SOCK is not set; name one: --ssh {id_}=SOCKET."
                )
            named = (socket,)
        for path in named:
            if not os.path.exists(path):
                raise click.UsageError(f"--ssh {id_}: {path} does not exist.")
        agents[id_] = tuple(os.path.abspath(path) for path in named)
    return agents


def _fields(word: str, flag: str) -> list[str]:
    """The comma-separated fields of a flag; one with a comma in it is quoted as in CSV."""
    import csv  # few builds have such words

    try:
        rows = list(csv.reader([word], strict=True))
    except csv.Error as error:
        raise click.UsageError(f"{flag} cannot be read: {error}.") from error
    return rows[0] if rows else []


def _size(text: str, flag: str) -> int:
    from img.dockerfile.sizes import size_bytes

    try:
        return size_bytes(text) if text else 0
    except ValueError as error:
        raise click.UsageError(f"{flag}: {error}; write bytes, or e.g. 128m.") from error
