"""`GitProgram`: runs the git program: its environment, its configuration, and what its complaints mean.

git runs as the real user, outside the namespace (DESIGN D1), with no shell and no terminal. Protocols
are limited; secrets go in its environment, never in its arguments. Where it speaks to a server, the
user's own configuration counts (ssh, credential helpers, `insteadOf`); where it writes files, none does.
Source: git(1), "Environment variables"; git-config(1).
"""

from __future__ import annotations

import shlex
import stat
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from img import _core
from img.errors import FetchError, ImgError
from img.remote.giturl import shown
from img.remote.reach import Reach
from img.remote.tokens import Tokens, without_user
from img.values import dataclass

PROTOCOLS = "http:https:ssh:git"
_ALWAYS = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "SSH_ASKPASS": "",
    "SSH_ASKPASS_REQUIRE": "never",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_PROTOCOL_FROM_USER": "0",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_ALLOW_PROTOCOL": PROTOCOLS,
    "LC_ALL": "C",
}
_CONFIG = (
    ("gc.auto", "0"),
    # What is fetched stays one pack, which appears whole or not at all: a git that is killed leaves no
    # commit whose files are missing.
    ("fetch.unpackLimit", "1"),
    ("maintenance.auto", "false"),
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.autocrlf", "false"),
    ("core.attributesFile", "/dev/null"),
    ("fetch.recurseSubmodules", "false"),
    ("init.defaultBranch", "main"),
    ("advice.detachedHead", "false"),
    ("uploadpack.allowAnySHA1InWant", "true"),
)
_NO_FILES = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null"}


class GitFailed(ImgError):
    """git ended with an error; `text` is what it said. The caller says what that means."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


@dataclass(frozen=True, slots=True, kw_only=True)
class GitProgram:
    """How git is called.

    Attributes:
        agents: What `--ssh default` gives: a socket, or key files; empty for the user's own agent.
    """

    reach: Reach
    tokens: Tokens
    agents: tuple[str, ...] = ()

    def local(self, *args: str, at: Path, env: Sequence[tuple[str, str]] = ()) -> bytes:
        """Runs git on what is here; it reads no configuration of the user's.

        Raises:
            GitFailed, FetchError: git is not installed.
        """
        return self._run(args, at=at, env=(*_NO_FILES.items(), *env), config=())

    def remote(self, *args: str, at: Path, remote: str) -> bytes:
        """Runs git where it speaks to `remote`, whose secrets are handed to it.

        Raises:
            GitFailed, FetchError: git is not installed.
        """
        config: tuple[tuple[str, str], ...] = ()
        if remote.startswith(("http://", "https://")):
            secret = self.tokens.for_git(remote)
            parts = urlsplit(without_user(remote))
            if secret:
                key = f"http.{parts.scheme}://{parts.netloc}/.extraHeader"
                config = ((key, f"Authorization: {secret}"),)
        return self._run(args, at=at, env=self._reached(), config=config)

    def _reached(self) -> tuple[tuple[str, str], ...]:
        """Proxies, authorities and agents."""
        env = {f"{scheme}_proxy": url for scheme, url in self.reach.proxies.items()}
        if env:
            env["no_proxy"] = ",".join((*self.reach.no_proxy, "localhost", "127.0.0.1", "::1"))
        if self.reach.ca_file:
            env["GIT_SSL_CAINFO"] = self.reach.ca_file
        if len(self.agents) == 1 and _is_socket(self.agents[0]):
            env["SSH_AUTH_SOCK"] = self.agents[0]
        elif self.agents:
            keys = [word for key in self.agents for word in ("-i", key)]
            # git itself hands this to a shell.
            env["GIT_SSH_COMMAND"] = shlex.join(["ssh", "-o", "IdentitiesOnly=yes", *keys])
        return tuple(env.items())

    def _run(
        self,
        args: Sequence[str],
        *,
        at: Path,
        env: Sequence[tuple[str, str]],
        config: Sequence[tuple[str, str]],
    ) -> bytes:
        settings = (*_CONFIG, *config)
        pairs = {**_ALWAYS, **dict(env), "GIT_CONFIG_COUNT": str(len(settings))}
        for number, (key, value) in enumerate(settings):
            pairs[f"GIT_CONFIG_KEY_{number}"] = key
            pairs[f"GIT_CONFIG_VALUE_{number}"] = value
        try:
            code, out, err = _core.run_outside(["git", *args], env=list(pairs.items()), cwd=str(at))
        except FileNotFoundError as error:
            raise FetchError("git", "the program is not installed", "install the package git") from error
        if code:
            raise GitFailed(_said(err))
        return out


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(Path(path).stat().st_mode)
    except OSError:
        return False


def _said(err: bytes) -> str:
    """What git said, without the advice around it."""
    lines = [line.strip() for line in err.decode("utf-8", "replace").splitlines()]
    text = "; ".join(
        line.removeprefix("fatal: ").removeprefix("error: ")
        for line in lines
        if line and not line.startswith(("hint:", "warning:"))
    )
    return "".join(c if c.isprintable() else " " for c in text)[:500] or "git failed and said nothing"


_MEANINGS = (
    (
        ("could not read Username", "Authentication failed", "HTTP Basic: Access denied", " 403", " 401"),
        "give a token with --secret id=GIT_AUTH_TOKEN,src=FILE",
    ),
    (("Permission denied (publickey",), "give an agent or a key with --ssh default=SOCKET|KEY"),
    (("Host key verification failed",), "add the host's key to ~/.ssh/known_hosts (ssh-keyscan HOST)"),
    (("cannot run ssh", "ssh: No such file"), "install the package openssh-client"),
    (("transport 'file' not allowed",), f"a repository is reached by {PROTOCOLS.replace(':', ', ')}"),
)


def refused(remote: str, what: str, error: GitFailed) -> FetchError:
    """The error for a server that gives nothing.

    Args:
        what: What was asked for: `its refs`, `the branch main`.
    """
    hint = next((hint for words, hint in _MEANINGS if any(word in error.text for word in words)), "")
    return FetchError(shown(remote), f"git cannot fetch {what}: {error.text}", hint)
