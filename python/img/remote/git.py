"""`Git`: fetches one commit of a repository and writes its files out.

One bare repository a remote, in the store's `RemoteArea`, into which single commits are fetched, shallow
where the server allows. The server is asked what a ref means now; for a whole commit hash that is here
already it is not asked at all. Submodules are repositories like any other, fetched by the same rules: no
program of the repository's, and no program but git, is ever run.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from img import _core, regex
from img.errors import FetchError
from img.progress import Note, Progress, silent
from img.remote.giturl import GitUrl, GitUrlError, parse_git, shown
from img.remote.kept import ONLINE
from img.remote.program import GitFailed, GitProgram, refused
from img.remote.repository import Held, address_of, object_format
from img.store import RemoteArea
from img.values import dataclass, replace

_HASH = regex.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_DEEPEST = 8
"""Submodules of submodules of…: deeper than this is a loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GitTree:
    """What a reference means now.

    Attributes:
        ref: The whole ref, or the commit where no ref was named.
        tree: Hash of the folder that is taken: the same files have the same one.
        seconds: The commit's time, since 1970.
    """

    commit: str
    ref: str
    tree: str
    seconds: int


class Git:
    """Fetches commits for one build. Safe for several threads and processes."""

    def __init__(self, area: RemoteArea, program: GitProgram, progress: Progress = silent) -> None:
        """Runs nothing yet."""
        self._area = area
        self._program = program
        self._progress = progress
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Lets nobody wait for a repository any more; programs at work end by `stop_everything`."""
        self._stopped.set()

    def resolve(self, url: GitUrl) -> GitTree:
        """Finds the commit that a reference means now, and fetches it if it is not here.

        Raises:
            FetchError: git, the repository, the ref or the folder cannot be had, or the commit is not
                the one that `checksum` demands.
        """
        with self._repository(url) as held:
            ref, commit = self._meaning(held.of(""), url)
            here = held.of(commit)
            if not self._has(here, commit):
                commit = self._fetch(here, url, ref, commit)
            if ref:
                held.remember(url.ref, ref, commit)
            return self._found(here, url, ref, commit)

    def _found(self, here: Path, url: GitUrl, ref: str, commit: str) -> GitTree:
        """What is to be known of a commit that is here."""
        if url.checksum and not commit.startswith(url.checksum):
            raise FetchError(
                shown(url.remote),
                f"{url.ref or 'HEAD'} is the commit {commit}, not {url.checksum} as its checksum demands",
                hint="the ref has moved, or the checksum is of another one",
            )
        tree = self._tree(here, url, commit)
        time = self._program.local("show", "-s", "--format=%ct", commit, "--", at=here)
        return GitTree(commit=commit, ref=ref or commit, tree=tree, seconds=int(time.split()[-1]))

    def checkout(self, url: GitUrl, found: GitTree, into: Path) -> Path:
        """Writes the files of a resolved reference out; gives their folder.

        Args:
            found: From `resolve`.
            into: An existing empty folder of the caller's.
        Raises:
            FetchError: a submodule cannot be had, or git refuses the files.
        """
        try:
            return self._checkout(url, found, into, depth=0)
        except GitFailed as error:
            text = f"git cannot write its files: {error.text}"
            raise FetchError(shown(url.remote), text, "the repository may be damaged, or hostile") from error

    # ---- the repository ------------------------------------------------------------------------------

    def _repository(self, url: GitUrl) -> Held:
        return Held(self._area, self._program, address_of(url.remote), self._check)

    def _check(self) -> None:
        if self._stopped.is_set():
            raise FetchError("the network", "the build was stopped")

    def _meaning(self, here: Path, url: GitUrl) -> tuple[str, str]:
        """The whole ref and the commit that a name means; no ref for a commit's own hash."""
        if _HASH.fullmatch(url.ref.lower()):
            return "", url.ref.lower()
        refs = self._refs(here, url, *([url.ref, f"{url.ref}^{{}}"] if url.ref else ["HEAD"]))
        short = url.ref.removeprefix("refs/")
        names = [url.ref, f"refs/{short}", f"refs/heads/{url.ref}", f"refs/tags/{url.ref}"]
        for name in names if url.ref else ["HEAD"]:
            if name in refs:
                # An annotated tag is an object of its own; what it stands for is listed beside it.
                return name, refs.get(f"{name}^{{}}", refs[name])
        raise self._unknown(here, url)

    def _refs(self, here: Path, url: GitUrl, *options: str) -> dict[str, str]:
        address = address_of(url.remote)
        kinds = [word for word in options if word.startswith("--")]
        words = ["ls-remote", *kinds, "--", address, *(word for word in options if word not in kinds)]
        try:
            out = self._program.remote(*words, at=here, remote=url.remote)
        except GitFailed as error:
            raise refused(url.remote, "its refs", error) from error
        lines = (line.partition("\t") for line in out.decode("utf-8", "replace").splitlines())
        return {name: digest for digest, _, name in lines if _HASH.fullmatch(digest)}

    def _unknown(self, here: Path, url: GitUrl) -> FetchError:
        """The error for a ref that is not there, with the name that may have been meant."""
        from difflib import get_close_matches

        if not url.ref:
            return FetchError(shown(url.remote), "the repository is empty", "commit something to it first")
        if re.fullmatch(r"[0-9a-fA-F]{7,39}", url.ref):
            hint = "a commit is named by its whole hash of 40 digits"
        else:
            refs = self._refs(here, url, "--heads", "--tags")
            names = {re.sub(r"^refs/(heads|tags)/|\^\{\}$", "", name): None for name in refs}
            wanted = re.sub(r"^refs/(heads|tags)/", "", url.ref)
            near = get_close_matches(wanted, names, n=1, cutoff=0.5)
            some = ", ".join(list(names)[:8])
            hint = f"did you mean {near[0]}?" if near else f"there are {some}" if some else ""
        return FetchError(shown(url.remote), f"the repository has no branch, tag or commit {url.ref!r}", hint)

    def _has(self, here: Path, commit: str) -> bool:
        try:
            self._program.local("cat-file", "-e", f"{commit}^{{commit}}", at=here)
        except GitFailed:
            return False
        return True

    def _fetch(self, here: Path, url: GitUrl, ref: str, commit: str) -> str:
        """Fetches a commit; gives the one that came, since a ref may have moved meanwhile."""
        what = url.ref or "HEAD"
        self._progress(Note(level="info", text=f"fetching {what} of {shown(url.remote)}"))
        kept = f"refs/img/{commit}"
        shallow = ("--depth=1",)
        try:
            self._fetch_refs(here, url, f"+{ref or commit}:{kept}", *shallow)
        except GitFailed as error:
            try:
                if ref:
                    self._fetch_refs(here, url, f"+{ref}:{kept}")  # a server of plain files knows no depth
                else:
                    self._fetch_all(here, url)  # one that gives no commit by its hash alone
            except GitFailed:
                raise refused(url.remote, what, error) from error
        if not ref:
            if not self._has(here, commit):
                raise FetchError(shown(url.remote), f"the repository has no commit {commit}")
            return commit
        came = self._program.local("rev-parse", "--verify", "--quiet", f"{kept}^{{commit}}", at=here)
        return came.decode().strip()

    def _fetch_refs(self, here: Path, url: GitUrl, *words: str) -> None:
        options = [word for word in words if word.startswith("--")]
        specs = [word for word in words if word not in options]
        self._program.remote(
            "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--force", "--update-shallow", *options,
            "--", address_of(url.remote), *specs, at=here, remote=url.remote,
        )  # fmt: skip

    def _fetch_all(self, here: Path, url: GitUrl) -> None:
        """Everything that branches and tags lead to."""
        whole = ("--unshallow",) if (here / "shallow").exists() else ()
        specs = ("+refs/heads/*:refs/img/heads/*", "+refs/tags/*:refs/img/tags/*")
        self._fetch_refs(here, url, *whole, *specs)

    def _tree(self, here: Path, url: GitUrl, commit: str) -> str:
        """The hash of the folder that is taken."""
        what = f"{commit}:{url.subdir}" if url.subdir else f"{commit}^{{tree}}"
        try:
            found = self._program.local("rev-parse", "--verify", "--quiet", what, at=here).decode().strip()
            kind = self._program.local("cat-file", "-t", found, at=here).decode().strip()
        except GitFailed:
            kind = found = ""
        if kind == "tree":
            return found
        from difflib import get_close_matches

        listed = self._program.local("ls-tree", "-d", "-r", "-z", "--name-only", commit, at=here)
        folders = listed.decode("utf-8", "replace").split("\0")[:5000]
        near = get_close_matches(url.subdir, folders, n=1, cutoff=0.5)
        trouble = "is a file" if kind else "does not exist"
        hint = f"did you mean {near[0]}?" if near else ""
        raise FetchError(shown(url.remote), f"the folder {url.subdir} {trouble} in {url.ref or 'HEAD'}", hint)

    # ---- files ---------------------------------------------------------------------------------------

    def _checkout(self, url: GitUrl, found: GitTree, into: Path, *, depth: int) -> Path:
        files = into / "files"
        files.mkdir()
        with self._repository(url) as held:
            here = held.of(found.commit)
            env = (
                ("GIT_DIR", str(here)),
                ("GIT_WORK_TREE", str(files)),
                ("GIT_INDEX_FILE", str(into / "index")),
            )
            self._program.local("read-tree", found.commit, at=files, env=env)
            if self._program.local("ls-tree", "-z", found.tree, at=here):
                self._program.local(
                    "checkout", "--quiet", "--force", found.commit, "--", url.subdir or ".", at=files, env=env
                )
            links = self._links(here, url, found.commit) if url.submodules is not False else {}
            if url.keep_git_dir and not url.subdir:
                self._keep_git_dir(here, url, found, files)
        root = files / url.subdir
        root.mkdir(parents=True, exist_ok=True)
        for number, (path, linked) in enumerate(links.items()):
            inside = into / f"submodule-{number}"
            inside.mkdir()
            self._submodule(linked, _real_folder(files, path), inside, depth=depth + 1)
        if url.mtime != "checkout":
            _date(root, found.seconds)
        return root

    def _links(self, here: Path, url: GitUrl, commit: str) -> dict[str, GitUrl]:
        """The submodules below the folder that is taken, by path."""
        words = ["ls-tree", "-r", "-z", "--full-tree", commit, "--", *([url.subdir] if url.subdir else [])]
        entries = self._program.local(*words, at=here).split(b"\0")
        links = {}
        for entry in entries:
            head, _, name = entry.partition(b"\t")
            if head.startswith(b"160000 "):
                links[os.fsdecode(name)] = head.split()[2].decode()
        if not links:
            return {}
        known = self._known_submodules(here, url, commit)
        found = {}
        for path, pinned in links.items():
            values = known.get(path)
            if values is None:
                raise FetchError(shown(url.remote), f".gitmodules says nothing of the submodule {path}")
            if values.get("update") != "none":
                address = _submodule_url(url.remote, values.get("url", ""), path)
                found[path] = replace(address, ref=pinned, mtime=url.mtime)
        return found

    def _known_submodules(self, here: Path, url: GitUrl, commit: str) -> dict[str, dict[str, str]]:
        """What `.gitmodules` says, by path. Source: gitmodules(5)."""
        try:
            blob = f"{commit}:.gitmodules"
            listed = self._program.local("config", "--blob", blob, "-z", "--list", at=here)
        except GitFailed as error:
            raise FetchError(
                shown(url.remote), f"it has submodules, but no .gitmodules: {error.text}"
            ) from error
        by_name: dict[str, dict[str, str]] = {}
        for line in os.fsdecode(listed).split("\0"):
            key, _, value = line.partition("\n")
            section, _, name = key.rpartition(".")
            if section.startswith("submodule."):
                by_name.setdefault(section.removeprefix("submodule."), {})[name] = value
        return {values["path"]: values for values in by_name.values() if "path" in values}

    def _submodule(self, url: GitUrl, target: Path, into: Path, *, depth: int) -> None:
        if depth > _DEEPEST:
            raise FetchError(shown(url.remote), f"submodules are nested more than {_DEEPEST} deep")
        root = self._checkout(url, self.resolve(url), into, depth=depth)
        target.rmdir()
        root.rename(target)
        _core.remove_tree(str(into))

    def _keep_git_dir(self, here: Path, url: GitUrl, found: GitTree, files: Path) -> None:
        """Gives the files a `.git` of their own: one commit, the remote's name, no secret."""

        def git(*words: str, protocol: str = "") -> None:
            env = (("GIT_ALLOW_PROTOCOL", protocol),) if protocol else ()
            self._program.local(*words, at=files, env=env)

        git("init", "--quiet", "--template=", f"--object-format={object_format(found.commit)}")
        git("fetch", "--quiet", "--depth=1", "--no-tags", "--no-write-fetch-head", "--", str(here),
            found.commit, protocol="file")  # fmt: skip
        if found.ref.startswith("refs/"):
            git("update-ref", found.ref, found.commit)
        git("update-ref", "--no-deref", "HEAD", found.commit)
        git("remote", "add", "origin", shown(url.remote))
        git("read-tree", "HEAD")


class KeptGit(Git):
    """Commits as earlier builds found and fetched them, those of submodules too: asks nobody."""

    def resolve(self, url: GitUrl) -> GitTree:
        """Finds the commit that a reference meant when it was last fetched.

        Raises:
            FetchError: it was never fetched, or is not the one that `checksum` demands.
        """
        with self._repository(url) as held:
            ref, commit = held.meanings().get(url.ref, ("", ""))
            for text in (url.checksum.lower(), url.ref.lower()):
                if _HASH.fullmatch(text):
                    ref, commit = (ref, text) if text == commit else ("", text)
            here = held.of(commit)
            what = f"{url.ref or 'HEAD'} of it"
            if not commit or not self._has(here, commit):
                what = f"{what}, the commit {commit}," if commit else what
                raise FetchError(
                    shown(url.remote), f"{what} was never fetched, and the build is offline", ONLINE
                )
            return self._found(here, url, ref, commit)


def _submodule_url(parent: str, text: str, path: str) -> GitUrl:
    """A submodule's remote, which may be relative to its parent's. Source: git-submodule(1), "add"."""
    url = _joined(parent, text) if text.startswith(("./", "../")) else text
    where = f"the submodule {path} is at {shown(url)!r}"
    try:
        scheme = url.partition("://")[0].lower()
        # Here, a web address need not end in .git to be a repository.
        found = parse_git(url) or (GitUrl(remote=url) if scheme in ("http", "https") else None)
    except GitUrlError as error:
        raise FetchError(shown(parent), f"{where}: {error}") from error
    if found is None:
        raise FetchError(shown(parent), f"{where}, which is reached by no protocol that a build may use")
    return GitUrl(remote=found.remote)


def _joined(parent: str, relative: str) -> str:
    base = parent.rstrip("/")
    while relative.startswith(("./", "../")):
        if relative.startswith("../"):
            relative = relative[3:]
            cut = max(base.rfind("/"), base.rfind(":"))
            base = base[:cut] if cut > 0 else base
        else:
            relative = relative[2:]
    mark = ":" if "://" not in base and ":" not in base and parent[len(base) : len(base) + 1] == ":" else "/"
    return f"{base}{mark}{relative}"


def _real_folder(root: Path, path: str) -> Path:
    """The empty folder that a checkout left for a submodule; never one behind a symlink."""
    folder = root
    for part in PurePosixPath(path).parts:
        folder = folder / part
        if part == ".." or folder.is_symlink():
            raise FetchError(path, "the submodule's path leads out of its repository")
        folder.mkdir(exist_ok=True)
    return folder


def _date(root: Path, seconds: int) -> None:
    """Gives everything one time."""
    for path in (*_below(root), root):
        os.utime(path, (seconds, seconds), follow_symlinks=False)


def _below(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root, topdown=False):
        for name in (*files, *folders):
            yield Path(folder, name)
