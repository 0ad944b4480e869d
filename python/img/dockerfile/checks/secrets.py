"""`looks_secret`: which files of a context hold a secret, by name, or by name and content.

The engine asks for every file that a COPY takes. A name that only may mean a secret (`*.pem` is a
certificate as often) needs a content that says so; samples and templates are none.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from img import regex

CONTENT_BYTES = 65536
"""How much of a file is worth looking at."""

_SAMPLES = ("example", "sample", "template", "tmpl", "dist", "default", "defaults", "test", "pub")
_NAMES = frozenset(
    {
        ".env",
        ".netrc",
        ".pgpass",
        ".git-credentials",
        ".htpasswd",
        "id_rsa",
        "id_dsa",
        "id_ecdsa",
        "id_ed25519",
    }
)
_PATHS = regex.compile(r"(?:^|/)(?:\.aws/credentials|\.kube/config|\.config/gcloud/[^/]*credentials[^/]*)$")
_KEY = regex.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----")
_CONTENTS: tuple[tuple[re.Pattern[str], re.Pattern[bytes]], ...] = (
    (regex.compile(r".*\.(?:pem|key)"), _KEY),
    (
        regex.compile(r"\.npmrc"),
        regex.compile(rb"(?m)^[^#;\n]*_(?:authToken|auth|password)\s*=\s*(?!\$\{)\S"),
    ),
    (regex.compile(r"\.pypirc"), regex.compile(rb"(?m)^\s*password\s*[=:]\s*\S")),
    (regex.compile(r"(?:config\.json|\.dockercfg)"), regex.compile(rb'"auths"(?s:.*)"auth"\s*:\s*"[^"]')),
)


def looks_secret(path: str, read: Callable[[], bytes]) -> bool:
    """Judges one file.

    Args:
        path: Relative to the context, with slashes.
        read: Gives its first `CONTENT_BYTES`; called only where the name does not settle it.
    """
    name = path.rpartition("/")[2]
    stem, _, last = name.rpartition(".")
    if last.lower() in _SAMPLES:
        return False
    if name in _NAMES or stem == ".env" or _PATHS.search(path):
        return True
    return any(named.fullmatch(name) and content.search(read()) for named, content in _CONTENTS)
