"""`Certificates`: which authorities a registry is verified by, and which certificate it is shown.

Called by the transport. It looks in folders laid out as docker's and containers' `certs.d`:
`HOST[:PORT]/*.crt` are authorities, `*.cert` with a `*.key` of the same name is a client's certificate.
Source: containers-certs.d(5).
"""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Iterable

from img.errors import UsageError
from img.registry.options import Options
from img.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """How one host is met over TLS. Equal ones share their connections.

    Attributes:
        verified: Whether its certificate is checked at all.
        authorities: PEM files of further authorities.
        pairs: PEM files of certificates and keys that this side may show.
    """

    verified: bool = True
    authorities: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()

    def context(self) -> ssl.SSLContext:
        """Makes the TLS context.

        Raises:
            UsageError: a file cannot be used.
        """
        context = ssl.create_default_context()
        if not self.verified:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        for path in self.authorities if self.verified else ():
            try:
                context.load_verify_locations(cafile=path)
            except (OSError, ssl.SSLError) as error:
                raise _unusable("the CA file", path, error, "no certificate in it") from error
        for certificate, key in self.pairs:
            try:
                # Without a password given, OpenSSL would ask the terminal for that of an encrypted key.
                context.load_cert_chain(certificate, key, password="")
            except (OSError, ssl.SSLError, ValueError) as error:
                reason = f"it does not fit the key {os.path.basename(key)}, or the key is encrypted"
                raise _unusable("the client certificate", certificate, error, reason) from error
        return context


def _unusable(what: str, path: str, error: Exception, reason: str) -> UsageError:
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.strerror:
        reason = error.strerror
    return UsageError(f"cannot use {what} {path}: {reason}")


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
