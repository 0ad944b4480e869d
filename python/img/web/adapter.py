"""`Adapter`: requests' adapter for hosts that are met in one way: one `Trust`, one set of clocks.

It stands alone, without a Session: a Session would keep cookies, read the environment and netrc, and is not
made for several threads; the pools below an adapter are.
"""

from __future__ import annotations

import os
import ssl
from typing import Any

import urllib3
from requests.adapters import HTTPAdapter

from img.errors import UsageError
from img.values import dataclass
from img.web.hosts import shown
from img.web.sockets import Limits, pool_classes

_POOL = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """How a host is met over TLS. Equal ones can share their connections.

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


class Adapter(HTTPAdapter):
    """Connections to hosts that are met in one way."""

    def __init__(self, trust: Trust | None, limits: Limits, *, ca_file: str = "") -> None:
        """Prepares; no connection is made.

        Args:
            trust: How; None for hosts without TLS.
            ca_file: Further authorities for proxies that are reached by TLS themselves.
        Raises:
            UsageError: a file of `trust` cannot be used.
        """
        self._classes = pool_classes(limits)
        self._ca_file = ca_file
        self._context = trust.context() if trust else None
        if trust and not trust.verified:
            # The user asked for this by name; a warning at every request would only be noise.
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        super().__init__(pool_connections=_POOL, pool_maxsize=_POOL, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Makes the pools of hosts that are reached directly."""
        if self._context is not None:
            kwargs["ssl_context"] = self._context
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._classes

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """Makes the pools of hosts that a proxy reaches, or gives those that there are."""
        known = proxy in self.proxy_manager
        if self._context is not None:
            kwargs["ssl_context"] = self._context
        if proxy.lower().startswith("https:"):
            authorities = (self._ca_file,) if self._ca_file else ()
            kwargs["proxy_ssl_context"] = Trust(authorities=authorities).context()
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not known and proxy.lower().startswith("http"):
            manager.pool_classes_by_scheme = self._classes
        return manager


def usable(proxy: str) -> str:
    """A proxy's address as the libraries below read it: with its scheme.

    Raises:
        UsageError: it is of a kind that they do not know, or that needs a package which is not here.
    """
    scheme, split, _ = proxy.partition("://")
    if not split:
        return f"http://{proxy}"
    if scheme.lower().startswith("socks"):
        from importlib.util import find_spec

        if find_spec("socks") is None:
            raise UsageError(
                f"the proxy {shown(proxy)} speaks SOCKS, for which a Python package is missing",
                hint="install PySocks beside img, or name an HTTP proxy",
            )
    elif scheme.lower() not in ("http", "https"):
        raise UsageError(f"the proxy {shown(proxy)} is none that can be used: http, https and socks5 are")
    return proxy
