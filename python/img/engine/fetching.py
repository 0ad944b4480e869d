"""`Fetcher`: brings what a build names on the network to its work folder; the builder's `Remotes`.

The engine's contexts are opened through it, too. It connects the store's `RemoteArea`, the request's
secrets and the settings with `img.remote`, whose parts are made at the first need.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from img.builder import Fetched
from img.builder.graph import GitOp, HttpOp
from img.context import Context
from img.engine.requests import BuildRequest
from img.engine.resolving import Lock, fetch_name
from img.errors import FetchError
from img.progress import Note, Progress
from img.remote import GitUrl, Reach, Tokens, shown
from img.store import Store, WorkFolder
from img.values import replace

if TYPE_CHECKING:
    from img.remote import Git, GitTree, Web, WebFile


class Fetcher:
    """Fetches for one build, or takes what earlier ones left where it is offline. Safe for several threads.

    Attributes:
        lock: The build's lock file, which says what ADD fetches; contexts are what they are.
    """

    def __init__(
        self, store: Store, work: WorkFolder, request: BuildRequest, *, reach: Reach, progress: Progress
    ) -> None:
        """Loads nothing and connects to nothing."""
        self.lock = Lock()
        self._store = store
        self._work = work
        self._offline = request.offline
        self._reach = reach
        self._progress = progress
        cwd = Path(request.cwd)
        files = {name: str(cwd / path) for name, path in request.secret_files.items()}
        self._tokens = Tokens(values=request.secret_values, files=files)
        self._agents = tuple(str(cwd / path) for path in request.agents.get("default", ()))
        self._lock = threading.Lock()
        self._made_web: Web | None = None
        self._made_git: Git | None = None
        self._count = 0

    # ---- what ADD names ------------------------------------------------------------------------------

    def http(self, op: HttpOp) -> Fetched:
        """See `builder.Remotes.http`."""
        pinned = self.lock.file.http(op.url) if self.lock.file and not op.checksum else ""
        try:
            file = self.file(op.url, name=op.name, checksum=op.checksum or pinned)
        except FetchError as error:
            if not pinned:
                raise
            raise self._pinned(error, pinned, op.url) from error
        context = Context(root=file.path.parent, name=shown(op.url), lasting=False)
        return Fetched(content=f"http:{file.digest}:{op.name}", open=lambda: context)

    def git(self, op: GitOp) -> Fetched:
        """See `builder.Remotes.git`."""
        url = git_url(op)
        pinned = self.lock.file.git(op.remote, op.ref) if self.lock.file and fetch_name(op) else ""
        if pinned:
            url = replace(url, ref=pinned)
        try:
            found = self.commit(url)
        except FetchError as error:
            if not pinned:
                raise
            raise self._pinned(error, pinned, op.remote) from error
        return Fetched(content=_content(url, found), open=_once(lambda: self._files(url, found)))

    # ---- what contexts are ---------------------------------------------------------------------------

    def file(self, url: str, *, name: str, checksum: str = "") -> WebFile:
        """Fetches a file into a new folder of its own.

        Raises:
            FetchError.
        """
        if self._offline:
            from img.remote import kept_file

            file = kept_file(self._store.remotes, url, self.folder(), name=name, checksum=checksum)
            if not checksum:
                self._say_stale(shown(url))
            return file
        return self._web().fetch(url, self.folder(), name=name, checksum=checksum)

    def repository(self, url: GitUrl) -> Context:
        """Fetches a commit and writes its files out.

        Raises:
            FetchError.
        """
        return self._files(url, self.commit(url))

    def commit(self, url: GitUrl) -> GitTree:
        """Finds, and fetches, the commit that a reference means.

        Raises:
            FetchError.
        """
        found = self._git().resolve(url)
        if self._offline and found.ref != found.commit and found.commit != url.checksum:
            self._say_stale(f"{url.ref or 'HEAD'} of {shown(url.remote)}, the commit {found.commit[:12]},")
        return found

    def _say_stale(self, what: str) -> None:
        text = f"{what} is used as it was when it was last fetched: the build is offline"
        self._progress(Note(level="warning", text=text))

    def _pinned(self, error: FetchError, pinned: str, url: str) -> FetchError:
        """The error for something that the lock file pins, and that cannot be had like that."""
        reason = f"{self.lock.shown} pins it to {pinned}: {error.reason}"
        hint = error.hint if self._offline else f"img lock --update={shown(url)} pins it to what is there now"
        return FetchError(error.url, reason, hint)

    def folder(self) -> Path:
        """A new folder that lasts as long as the build."""
        with self._lock:
            self._count += 1
            return self._work.folder(f"fetched-{self._count}")

    def stop(self) -> None:
        """Ends all fetches soon, from any thread; programs of the host end by `stop_everything`."""
        with self._lock:
            parts = (self._made_web, self._made_git)
        for part in parts:
            if part is not None:
                part.stop()

    def resume(self) -> None:
        """Takes `stop` back, once all that it ended has ended."""
        with self._lock:
            self._made_web = self._made_git = None

    # ---- parts ---------------------------------------------------------------------------------------

    def _files(self, url: GitUrl, found: GitTree) -> Context:
        root = self._git().checkout(url, found, self.folder())
        return Context(root=root, name=shown(url.remote), lasting=False)

    def _web(self) -> Web:
        with self._lock:
            if self._made_web is None:
                from img.remote import Web

                self._made_web = Web(
                    self._store.remotes, reach=self._reach, tokens=self._tokens, progress=self._progress
                )
            return self._made_web

    def _git(self) -> Git:
        with self._lock:
            if self._made_git is None:
                from img.remote import Git, GitProgram, KeptGit

                program = GitProgram(reach=self._reach, tokens=self._tokens, agents=self._agents)
                kind = KeptGit if self._offline else Git
                self._made_git = kind(self._store.remotes, program, self._progress)
            return self._made_git


def git_url(op: GitOp) -> GitUrl:
    """What an ADD fetches, as `img.remote` takes it."""
    return GitUrl(
        remote=op.remote,
        ref=op.ref,
        subdir=op.subdir,
        checksum=op.checksum,
        keep_git_dir=op.keep_git_dir,
        submodules=op.submodules,
        mtime="checkout" if op.mtime == "checkout" else "commit",
    )


def _content(url: GitUrl, found: GitTree) -> str:
    """What names the files of a commit: the hash of their tree, and what else may change them."""
    content = f"git:{found.tree}"
    if url.submodules is False:
        content += ":alone"
    if url.keep_git_dir and not url.subdir:
        content += f":{found.commit}:{found.ref}:{shown(url.remote)}"
    return content


def _once(make: Callable[[], Context]) -> Callable[[], Context]:
    """Calls `make` at the first call, whatever thread that is in, and remembers what it gave."""
    lock = threading.Lock()
    made: list[Context] = []

    def get() -> Context:
        with lock:
            if not made:
                made.append(make())
            return made[0]

    return get
