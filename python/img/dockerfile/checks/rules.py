"""`RULES`: every check there is, by name, and `finding`, which makes what a check found.

The first 22 are BuildKit's, under its names; the rest are ours. The modules beside hold the checks
themselves, and `builder.plan.checks` those that need variables or a base. Nothing is decided here:
`options` says which rules a Dockerfile wants.
Source: Docker documentation, "Build checks"; `docs/checks.md` has an example of each.
"""

from __future__ import annotations

import re

from img.dockerfile.faults import printable
from img.dockerfile.findings import Finding, Level
from img.dockerfile.instructions import Span
from img.values import dataclass

_EXCERPT_LINES = 12
_URL = "https://docs.docker.com/go/dockerfile/rule/{}/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One check.

    Attributes:
        about: What it asks for, in one sentence.
        mend: What to do about a finding.
        experimental: Runs only where it is asked for by name, or with `experimental=all`.
        own: BuildKit has no such rule; a finding never fails a build.
    """

    name: str
    about: str
    mend: str
    level: Level = "warning"
    experimental: bool = False
    own: bool = False

    @property
    def url(self) -> str:
        """Where BuildKit's documentation has it; empty for a rule of our own."""
        words = re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z]+", self.name)
        return "" if self.own else _URL.format("-".join(words).lower())


_RULES = (
    Rule(
        name="StageNameCasing",
        about="A stage's name is written in lower case.",
        mend="write the name in lower case; names are compared so anyway",
    ),
    Rule(
        name="FromAsCasing",
        about="FROM and its AS are written in the same case.",
        mend="write AS as FROM is written",
    ),
    Rule(
        name="NoEmptyContinuation",
        about="A continued instruction has no empty line inside.",
        mend="remove the empty line, or put a # in it",
    ),
    Rule(
        name="ConsistentInstructionCasing",
        about="All instructions are written in one case.",
        mend="write every instruction in upper case, or every one in lower case",
    ),
    Rule(
        name="DuplicateStageName",
        about="No two stages have one name.",
        mend="rename one of them: only the later can be meant afterwards",
    ),
    Rule(
        name="ReservedStageName",
        about="No stage is called scratch or context.",
        mend="choose another name: these two have a meaning of their own",
    ),
    Rule(
        name="JSONArgsRecommended",
        about="CMD and ENTRYPOINT are in exec form, so that signals reach the program.",
        mend='write a JSON list: ["program", "argument"]; or choose a shell with SHELL',
    ),
    Rule(
        name="MaintainerDeprecated",
        about="An image's author is a label.",
        mend='write LABEL org.opencontainers.image.authors="…"',
    ),
    Rule(
        name="UndefinedArgInFrom",
        about="A variable in FROM is declared by an ARG before the first FROM.",
        mend="declare it with ARG above the first FROM",
    ),
    Rule(
        name="WorkdirRelativePath",
        about="The first WORKDIR of a build is absolute.",
        mend="begin the path with /: where it leads depends on the base as it is",
    ),
    Rule(
        name="UndefinedVar",
        about="A variable is declared before it is used.",
        mend="declare it with ARG or ENV in this stage, or escape the $",
    ),
    Rule(
        name="MultipleInstructionsDisallowed",
        about="A stage has one CMD, one ENTRYPOINT and one HEALTHCHECK.",
        mend="remove all but the last",
    ),
    Rule(
        name="LegacyKeyValueFormat",
        about="ENV and LABEL have an equals sign.",
        mend="write name=value, and quote a value that holds blanks",
    ),
    Rule(
        name="InvalidBaseImagePlatform",
        about="A base is for the platform that is built for.",
        mend="use a base for this platform, or FROM --platform=…",
    ),
    Rule(
        name="RedundantTargetPlatform",
        about="FROM does not repeat the default platform.",
        mend="remove --platform: a stage is built for the target platform anyway",
    ),
    Rule(
        name="SecretsUsedInArgOrEnv",
        about="No secret is passed by ARG or ENV, since both stay in the image.",
        mend="use RUN --mount=type=secret",
    ),
    Rule(
        name="InvalidDefaultArgInFrom",
        about="FROM names an image with the defaults of its ARGs alone.",
        mend="give the ARG a default that makes an image's name",
    ),
    Rule(
        name="FromPlatformFlagConstDisallowed",
        about="The platform in FROM comes from a variable.",
        mend="use $BUILDPLATFORM or another ARG, or name the platform in the stage's name",
    ),
    Rule(
        name="CopyIgnoredFile",
        about="Nothing is copied that .dockerignore takes away.",
        mend="change the pattern in the ignore file, or the source",
    ),
    Rule(
        name="InvalidDefinitionDescription",
        about="A comment right above a named FROM or an ARG describes it: # name what it is for.",
        mend="begin the comment with the name, or put an empty line below it",
        experimental=True,
    ),
    Rule(
        name="ExposeProtoCasing",
        about="The protocol in EXPOSE is in lower case.",
        mend="write tcp or udp in lower case",
    ),
    Rule(
        name="ExposeInvalidFormat",
        about="EXPOSE has a port of the container, and no address or port of the host.",
        mend="write the container's port alone; publishing is for whoever runs the image",
    ),
    Rule(
        name="UnknownRule",
        about="The check directive names rules that there are.",
        mend="correct the name, or remove it",
        own=True,
    ),
    Rule(
        name="CacheMountRecommended",
        about="A package manager's downloads are kept in a cache mount.",
        mend="",
        level="hint",
        own=True,
    ),
    Rule(
        name="AddInsteadOfCopy",
        about="ADD is for URLs, repositories and archives; COPY is for all else.",
        mend="write COPY: it does nothing but copy",
        level="hint",
        own=True,
    ),
    Rule(
        name="CopyBeforeInstall",
        about="Dependencies are installed before the whole context is copied.",
        mend="",
        level="hint",
        own=True,
    ),
    Rule(
        name="SecretInContext",
        about="No file that looks like a secret is copied into an image.",
        mend="name it in .dockerignore; a RUN that needs it can have it with --mount=type=secret",
        level="hint",
        own=True,
    ),
    Rule(
        name="AptListsLeft",
        about="The lists that apt-get update fetches do not stay in a layer.",
        mend="end the RUN with && rm -rf /var/lib/apt/lists/*, or mount a cache on /var/lib/apt",
        level="hint",
        own=True,
    ),
    Rule(
        name="LatestTag",
        about="A base has a tag that stays what it is.",
        mend="name a version, or a digest",
        level="hint",
        own=True,
    ),
)

RULES = {rule.name: rule for rule in _RULES}
"""By name, in the order of the reference."""


def finding(name: str, span: Span, message: str, *, line: int = 0, mend: str = "") -> Finding:
    """Makes a rule's finding about an instruction.

    Args:
        name: The rule's; a KeyError where there is none.
        line: The one line that it is about. Default: all of the instruction's.
        mend: What to do, where the rule's own words do not say enough.
    """
    rule = RULES[name]
    lines = span.text.split("\n")
    if line:
        lines = lines[line - span.start : line - span.start + 1]
    return Finding(
        rule=name,
        message=printable(message),
        path=span.path,
        line=line or span.start,
        end_line=line or span.end,
        level=rule.level,
        hint=printable(mend or rule.mend),
        excerpt=printable("\n".join(lines[:_EXCERPT_LINES])),
    )
