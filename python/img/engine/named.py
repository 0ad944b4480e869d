"""`NamedContexts`: what `--build-context NAME=VALUE` puts in the place of a stage or an image.

`Build` has every value checked at once; files are fetched and images resolved only where the build reads
them. Source: Docker docs, `docker buildx build --build-context`.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from img import regex
from img.builder import NamedContext, context_name
from img.context import Context, unpack
from img.dockerfile import find_stage
from img.dockerfile.instructions import Dockerfile
from img.engine.contexts import git_of, ignoring, is_web, refuse_scheme
from img.engine.fetching import Fetcher
from img.engine.requests import BuildRequest
from img.errors import ImgError, InvalidReference, UsageError
from img.exporter.layout import LayoutName, image_of
from img.oci import Image, Platform, Reference
from img.remote import shown
from img.store import Store
from img.values import dataclass, field

Resolve = Callable[[Reference, Platform], Image]

_SCHEMES = ("docker-image", "oci-layout", "http", "https", "git", "ssh")
_FORMS = (
    "a named context is a folder, a git or http(s) URL, docker-image://NAME, oci-layout://PATH "
    "or target:STAGE"
)
_STAGE = regex.compile(r"(?:target|stage):(.*)", re.DOTALL)


class Trees(Mapping[str, Context]):
    """Trees of files by name, each opened once, at the first look. Safe for several threads."""

    def __init__(self, openers: Mapping[str, Callable[[], Context]]) -> None:
        """Opens nothing yet."""
        self._openers = openers
        self._opened: dict[str, Context] = {}
        self._locks = {name: threading.Lock() for name in openers}

    def __getitem__(self, name: str) -> Context:
        with self._locks[name]:
            if name not in self._opened:
                self._opened[name] = self._openers[name]()
            return self._opened[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._openers)

    def __len__(self) -> int:
        return len(self._openers)


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedContexts:
    """What the plan and the site need of them."""

    contexts: Mapping[str, NamedContext] = field(default_factory=dict)
    trees: Trees = field(default_factory=lambda: Trees({}))


def named_contexts(
    request: BuildRequest, dockerfile: Dockerfile, store: Store, fetcher: Fetcher, resolve: Resolve
) -> NamedContexts:
    """Reads and checks every named context of a request.

    Args:
        resolve: Gives the image of `docker-image://`, for a platform.
    Raises:
        UsageError: a value is no context, or two are for one name.
        DockerfileError: one names a stage that is not there.
    """
    reader = _Reader(request, dockerfile, store, fetcher, resolve)
    for name, value in request.contexts.items():
        reader.read(name, value)
    return NamedContexts(contexts=reader.contexts, trees=Trees(reader.openers))


class _Reader:
    """Takes one value after the other."""

    def __init__(
        self,
        request: BuildRequest,
        dockerfile: Dockerfile,
        store: Store,
        fetcher: Fetcher,
        resolve: Resolve,
    ) -> None:
        self.contexts: dict[str, NamedContext] = {}
        self.openers: dict[str, Callable[[], Context]] = {}
        self._request = request
        self._dockerfile = dockerfile
        self._store = store
        self._fetcher = fetcher
        self._resolve = resolve

    def read(self, name: str, value: str) -> None:
        """Reads one `NAME=VALUE`."""
        key = context_name(name)
        what = f"--build-context {name}={shown(value)}"
        if key in self.contexts:
            raise UsageError(f"{what}: there is another one for {key}")
        stage = _STAGE.fullmatch(value)
        if stage:
            if not stage.group(1):
                raise UsageError(f"{what}: it names no stage")
            self.contexts[key] = NamedContext(
                kind="stage", stage=str(find_stage(self._dockerfile, stage.group(1)).index)
            )
        elif value.startswith("docker-image://"):
            self.contexts[key] = NamedContext(kind="image", image=self._image(value, what))
        elif value.startswith("oci-layout://"):
            self.contexts[key] = NamedContext(kind="image", image=self._layout(value, what))
        else:
            self.openers[key] = self._tree(value, what)
            self.contexts[key] = NamedContext(kind="tree")

    def _image(self, value: str, what: str) -> Callable[[Platform], Image]:
        try:
            reference = Reference.parse(value.removeprefix("docker-image://"))
        except InvalidReference as error:
            raise UsageError(f"{what}: {error}") from error
        return lambda platform: self._resolve(reference, platform)

    def _layout(self, value: str, what: str) -> Callable[[Platform], Image]:
        try:
            name = LayoutName.parse(value.removeprefix("oci-layout://"), cwd=Path(self._request.cwd))
        except UsageError as error:
            raise UsageError(f"{what}: {error.message}", hint=error.hint) from error
        return lambda platform: image_of(self._store, name, platform)

    def _tree(self, value: str, what: str) -> Callable[[], Context]:
        path = Path(self._request.cwd) / value
        if value and path.is_dir():
            return lambda: ignoring(path.resolve(), name=value)
        git = git_of(value, what, self._request)
        if git is not None:
            return lambda: self._fetcher.repository(git)
        if is_web(value):
            return lambda: self._file(value)
        refuse_scheme(value, what, _SCHEMES, _FORMS)
        head, colon, rest = value.partition(":")
        hint = f"did you mean {head}://{rest.lstrip('/')}?" if colon and head in _SCHEMES else _FORMS
        trouble = "is a file, not a folder" if path.is_file() and value else "there is no such folder"
        raise UsageError(f"{what}: {trouble}", hint=hint)

    def _file(self, url: str) -> Context:
        """An archive's files; of another file, a folder with it."""
        name = re.split(r"[?#]", url, maxsplit=1)[0].rstrip("/").rpartition("/")[2]
        file = self._fetcher.file(url, name=name if name not in ("", ".", "..") else "context")
        into = self._fetcher.folder()
        try:
            root = into if unpack(file.path, into) else file.path.parent
        except ImgError as error:
            raise UsageError(f"{shown(url)}: the archive is broken: {error}") from error
        return Context(root=root, name=shown(url), lasting=False)
