"""`Certificates`: which authorities a registry is verified by, and which certificate it is shown.

Called by the transport. It looks in folders laid out as docker's and containers' `certs.d`:
`HOST[:PORT]/*.crt` are authorities, `*.cert` with a `*.key` of the same name is a client's certificate.
Source: containers-certs.d(5).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable

from img.errors import UsageError
from img.registry.options import Options
from img.web.adapter import Trust


class Certificates:
    """Looks certificates up, once for each host. Safe from several threads."""

    def __init__(self, options: Options) -> None:
        """Reads nothing yet."""
        self._options = options
        self._lock = threading.Lock()
        self._known: dict[tuple[str, ...], Trust] = {}

    def of(self, names: tuple[str, ...]) -> Trust:
        """Gives what there is for a host.

        Args:
            names: What its folder may be called; the first one that exists counts.
        Raises:
            UsageError: a folder cannot be read, or has a certificate without its key.
        """
        with self._lock:
            if names not in self._known:
                self._known[names] = self._look(names)
            return self._known[names]

    def _look(self, names: Iterable[str]) -> Trust:
        options = self._options
        fixed = (options.ca_file,) if options.ca_file else ()
        folders = [os.path.join(root, name) for root in options.cert_dirs for name in names]
        folder = options.cert_dir or next((path for path in folders if os.path.isdir(path)), "")
        if not folder:
            return Trust(authorities=fixed)
        try:
            found = sorted(os.listdir(folder))
        except OSError as error:
            raise UsageError(f"cannot read the certificates in {folder}: {error.strerror}") from error
        return Trust(
            authorities=(*fixed, *(os.path.join(folder, name) for name in found if name.endswith(".crt"))),
            pairs=tuple(_pairs(folder, found)),
        )


def _pairs(folder: str, names: list[str]) -> Iterable[tuple[str, str]]:
    """The certificates with their keys."""
    for name in names:
        stem, kind = os.path.splitext(name)
        other = stem + {".cert": ".key", ".key": ".cert"}.get(kind, kind)
        if other not in names:
            missing = "key" if kind == ".cert" else "certificate"
            raise UsageError(
                f"{os.path.join(folder, name)} has no {missing}: {other} is not beside it",
                hint="authorities are called *.crt; a client's certificate is a *.cert with its *.key",
            )
        if kind == ".cert":
            yield os.path.join(folder, name), os.path.join(folder, other)
