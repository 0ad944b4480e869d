"""Checks of any text: they find, or the text is refused; nothing else comes of it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from img.builder import PlanOptions
from img.builder.checking import check_plan
from img.builder.outline import list_targets, make_outline
from img.dockerfile import parse
from img.errors import DockerfileError, UsageError

from .planning import base

VOCABULARY = """
    FROM from From ARG ENV LABEL COPY ADD RUN CMD ENTRYPOINT HEALTHCHECK EXPOSE WORKDIR USER VOLUME
    ONBUILD SHELL STOPSIGNAL MAINTAINER AS as busybox scratch Base $A ${A:-b} ${A A=1 a=b . / /a ./b
    --from=Base --mount=type=cache,target=/c --mount=type=secret,id=$A --platform=$B --chown=a:b
    [ "a", ] 80/TCP 1:2:3 apt-get update install && npm ci <<EOF EOF # check=skip=all check=x
"""
ODD = ("\\\n", "\n", "\n", "\n", "'", '"', "\t", "\x1c", "\xa0", "\udcff", "`", "$", "é")
WORDS = (*VOCABULARY.split(), *ODD)
TEXTS = st.lists(st.sampled_from(WORDS), max_size=40).map(lambda words: "FROM busybox\n" + " ".join(words))


@settings(max_examples=400)
@given(text=TEXTS, given_=st.dictionaries(st.sampled_from("AB"), st.text(max_size=3)))
def test_any_text_is_checked_or_refused(text: str, given_: dict[str, str]) -> None:
    options = PlanOptions(build_args=given_, ignored=lambda path: path == "a")
    try:
        dockerfile = parse(text.encode("utf-8", "surrogateescape"))
        plan = check_plan(dockerfile, options, lambda _, platform: base(platform, Env=["PATH=/bin"]))
    except (DockerfileError, UsageError):
        return
    lines = text.count("\n") + 1
    for found in plan.findings:
        assert 1 <= found.line <= found.end_line <= lines, found
        json.dumps(asdict(found), ensure_ascii=False).encode()  # it can be written anywhere
    keys = [(f.rule, f.line, f.message) for f in plan.findings]
    assert len(keys) == len(set(keys))


@settings(max_examples=200)
@given(text=TEXTS)
def test_any_text_has_an_outline_and_targets_or_is_refused(text: str) -> None:
    try:
        dockerfile = parse(text.encode("utf-8", "surrogateescape"))
        answers: list[Any] = [
            make_outline(dockerfile, PlanOptions()),
            *list_targets(dockerfile, PlanOptions()),
        ]
    except DockerfileError:
        return
    for answer in answers:
        json.dumps(asdict(answer), ensure_ascii=False).encode()  # it can be written anywhere
