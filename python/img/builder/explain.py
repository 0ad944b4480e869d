"""`Explainer`: says why a step missed the cache, and of every step what its key was compared with.

`Keeper` calls it from the node's own thread: `missed` before the work, `label` for the record of it, `hit`
where the cache had one. The nearest record is looked up at a miss alone, and so is the listing of the
files that were copied made; a hit costs nothing here. What it says of each step goes to `Site.logs`.
It decides nothing: a failure here costs the explanation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from img import _core
from img.builder.graph import INPUTS, ConfigOp, CopyOp, Node, SourceOp
from img.builder.key import CacheKey
from img.builder.perform import Step
from img.builder.site import Site
from img.errors import ImgError
from img.oci.hashing import sha256
from img.progress import StepExplained
from img.store import CacheRecord
from img.values import dataclass, field, replace

if TYPE_CHECKING:
    from img.builder.differences import Difference

# `differences` is imported where a step missed: a build of which every step is known starts sooner.

FILES = 50
"""Files that an explanation names; the rest is counted."""

NEW = "first build of this step"
"""Why the cache has nothing for a step of which there is no like."""

_CLAUSES = 2
"""Differences that one clause names."""


@dataclass(slots=True)
class _Missed:
    """What is known of a step that the cache did not have.

    Attributes:
        clause: Why, in one clause.
        cause: What the steps above are told where this one gave other files; empty for its own name.
        gave_other: What it made is not what the nearest record has; None before it is known.
    """

    clause: str
    listing: str = ""
    nearest: CacheRecord | None = None
    cause: str = ""
    gave_other: bool | None = None


@dataclass(slots=True)
class Explainer:
    """The explanations of one build. Safe for several threads: each step is one thread's."""

    site: Site
    nodes: Sequence[Node] = ()
    _missed: dict[int, _Missed] = field(default_factory=dict)
    _places: dict[int, int] = field(default_factory=dict)

    def missed(
        self,
        step: Step,
        keys: Sequence[CacheKey],
        *,
        forced: str = "",
        selections: Sequence[_core.Selection] = (),
    ) -> str:
        """Says in one clause why the cache had nothing for a step.

        Args:
            keys: All that were asked for, the one that says most at the end.
            forced: Why nothing was asked; empty where the cache was.
            selections: The files that the step reads, digested.
        """
        node, key = step.node, keys[-1]
        listing = self._list(selections)
        nearest = self._nearest(node, key)
        before = json.loads(nearest.inputs) if nearest else {}
        differences: list[Difference] = []
        total = 0
        if forced:
            clause, cause = forced, ""
        elif any(self.site.store.records.has(known.digest) for known in keys):
            clause, cause = "its layer is no longer in the store", ""
        elif nearest is None:
            clause, cause = NEW, ""
        else:
            differences, clause, cause, total = self._compare(step, before, key, nearest, listing)
        missed = _Missed(clause=clause, listing=listing, nearest=nearest, cause=cause)
        self._missed[node.number] = missed
        told = tuple(one.as_data() for one in differences)
        more = max(0, total - len(differences))
        self._tell(replace(_compared(node, key, nearest, hit=False), why=clause, differences=told, more=more))
        return clause

    def hit(self, step: Step, key: CacheKey, record: CacheRecord) -> None:
        """Says what a step's key was found to be."""
        self._tell(_compared(step.node, key, record, hit=True))

    def label(self, step: Step, record: CacheRecord) -> CacheRecord:
        """A record with what it is found by when a later step is like it."""
        missed = self._missed.get(step.node.number)
        return replace(
            record,
            title=step.node.title,
            place=self.place(step.node),
            listing=missed.listing if missed else record.listing,
        )

    def made(self, step: Step, record: CacheRecord) -> str:
        """Notes what came of a step that missed; gives the clause that was said of it."""
        missed = self._missed.get(step.node.number)
        if missed is None:
            return ""
        missed.gave_other = missed.nearest is None or missed.nearest.content != record.content
        return missed.clause

    def nearest(self, step: Step) -> CacheRecord | None:
        """The record that a step which missed was compared with."""
        missed = self._missed.get(step.node.number)
        return missed.nearest if missed else None

    def place(self, node: Node) -> str:
        """Where a step stands: which Dockerfile and context, which stage, the how-manieth in it."""
        if not self._places:
            self._places = _positions(self.nodes)
        words = (self.site.place, node.stage, str(self._places.get(node.number, node.number)))
        return sha256("\n".join(words).encode("utf-8", "surrogateescape")).hexdigest()[:32]

    # ---- what it is compared with -----------------------------------------------------------------

    def has_like(self, node: Node) -> bool:
        """Is there any record that a step could be compared with, or found by?"""
        records = self.site.store.records
        return records.any_titled(node.title) or records.any_placed(self.place(node))

    def _nearest(self, node: Node, key: CacheKey) -> CacheRecord | None:
        """The record that is most like a key: of the same title, else of the same place."""
        from img.builder.differences import equal_fields

        for candidates in (
            self.site.store.records.titled(node.title),
            self.site.store.records.placed(self.place(node)),
        ):
            best, nearest = (-1, False), None
            for record in candidates:  # newest first
                inputs = _inputs(record)
                if inputs.get("op") != key.inputs.get("op"):
                    continue
                # `COPY . .` stands in many a Dockerfile, and over the same base.
                likeness = (equal_fields(inputs, key.inputs), record.place == self.place(node))
                if likeness > best:
                    best, nearest = likeness, record
            if nearest is not None:
                return nearest
        return None

    def _list(self, selections: Sequence[_core.Selection]) -> str:
        if not selections:
            return ""
        try:
            return self.site.store.listings.put(selections)
        except (ImgError, OSError):
            return ""  # the copy itself will say that the disk is full

    def _compare(
        self, step: Step, before: Mapping[str, object], key: CacheKey, nearest: CacheRecord, listing: str
    ) -> tuple[list[Difference], str, str, int]:
        """All differences, those in one clause, what the steps above are told, and how many there are."""
        from img.builder.differences import compare

        found: list[Difference] = []
        clauses: list[str] = []
        cause = ""
        total = 0
        for one in compare(before, key.inputs):
            total += 1
            if one.field == "content":
                files, clause, count = self._files(step, nearest, listing)
                total += count - 1
                found.extend(files or [one])
                clauses.append(clause)
            elif one.field == "below":
                cause = self._below(step)
                found.append(replace(one, text=cause))
                clauses.append(cause)
            else:
                found.append(one)
                clauses.append(one.text)
        if not clauses:
            text = "the files changed" if isinstance(step.node.op, CopyOp) else "what it mounts changed"
            return [], text, "", 0
        more = len(clauses) - _CLAUSES
        clause = ", ".join(clauses[:_CLAUSES]) + (f" and {more} more" if more > 0 else "")
        return found, clause, cause if clauses == [cause] else "", total

    def _files(self, step: Step, nearest: CacheRecord, listing: str) -> tuple[list[Difference], str, int]:
        """The differences between the files now and then; none where what there was is not known."""
        from img.builder.differences import file_difference, files_clause

        head = "" if isinstance(step.node.op, CopyOp) else "mounted: "
        compared = None
        if listing and nearest.listing:
            compared = self.site.store.listings.compare(nearest.listing, listing, limit=FILES)
        if compared is None or not compared.total:
            return [], f"{head}the files changed", 1
        files = [file_difference(*one) for one in compared.differences]
        clause = files_clause(
            files,
            total=compared.total,
            added=compared.added,
            removed=compared.removed,
            changed=compared.changed,
        )
        return files, head + clause, compared.total

    def _below(self, step: Step) -> str:
        """Why what a step stands on is another: the lowest step below that gave other files, or the base."""
        node = step.node
        if not self.nodes:
            return "what is below changed"
        cause = ""
        while node.inputs:
            node = self.nodes[node.inputs[0]]
            if isinstance(node.op, SourceOp):
                if not cause and step.inputs[0].content.startswith(("chain:", "stack:empty")):
                    return f"the base {node.title.removeprefix('FROM ')} is another image"
                break
            missed = self._missed.get(node.number)
            if isinstance(node.op, ConfigOp) or missed is None:
                continue
            if missed.cause:
                cause = cause or missed.cause
            if missed.gave_other is not False:
                cause = missed.cause or f"what is below changed: {_named(node)} gave other files"
        return cause or "what is below changed"

    def _tell(self, event: StepExplained) -> None:
        if self.site.logs is not None:
            self.site.logs.explained(event)
        if self.site.explain:
            self.site.progress(event)


def _inputs(record: CacheRecord) -> dict[str, object]:
    try:
        inputs = json.loads(record.inputs)
    except ValueError:
        return {}
    return inputs if isinstance(inputs, dict) else {}


def _named(node: Node) -> str:
    """A step in a clause about another: its place, and the beginning of its instruction."""
    from img.builder.differences import clip

    return f"{node.where} {clip(node.instruction)}".strip()


def _positions(nodes: Sequence[Node]) -> dict[int, int]:
    """The how-manieth instruction of its stage that has a key each node belongs to."""
    found: dict[int, int] = {}
    seen: dict[str, list[str]] = {}
    for node in nodes:
        if isinstance(node.op, (*INPUTS, ConfigOp)):
            continue
        places = seen.setdefault(node.stage, [])
        if not places or places[-1] != node.where:
            places.append(node.where)
        found[node.number] = len(places)
    return found


def _compared(node: Node, key: CacheKey, record: CacheRecord | None, *, hit: bool) -> StepExplained:
    """What a step's key was compared with, if with anything."""
    return StepExplained(
        step=node.number,
        title=node.title,
        where=node.where,
        stage=node.stage,
        key=key.digest,
        hit=hit,
        record=record.key if record else "",
        created=record.created if record else "",
    )
