"""`Elsewhere`: fetches a layer that registries need not have from where the URLs of its descriptor say.

`Registry.blob` turns to it where the registry has no such blob. Whoever serves the URL gets no credentials
and is believed nothing: size and digest decide, as they do for a registry's bytes.
Source: OCI image-spec v1.1, descriptor.md, "urls"; layer.md, "Non-Distributable Layers".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from img.errors import NotFound, RegistryError, SizeMismatch
from img.oci.descriptor import Descriptor
from img.progress import Meter
from img.registry.download import Download, Sink
from img.registry.endpoint import is_loopback, origin
from img.registry.faults import refusal
from img.registry.stop import Stop

if TYPE_CHECKING:
    from img.registry.transport import Reply
    from img.registry.wire import Wire

_MOST_URLS = 8
"""Addresses of one layer that are tried."""


class Elsewhere:
    """The addresses of one layer, tried in their order."""

    def __init__(self, wire: Wire, descriptor: Descriptor, what: str) -> None:
        """Asks nothing yet."""
        self._wire = wire
        self._descriptor = descriptor
        self._what = what

    def pour(self, sink: Sink, meter: Meter, stop: Stop, absent: NotFound) -> None:
        """Pours the layer into a sink, which it does not finish; the next address goes on where one gave up.

        Args:
            absent: What the registry said, which is part of the error where no address helps.
        Raises:
            NotFound: no address has it, or may be asked. Stopped. Whatever `sink.write` raises.
        """
        failed: list[str] = []
        for url in self._descriptor.urls[:_MOST_URLS]:
            try:
                ask = self._ask(url)
                Download(self._descriptor, sink, ask, meter, stop).run(self._wire.backoff(stop))
                return
            except (RegistryError, SizeMismatch) as error:
                failed.append(str(error))
        raise NotFound(
            f"{absent.message}; nor do the addresses give it that its image names: {'; '.join(failed)}",
            method=absent.method,
            url=absent.url,
            status=absent.status,
            hint="layers of this type are not in every registry; ask who made the image",
        ) from absent

    def _ask(self, url: str) -> Callable[[dict[str, str]], Reply]:
        """What asks an address.

        Raises:
            RegistryError: it is none that is asked.
        """
        try:
            scheme, host, _ = origin(url)
            parts = urlsplit(url)
            secret = parts.username is not None or parts.password is not None
        except ValueError:
            scheme, host, secret = "", "", False
        if secret or not host or not (scheme == "https" or (scheme == "http" and is_loopback(host))):
            reason = "a name and a password" if secret else "no https address"
            raise RegistryError(f"an address of {self._what} has {reason}, and is not asked")

        def ask(headers: dict[str, str]) -> Reply:
            reply = self._wire.anonymous(url, headers)
            if reply.status in ((200, 206, 416) if headers else (200,)):
                return reply
            raise refusal(reply, "GET", self._what, host=host)

        return ask
