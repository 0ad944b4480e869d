"""`Locator`: finds what an image's name means: by a pull policy, in the store or at the name's registry.

`Puller` asks it, and brings what it found. It reads manifests and configs, fetches no layer, and gives no
name. A document that the store has is not fetched; one that is fetched, the store has from then on. Of a tag
that has a meaning here, the registry is asked for the digest alone: one request, and none of those that
registries count. Source: podman-pull(1), "--policy", for what the policies are called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from img.engine.requests import PullPolicy
from img.errors import BlobNotFound, InvalidDocument, RegistryError, StoreError, UsageError
from img.oci import Descriptor, Image, ImageConfig, Index, Manifest, Platform, Reference, parse
from img.oci.descriptor import CONFIGS, LAYERS
from img.progress import Note, Progress
from img.store import Store
from img.values import dataclass

if TYPE_CHECKING:
    from img.registry import Registry

OpenRegistry = Callable[[], "Registry"]
"""Gives the client; called only when the network is needed."""

OFFLINE = "the build is offline"
NO_PULLING = "pulling is off"
"""Why no registry may be asked: `--offline`, `--pull=never`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """What a name means.

    Attributes:
        image: The image, of one platform.
        digest: What the name stands for, whatever the platform: an index, or the image's manifest.
        index: The index, where a registry gave one just now.
        fresh: A registry gave it just now, and the store may not know it under the name.
    """

    image: Image
    digest: str
    index: bytes = b""
    fresh: bool = False


class Locator:
    """Finds images for one store. Safe for several threads."""

    def __init__(self, store: Store, registry: OpenRegistry, progress: Progress, *, barred: str = "") -> None:
        """Touches neither disk nor network yet.

        Args:
            barred: Why no registry may be asked, such as `OFFLINE`; empty where one may.
        """
        self._store = store
        self._registry = registry
        self._progress = progress
        self._barred = barred

    def locate(self, reference: Reference, platform: Platform, *, policy: PullPolicy = "missing") -> Located:
        """Finds what a name means; the store's names stay as they are.

        Args:
            policy: `missing` asks the registry only for what is not here. `always` asks it first. `newer`
                takes what the registry has where that differs, and what is here where it cannot be
                had. `never` does not ask. What a digest names cannot change: where it is here, no
                policy asks.
        Raises:
            RegistryError: it cannot be had. StoreError: nobody is asked, and it is not here.
        """
        found = self._find(reference, platform)
        if self._barred or policy == "never":
            if found is None:
                raise self._absent(reference, platform)
            return found
        if found is None or (policy == "always" and not reference.digest):
            return self._ask(reference, platform, found)
        if policy == "newer" and not reference.digest:
            return self._newer(reference, platform, found)
        return found

    def meaning(self, reference: Reference, *, policy: PullPolicy = "missing") -> Manifest | Index:
        """Finds what a name stands for, whatever the platform.

        Raises:
            As `locate`.
        """
        here = reference.digest or self._store.names.meaning(reference)
        if policy in ("missing", "never") and here:
            return self.document(reference, here)
        if policy == "never" or self._barred:
            raise self._absent(reference, Platform.host())
        try:
            return self.document(reference)
        except RegistryError as error:
            if policy != "newer" or not here:
                raise
            self._tell_stale(reference, error)
            return self.document(reference, here)

    def document(self, reference: Reference, digest: str = "") -> Manifest | Index:
        """Reads a manifest or an index, from the store where it has it; the store has it afterwards.

        Args:
            digest: Which one; by default what the name means at its registry now.
        Raises:
            RegistryError: as `Registry.manifest`.
        """
        wanted = digest or reference.digest or self._stated(reference)
        known = self._known(wanted)
        if known is not None:
            return parse(known, where=f"manifest of {reference}")
        document = self._registry().manifest(reference, wanted or None)
        self._store.blobs.put(document.raw)
        return document

    def blob(self, reference: Reference, descriptor: Descriptor) -> bytes:
        """Reads a small blob, such as a config, likewise."""
        raw = self._known(descriptor.digest)
        if raw is None:
            raw = self._registry().document(reference, descriptor)
            self._store.blobs.put(raw)
        return raw

    def _known(self, digest: str) -> bytes | None:
        """A document that the store has."""
        try:
            return self._store.blobs.read(digest) if digest and self._store.blobs.has(digest) else None
        except BlobNotFound:
            return None  # a collection was quicker

    def _stated(self, reference: Reference) -> str:
        """The digest that a registry states for a tag which means something here; else empty.

        Where nothing is known of the tag, what it means has to be fetched anyway.
        """
        if not self._store.names.meaning(reference):
            return ""
        stated = self._registry().head(reference)
        return stated.digest if stated is not None else ""

    def _find(self, reference: Reference, platform: Platform) -> Located | None:
        found = self._store.names.find_for(reference, platform)
        return Located(image=found[0], digest=found[1]) if found else None

    def _newer(self, reference: Reference, platform: Platform, found: Located) -> Located:
        """What the registry has, where that is not what is here."""
        try:
            stated = self._registry().head(reference)
            if stated is None:
                from img.registry.faults import absent

                raise absent(reference)
            if stated.digest == found.digest:
                return found
            document = self.document(reference, stated.digest)
            return self._image(reference, document, platform, source=reference.name)
        except RegistryError as error:
            self._tell_stale(reference, error)
            return found

    def _tell_stale(self, reference: Reference, error: RegistryError) -> None:
        text = f"{reference.familiar} is used as it is here, since its registry does not give it: {error}"
        self._progress(Note(level="warning", text=text))

    def _ask(self, reference: Reference, platform: Platform, found: Located | None) -> Located:
        """What the name means at its registry now."""
        try:
            # What is here by its digest is not asked for, and nobody has said that this repository has it.
            known = reference.digest and self._store.blobs.has(reference.digest)
            source = "" if known else reference.name
            document = self.document(reference)
            if found is not None and document.digest == found.digest:
                return found
            return self._image(reference, document, platform, source=source)
        except RegistryError as error:
            error.hint = error.hint or self._elsewhere(reference)
            raise

    def _image(
        self, reference: Reference, document: Manifest | Index, platform: Platform, *, source: str
    ) -> Located:
        """The image for a platform of what a name means."""
        manifest = document
        if isinstance(document, Index):
            from img.registry.search import choose

            def read(digest: str) -> Manifest | Index:
                return self.document(reference, digest)

            manifest = choose(reference, document, platform, read, Index.choose_zstd)
        assert isinstance(manifest, Manifest)
        index = document.raw if isinstance(document, Index) else b""
        image = self.image(reference, manifest, source=source)
        return Located(image=image, digest=document.digest, index=index, fresh=True)

    def image(self, reference: Reference, manifest: Manifest, *, source: str) -> Image:
        """The image of a manifest.

        Args:
            source: The repository that is known to have its layers; empty for none.
        Raises:
            InvalidDocument: its config is none, or not that of these layers. RegistryError.
        """
        refuse_artifact(reference, manifest)
        raw = self.blob(reference, manifest.config)
        config = ImageConfig.from_bytes(raw, where=f"config of {reference}")
        if len(config.diff_ids) != len(manifest.layers):
            raise InvalidDocument(
                str(reference),
                f"{len(manifest.layers)} layers in the manifest, {len(config.diff_ids)} in the config",
            )
        image = Image(manifest=manifest, config=config, config_raw=raw)
        for layer in image.layers:
            self._store.layers.remember_blob(layer.diff_id, layer.descriptor, source=source)
        return image

    def _absent(self, reference: Reference, platform: Platform) -> StoreError:
        """The error for an image that is not here, where nobody may be asked for it."""
        why = self._barred or NO_PULLING
        name = reference.familiar
        given = "" if platform == Platform.host() else f"--platform {platform} "
        other = self._elsewhere(reference)
        return StoreError(
            f"{name} is not in the store{f' for {platform}' if other else ''}, and {why}",
            hint=f"{f'{other}; ' if other else ''}{how_to_fetch(given + name, why)}",
        )

    def _elsewhere(self, reference: Reference) -> str:
        """Says for which platform a name is here, where that is not the one which is wanted."""
        image = self._store.names.find(reference)
        return f"the store has {reference.familiar} for {image.platform}" if image else ""


def refuse_artifact(reference: Reference, manifest: Manifest) -> None:
    """Ends where a manifest is no image's: there is nothing to unpack, and nothing to build on.

    Raises:
        UsageError: with what it is.
    """
    if manifest.is_image:
        return
    kinds = [manifest.kind] if manifest.kind not in CONFIGS else []
    kinds = kinds or [layer.media_type for layer in manifest.layers if layer.media_type not in LAYERS]
    raise UsageError(
        f"{reference.familiar} is no image, but an artifact: {kinds[0]}",
        hint=f"img artifact pull {reference.familiar} -o DIR fetches its files",
    )


def how_to_fetch(words: str, why: str) -> str:
    """The hint how to get an image that is missing.

    Args:
        words: Its name, and the flags before it.
        why: Why it was not fetched.
    """
    return f"img pull {words} fetches it{', while there is a network' if why == OFFLINE else ''}"
