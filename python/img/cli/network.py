"""What the surroundings say about the network: proxies, `registries.conf`, `certs.d`. Only looked up here.

Called once by `Globals.settings`. Files are named, not read: a command that asks no registry parses none.
"""

from __future__ import annotations

import os
import re

from img.cli import clicks as click


def variable(name: str) -> str:
    """A variable that the world writes in small letters or in capitals."""
    return os.environ.get(name) or os.environ.get(name.upper(), "")


def proxies() -> dict[str, str]:
    """Proxy URL by scheme."""
    found = {scheme: variable(f"{scheme}_proxy") or variable("all_proxy") for scheme in ("http", "https")}
    return {scheme: url for scheme, url in found.items() if url}


def no_proxy() -> tuple[str, ...]:
    """What is reached without a proxy."""
    return tuple(word for word in re.split(r"[,\s]+", variable("no_proxy")) if word)


def registries_conf(named: str) -> tuple[str, ...]:
    """The files and folders that say how registries are reached, in the order in which they hold.

    Args:
        named: The file that the caller named: only that one then.
    Source: containers-registries.conf(5), "FILES".
    """
    file = named or os.environ.get("CONTAINERS_REGISTRIES_CONF", "")
    if file:
        if not os.path.exists(file):
            flag = "--registries-conf" if named else "CONTAINERS_REGISTRIES_CONF"
            raise click.UsageError(f"{flag}: there is no file {file}.")
        return (os.path.abspath(file),)
    own, common = (
        os.path.join(_config_home(), "containers/registries.conf"),
        "/etc/containers/registries.conf",
    )
    if os.path.exists(own):
        return own, f"{own}.d"
    return common, f"{common}.d", f"{own}.d"


def cert_dirs() -> tuple[str, ...]:
    """Folders with a folder of certificates for each registry; a user's own come first."""
    config, home = _config_home(), os.path.expanduser("~")
    folders = (
        f"{config}/containers",
        "/etc/containers",
        f"{config}/docker",
        f"{home}/.docker",
        "/etc/docker",
    )
    return tuple(f"{folder}/certs.d" for folder in folders)


def _config_home() -> str:
    return os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
