"""`look_at`, `take_in`, `load_layout`: what other verbs do with places: read them, or bring to the store.

`img inspect`, `img pull` and `img load` call them, by way of the engine.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from img.engine.copying import CopyRequest, Places, reference_of
from img.engine.requests import PullWish
from img.oci import Manifest, Platform, Reference
from img.oci.location import Location
from img.places.copier import Copier, Selection
from img.progress import Progress, Transfer, Transferred
from img.registry import Stop
from img.values import dataclass, replace

if TYPE_CHECKING:
    from img.engine import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """The documents of an image.

    Attributes:
        root: What the place has under the name: an index, or a manifest.
        manifest: The image's, of one platform.
        config: Its config; of another artifact, whatever it has in its place.
    """

    root: bytes
    manifest: bytes
    config: bytes
    digest: str


def look_at(engine: Engine, place: str, platform: str, progress: Progress) -> Looked:
    """Reads the documents of an image, wherever it is.

    Raises:
        NotFound: there is none, or none for the platform. As `Source`.
    """
    from img.places.choose import choose
    from img.places.supply import read_small

    with ExitStack() as held:
        places = Places(engine, progress, held, cwd=".", jobs=1)
        source = places.source(Location.parse(place))
        root = source.root()
        wanted = Platform.parse(platform) if platform else Platform.host()
        manifest = choose(root, (wanted,), source.document, source.where)
        assert isinstance(manifest, Manifest)  # of one platform
        config = read_small(source, manifest.config, Stop())
    return Looked(root=root.raw, manifest=manifest.raw, config=config, digest=root.digest)


def take_in(engine: Engine, place: str, wish: PullWish, progress: Progress) -> str:
    """Copies an image that is in no registry into the store; gives the name that it has there."""
    location = Location.parse(place)
    if location.transport == "img":
        return str(reference_of(location))
    with ExitStack() as held:
        places = Places(engine, progress, held, cwd=".", jobs=1)
        names = places.source(location).names
    name = str(names[0]) if names else _made_name(location)
    platforms = () if wish.all_platforms else wish.platforms or (str(Platform.host()),)
    request = CopyRequest(source=place, targets=(f"img:{name}",), platforms=platforms)
    engine.copy(request)
    return name


def _made_name(location: Location) -> str:
    """A name for an image that has none: after its file or folder, on no registry."""
    stem = Path(location.path).name.partition(".")[0].lower()
    tag = location.ref if location.ref and Reference.read(f"localhost/x:{location.ref}") else "latest"
    name = f"localhost/{stem}:{tag}"
    return name if Reference.read(name) else f"localhost/image:{tag}"


def load_layout(engine: Engine, folder: Path, progress: Progress) -> list[str]:
    """Takes every image of a layout into the store; gives their names, or IDs where unnamed."""
    from img.places.files import Folder
    from img.places.layout import LayoutSource, entries_of, full_names
    from img.places.stored import StoredTarget

    files = Folder(folder)
    files.where = str(folder)
    loaded: list[str] = []
    engine.store.lease()
    started, sums = time.monotonic(), [0, 0, 0]
    for entry in entries_of(files):
        names = full_names(entry)
        source = LayoutSource(files, Location(transport="oci", path=str(folder), digest=entry.digest))
        target = StoredTarget(engine.store, names or (None,))
        done = Copier(_loading(progress), jobs=4).copy(source, [target], Selection())
        sums = [sums[0] + done.sent, sums[1] + done.sent_bytes, sums[2] + done.present]
        loaded += [str(name) for name in names] or [target.id]
    progress(
        Transferred(
            action="load",
            name=folder.name,
            moved=sums[0],
            moved_bytes=sums[1],
            present=sums[2],
            seconds=time.monotonic() - started,
        )
    )
    return loaded


def _loading(progress: Progress) -> Progress:
    """What a copy says, as what is loaded."""
    return lambda event: progress(replace(event, action="load") if isinstance(event, Transfer) else event)
