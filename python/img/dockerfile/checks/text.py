"""`check_text`: the checks that need nothing but the Dockerfile: names, casing, comments, old forms.

They see the whole file, whatever its target. `builder.plan.checks` calls them, and has those checks
of BuildKit that follow a build's stages.
Source: Docker documentation, "Build checks".
"""

from __future__ import annotations

from collections.abc import Iterator

from img.dockerfile.checks.rules import finding
from img.dockerfile.findings import Finding
from img.dockerfile.instructions import Arg, Dockerfile, From, Instruction, Maintainer
from img.dockerfile.words import blank_words, split_flags

_RESERVED = ("context", "scratch")


def check_text(dockerfile: Dockerfile) -> Iterator[Finding]:
    """Gives what all the checks of this module find."""
    yield from dockerfile.warnings
    for check in (_stage_names, _from_casing, _casing, _descriptions, _maintainer):
        yield from check(dockerfile)


def keyword_of(instruction: Instruction) -> str:
    """An instruction's keyword as it was written."""
    return instruction.original.split(None, 1)[0]


def _stage_names(dockerfile: Dockerfile) -> Iterator[Finding]:
    seen: dict[str, int] = {}
    for stage in dockerfile.stages:
        span, name = stage.from_.span, stage.name
        if not name:
            continue
        if name in _RESERVED:
            yield finding(
                "ReservedStageName", span, f"a stage should not be called {name!r}: it is a reserved word"
            )
        if name in seen:
            yield finding(
                "DuplicateStageName", span, f"the stage of line {seen[name]} is called {name!r}, too"
            )
        seen[name] = span.start


def _from_casing(dockerfile: Dockerfile) -> Iterator[Finding]:
    """StageNameCasing and FromAsCasing: what stands after FROM, as it was written."""
    for stage in dockerfile.stages:
        keyword, *rest = stage.from_.original.split(None, 1)
        words = blank_words(split_flags("".join(rest))[1])
        if len(words) != 3:
            continue
        _, as_, name = words
        if name != name.lower():
            yield finding(
                "StageNameCasing", stage.from_.span, f"the stage name {name!r} should be in lower case"
            )
        # A FROM that is neither upper nor lower case is ConsistentInstructionCasing's business.
        mixed = keyword not in (keyword.lower(), keyword.upper())
        wanted = as_.lower() if keyword == keyword.lower() else as_.upper()
        if not mixed and as_ != wanted:
            yield finding("FromAsCasing", stage.from_.span, f"{as_!r} and {keyword!r} differ in case")


def _casing(dockerfile: Dockerfile) -> Iterator[Finding]:
    """ConsistentInstructionCasing: the majority decides; ARGs before the first FROM do not count."""
    counted = [i for stage in dockerfile.stages for i in (stage.from_, *stage.instructions)]
    words = [keyword_of(instruction) for instruction in counted]
    lower = sum(1 for word in words if word == word.lower())
    upper = sum(1 for word in words if word == word.upper())
    case, change = ("lower", str.lower) if lower > upper else ("upper", str.upper)
    for instruction, word in zip(counted, words, strict=True):
        if word != change(word):
            yield finding(
                "ConsistentInstructionCasing",
                instruction.span,
                f"{word!r} should be in {case} case, as most instructions are",
                mend=f"write {change(word)}",
            )


def _descriptions(dockerfile: Dockerfile) -> Iterator[Finding]:
    staged = [i for stage in dockerfile.stages for i in (stage.from_, *stage.instructions)]
    for instruction in (*dockerfile.args, *staged):
        comments = dockerfile.comments.get(instruction.span.start)
        names: list[str] = []
        if isinstance(instruction, From) and instruction.name:
            names = [instruction.name]
        elif isinstance(instruction, Arg):
            names = [name for name, _ in instruction.pairs]
        if not comments or not comments[-1] or not names or comments[-1].split(" ")[0] in names:
            continue
        name = names[0] if len(names) == 1 else "name"
        yield finding(
            "InvalidDefinitionDescription",
            instruction.span,
            f"the comment above {keyword_of(instruction).upper()} does not begin with the name it describes",
            mend=f"write # {name} description, or put an empty line below the comment",
        )


def _maintainer(dockerfile: Dockerfile) -> Iterator[Finding]:
    for stage in dockerfile.stages:
        for instruction in stage.instructions:
            if isinstance(instruction, Maintainer):
                yield finding(
                    "MaintainerDeprecated",
                    instruction.span,
                    "MAINTAINER is deprecated; a label says the same",
                )
