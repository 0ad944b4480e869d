"""`ImageConfig`: what an image says about running it, and how its layers came about.

Frozen; `with_*` gives a new one. Fields that `img` does not know are kept as they came.
Source: OCI image-spec v1.1, config.md; Docker's additions (Healthcheck, OnBuild, Shell) as its
image specification v1.2 names them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from img.errors import InvalidDocument
from img.oci.descriptor import OCI_CONFIG, Descriptor, is_digest, sha256
from img.oci.manifest import dump, load_object
from img.oci.platform import Platform
from img.values import dataclass, field, replace

_LISTS = ("Cmd", "Entrypoint", "Env", "OnBuild", "Shell")
_OBJECTS = ("ExposedPorts", "Labels", "Volumes")
_TEXTS = ("StopSignal", "User", "WorkingDir")

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """One line of an image's history; `empty_layer` where it has no layer of its own."""

    created: str = ""
    created_by: str = ""
    comment: str = ""
    author: str = ""
    empty_layer: bool = False

    def to_json(self) -> dict[str, object]:
        """Gives the document form, empty fields left out."""
        data: dict[str, object] = {}
        for name in ("created", "created_by", "author", "comment"):
            if value := getattr(self, name):
                data[name] = value
        if self.empty_layer:
            data["empty_layer"] = True
        return data


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """The config document of an image.

    Attributes:
        run: The `config` object (Env, Cmd, Entrypoint, …) as plain data; never change it in place.
        diff_ids: Digests of the uncompressed layers, base first.
        extra: Top-level fields that are not named here, kept as they came.
    """

    platform: Platform
    created: str = ""
    author: str = ""
    run: Mapping[str, Any] = field(default_factory=dict)
    diff_ids: tuple[str, ...] = ()
    history: tuple[History, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def scratch(cls, platform: Platform) -> ImageConfig:
        """The config that FROM scratch starts with."""
        return cls(platform=platform, run={})

    @classmethod
    def from_bytes(cls, raw: bytes, *, where: str = "image config") -> ImageConfig:
        """Reads the document.

        Raises:
            InvalidDocument: it is not one.
        """
        data = load_object(raw, where)
        rootfs, run, history = data.get("rootfs"), data.get("config"), data.get("history")
        ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
        if ids is None:
            ids = []
        if not isinstance(ids, list) or not all(isinstance(i, str) and is_digest(i) for i in ids):
            raise InvalidDocument(where, "rootfs.diff_ids is not a list of sha256 digests")
        if run is not None and not isinstance(run, dict):
            raise InvalidDocument(where, "config is not an object")
        run = _checked_run(run or {}, where)
        known = {"os", "architecture", "variant", "created", "author", "config", "rootfs", "history"}
        return cls(
            platform=Platform.from_json({k: data.get(k, "") for k in ("os", "architecture", "variant")}),
            created=str(data.get("created") or ""),
            author=str(data.get("author") or ""),
            run=run,
            diff_ids=tuple(ids),
            history=tuple(_history(h) for h in history) if isinstance(history, list) else (),
            extra={k: v for k, v in data.items() if k not in known},
        )

    def to_bytes(self) -> bytes:
        """Writes the document in canonical form; the same value always gives the same bytes."""
        document: dict[str, object] = {}
        if self.created:
            document["created"] = self.created
        if self.author:
            document["author"] = self.author
        document.update(self.platform.to_json())
        document["config"] = {k: self.run[k] for k in sorted(self.run)}
        document["rootfs"] = {"type": "layers", "diff_ids": list(self.diff_ids)}
        document["history"] = [h.to_json() for h in self.history]
        document.update({k: self.extra[k] for k in sorted(self.extra)})
        return dump(document)

    def descriptor(self, media_type: str = OCI_CONFIG) -> Descriptor:
        """Points at the document as `to_bytes` writes it."""
        raw = self.to_bytes()
        return Descriptor(media_type=media_type, digest=sha256(raw), size=len(raw))

    def with_run(self, **fields: object) -> ImageConfig:
        """Sets fields of the `config` object; None takes a field away. The values become the config's own."""
        run = dict(self.run)
        for name, value in fields.items():
            if value is None:
                run.pop(name, None)
            else:
                run[name] = value
        return replace(self, run=run)

    def with_history(self, line: History) -> ImageConfig:
        """Adds a line of history."""
        return replace(self, history=(*self.history, line))

    def with_layers(self, diff_ids: Sequence[str]) -> ImageConfig:
        """Sets the layers."""
        return replace(self, diff_ids=tuple(diff_ids))

    @property
    def env(self) -> dict[str, str]:
        """The environment, in its order."""
        pairs = (str(item).partition("=") for item in self.run.get("Env") or ())
        return {name: value for name, _, value in pairs}

    @property
    def labels(self) -> dict[str, str]:
        """The labels."""
        return {str(k): str(v) for k, v in (self.run.get("Labels") or {}).items()}

    @property
    def working_dir(self) -> str:
        """The working folder, `/` where none is set."""
        return str(self.run.get("WorkingDir") or "/")

    @property
    def user(self) -> str:
        """`user[:group]`, empty for root."""
        return str(self.run.get("User") or "")

    def words(self, name: str) -> tuple[str, ...] | None:
        """A list field (`Cmd`, `Entrypoint`, `Shell`, `OnBuild`), or None where it is not set."""
        value = self.run.get(name)
        return None if value is None else tuple(str(word) for word in value)


def _checked_run(run: dict[str, Any], where: str) -> dict[str, Any]:
    """Checks the fields that are read; a single word in place of a list, as old tools wrote, is one."""
    checked = dict(run)
    for name in _LISTS:
        value = run.get(name)
        if isinstance(value, str):
            checked[name] = [value]
        elif value is not None and not (isinstance(value, list) and all(isinstance(v, str) for v in value)):
            raise InvalidDocument(where, f"config.{name} is not a list of strings")
    for name in _OBJECTS:
        if not isinstance(run.get(name) or {}, dict):
            raise InvalidDocument(where, f"config.{name} is not an object")
    for name in _TEXTS:
        if not isinstance(run.get(name) or "", str):
            raise InvalidDocument(where, f"config.{name} is not a string")
    return checked


def _history(data: object) -> History:
    if not isinstance(data, dict):
        return History()
    return History(
        created=str(data.get("created") or ""),
        created_by=str(data.get("created_by") or ""),
        comment=str(data.get("comment") or ""),
        author=str(data.get("author") or ""),
        empty_layer=bool(data.get("empty_layer")),
    )


def chain_id(diff_ids: Sequence[str]) -> str:
    """The chain ID of a stack of layers, base first. Source: config.md, "Layer ChainID".

    Args:
        diff_ids: At least one diff ID.
    """
    chain = diff_ids[0]
    for diff_id in diff_ids[1:]:
        chain = sha256(f"{chain} {diff_id}".encode())
    return chain
