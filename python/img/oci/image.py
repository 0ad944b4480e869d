"""`Image`: an immutable view over a manifest, its config and its layers, base first.

It holds no bytes of layers and knows of no store; `with_*` gives a new image whose config differs.
"""

from __future__ import annotations

from img.oci.config import ImageConfig, chain_id
from img.oci.descriptor import OCI_CONFIG, Descriptor
from img.oci.manifest import Manifest
from img.oci.platform import Platform
from img.values import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer on both its sides: the descriptor is of the blob, the diff ID of the plain tar."""

    descriptor: Descriptor
    diff_id: str

    @property
    def digest(self) -> str:
        """Digest of the blob as the manifest names it."""
        return self.descriptor.digest

    @property
    def size(self) -> int:
        """Bytes of that blob."""
        return self.descriptor.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image for one platform.

    Attributes:
        config_raw: The config's bytes, whose digest is the image ID.
    """

    manifest: Manifest
    config: ImageConfig
    config_raw: bytes

    @property
    def digest(self) -> str:
        """Digest of the manifest."""
        return self.manifest.digest

    @property
    def id(self) -> str:
        """The image ID: digest of the config."""
        return self.manifest.config.digest

    @property
    def platform(self) -> Platform:
        """What it runs on."""
        return self.config.platform

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, base first."""
        pairs = zip(self.manifest.layers, self.config.diff_ids, strict=True)
        return tuple(Layer(descriptor=d, diff_id=i) for d, i in pairs)

    @property
    def size(self) -> int:
        """Bytes of all layer blobs as the manifest names them."""
        return sum(layer.size for layer in self.manifest.layers)

    @property
    def chain_id(self) -> str:
        """Digest of the whole stack of layers; empty for an image without layers."""
        return chain_id(self.config.diff_ids) if self.config.diff_ids else ""

    @classmethod
    def make(cls, config: ImageConfig, layers: tuple[Descriptor, ...]) -> Image:
        """Puts an image together from a config and the descriptors of its layers."""
        raw = config.to_bytes()
        manifest = Manifest.make(config.descriptor(OCI_CONFIG), layers)
        return cls(manifest=manifest, config=config, config_raw=raw)

    def with_config(self, config: ImageConfig) -> Image:
        """The same layers under another config."""
        changed = replace(config, diff_ids=self.config.diff_ids)
        return Image.make(changed, self.manifest.layers)

    def with_labels(self, **labels: str) -> Image:
        """The same image with labels added or replaced."""
        return self.with_config(self.config.with_run(Labels={**self.config.labels, **labels}))

    def with_env(self, **variables: str) -> Image:
        """The same image with environment variables added or replaced."""
        env = {**self.config.env, **variables}
        return self.with_config(self.config.with_run(Env=[f"{k}={v}" for k, v in env.items()]))
