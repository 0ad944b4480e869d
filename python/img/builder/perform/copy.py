"""COPY and ADD, carried out: what they read, their cache keys, and the copy.

Source: Dockerfile reference, "COPY", "ADD".
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from img import _core
from img.builder.graph import CopyOp, CopyPart
from img.builder.key import CacheKey
from img.builder.perform.step import Made, Step, folders_of
from img.builder.users import named_owner, owner
from img.context import Context, literal
from img.store import SharedLayer
from img.values import dataclass, field


@dataclass(slots=True)
class Sources:
    """What a COPY reads: selections in the Dockerfile's order, and what lets go of them.

    Attributes:
        trees: For each selection, the folder that it was chosen from, where that is no mounted root.
    """

    selections: list[_core.Selection] = field(default_factory=list)
    trees: list[Context | None] = field(default_factory=list)
    release: list[Callable[[], object]] = field(default_factory=list)

    def close(self) -> None:
        """Lets go of mounted roots and unpacked archives."""
        while self.release:
            self.release.pop()()

    def recall(self, memo: _core.DigestMemo | None) -> None:
        """Before a copy that goes before `digests`: what the copy reads is not read again."""
        for selection, tree in zip(self.selections, self.trees, strict=True):
            selection.recall(memo if tree is not None and tree.lasting else None)

    def digests(self, memo: _core.DigestMemo | None) -> list[str]:
        """The content digest of each selection. Only files that stay where they are are remembered."""
        return [
            selection.content_digest(memo if tree is not None and tree.lasting else None)
            for selection, tree in zip(self.selections, self.trees, strict=True)
        ]


def open_sources(step: Step, op: CopyOp) -> Sources:
    """Selects what an op copies.

    Raises:
        CopyError: a source names nothing.
    """
    sources = Sources()
    try:
        for part in op.parts:
            tree = step.tree(part.input)
            sources.trees.append(tree)
            if tree is not None:
                sources.selections.append(tree.select(part.patterns, op.exclude, parents=op.parents))
                continue
            snapshot = step.site.snapshots.view(folders_of(step.site, step.inputs[part.input]))
            sources.release.append(snapshot.close)
            sources.selections.append(
                _core.Selection(
                    str(snapshot.root), part.patterns, exclude=op.exclude, owners=True, parents=op.parents
                )
            )
        if op.inline:
            sources.trees.append(None)
            sources.selections.append(_inline(step, op, sources))
        if not any(selection.sources() for selection in sources.selections):
            _tell_of_nothing(step, op, sources)
    except BaseException:
        sources.close()
        raise
    return sources


def _tell_of_nothing(step: Step, op: CopyOp, sources: Sources) -> None:
    """Wildcards may match nothing, which is rarely meant where nothing is copied at all."""
    words = " ".join(op.sources)
    ignored = any(selection.ignored for selection in sources.selections)
    text = f"nothing is copied: {words} matches {'only what is ignored' if ignored else 'no file'}"
    if ignored:
        text += f" ({step.site.context.ignore_name})"
    step.warn(text)


def _inline(step: Step, op: CopyOp, sources: Sources) -> _core.Selection:
    """Writes here-documents down as files and selects them."""
    folder = step.site.scratch / f"inline-{step.node.number}"
    folder.mkdir()
    sources.release.append(lambda: _core.remove_tree(str(folder)))
    for file in op.inline:
        path = folder / file.name
        path.write_bytes(file.content.encode("utf-8", "surrogateescape"))
        path.chmod(0o644)
        os.utime(path, (0, 0))
    return _core.Selection(str(folder), [file.name for file in op.inline])


def quick_key(step: Step, op: CopyOp) -> CacheKey | None:
    """The key that needs nothing read: sources named by what they stand in; None where that is not enough."""
    named = [step.inputs[part.input].content if part.input else "" for part in op.parts]
    if not all(named) or not op.parts:
        return None
    parts = [[content, *part.patterns] for content, part in zip(named, op.parts, strict=True)]
    return copy_key(step, op, parts=parts, exclude=list(op.exclude))


def copy_key(step: Step, op: CopyOp, **source: object) -> CacheKey:
    """The key of a COPY: what it copies (by content, or by the stack it comes from), and where to."""
    return CacheKey.make(
        "copy",
        below=None if _apart(op) else step.inputs[0].content,
        link=op.link or None,
        parents=op.parents or None,
        dest=op.dest,
        chown=op.chown,
        chmod=op.chmod,
        unpack=[part.unpack for part in op.parts] if any(part.unpack for part in op.parts) else None,
        inline=[[file.name, file.content] for file in op.inline],
        epoch=step.site.epoch,
        **source,
    )


def copies_as_selected(op: CopyOp) -> bool:
    """Does the copy read what the key is made of? Not where an archive is unpacked on the way."""
    return not any(part.unpack for part in op.parts)


def _apart(op: CopyOp) -> bool:
    """Is nothing of what is below looked at? With `--link` only the names of owners are looked up there."""
    return op.link and not named_owner(op.chown)


def copy(step: Step, op: CopyOp, sources: Sources, earlier: SharedLayer | None = None) -> Made:
    """Copies into a new upper folder and digests it on the way.

    Args:
        earlier: The layer of a like step before, with which files are shared that are the same.
    """
    site = step.site
    folder = site.scratch / f"copy-{step.node.number}"
    upper = folder / "upper"
    upper.mkdir(parents=True)
    fingerprints = folder / "fingerprints"

    def discard() -> None:
        _core.remove_tree(str(folder))

    try:
        packed = _core.copy_layer(
            _unpacked(op, sources, folder),
            parents=[] if op.link else [str(path) for path in step.below],
            upper=str(upper),
            dest=op.dest,
            owner=owner(op.chown, step.read, step.warn) if op.chown else None,
            mode=op.chmod or None,
            keep_owner=True,  # a context's selection says 0:0 of its own accord
            clamp_mtime=site.epoch,
            earlier=(str(earlier.path), str(earlier.fingerprints)) if earlier else None,
            fingerprints=str(fingerprints),
        )
        return Made(packed=packed, upper=upper, discard=discard, fingerprints=fingerprints)
    except BaseException:
        discard()
        raise


def _unpacked(op: CopyOp, sources: Sources, folder: Path) -> list[_core.Selection]:
    """Replaces each source that is an archive by what it holds.

    Source: Dockerfile reference, "ADD", local tar archives: told by content, not by name.
    """
    found: list[_core.Selection] = []
    for number, part in enumerate(op.parts):
        tree = sources.trees[number]
        if part.unpack and tree is not None:
            found.extend(_unpacked_part(op, part, tree, folder / f"archives-{number}"))
        else:
            found.append(sources.selections[number])
    return [*found, *(sources.selections[-1:] if op.inline else ())]


def _unpacked_part(op: CopyOp, part: CopyPart, tree: Context, folder: Path) -> list[_core.Selection]:
    found: list[_core.Selection] = []
    for position, word in enumerate(part.patterns):
        selection = tree.select((word,), op.exclude)
        named = selection.sources()
        archives = 0
        parts: list[_core.Selection] = []
        for number, (path, matched, is_dir) in enumerate(named):
            into = folder / f"{position}-{number}"
            into.mkdir(parents=True)
            implied = None if is_dir else _core.unpack_archive(str(tree.root / path), str(into))
            if implied is not None:
                parts.append(_core.Selection(str(into), ["."], owners=True, unpacked=implied))
                archives += 1
            else:
                parts.append(tree.select((literal(matched),), op.exclude))
        found.extend(parts if archives else [selection])
    return found
