"""Flags of every verb that speaks to registries: how they are reached, and as whom.

They are kept with the global flags, so that `find_globals().settings()` knows them and no verb hands them on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from img.cli import clicks as click
from img.cli.common import kept_globally

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--tls-ca", "-tls-ca", metavar="FILE", expose_value=False, callback=kept_globally("ca_file"),
        help="Trust the certificate authorities in this PEM file as well.",
    ),
)  # fmt: skip


def registry_options(function: F) -> F:
    """Adds them to a verb."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
