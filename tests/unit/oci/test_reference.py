"""`Reference`: the names that people write, and what they stand for."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from img.errors import InvalidReference
from img.oci import Reference

DIGEST = "sha256:" + "0123456789abcdef" * 4

components = st.from_regex(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*", fullmatch=True).filter(lambda c: len(c) < 40)
repositories = st.lists(components, min_size=1, max_size=4).map("/".join)
registries = st.sampled_from(
    ["docker.io", "localhost", "localhost:5000", "registry.example.org", "10.0.0.1:80", "[::1]:5000", "HOST"]
)
tags = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,30}", fullmatch=True)
digests = st.text("0123456789abcdef", min_size=64, max_size=64).map("sha256:{}".format)


@pytest.mark.parametrize(
    ("written", "full"),
    [
        ("alpine", "docker.io/library/alpine:latest"),
        ("alpine:3.20", "docker.io/library/alpine:3.20"),
        ("me/app", "docker.io/me/app:latest"),
        ("docker.io/alpine", "docker.io/library/alpine:latest"),
        ("index.docker.io/me/app", "docker.io/me/app:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("foo:5000/app", "foo:5000/app:latest"),
        ("registry.example.org/a/b/c:1", "registry.example.org/a/b/c:1"),
        (f"alpine@{DIGEST}", f"docker.io/library/alpine@{DIGEST}"),
        (f"alpine:3@{DIGEST}", f"docker.io/library/alpine:3@{DIGEST}"),
    ],
)
def test_a_short_name_stands_for_a_full_one(written: str, full: str) -> None:
    assert str(Reference.parse(written)) == full


@pytest.mark.parametrize(
    "text",
    ["", ":", "/", "a/", "/a", "a//b", "a:", "a:b:c", "A/../b", "a b", "a\n", "-a", "a-", "a@sha256:12",
     f"a@{DIGEST.upper()}", "a:" + "x" * 129, "host:99999999/a", "a..b/c", "a.b/" + "x" * 256, "a/é"],
)  # fmt: skip
def test_what_no_registry_would_take_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference):
        Reference.parse(text)


def test_capitals_are_refused_with_the_name_in_small_letters() -> None:
    with pytest.raises(InvalidReference, match="lower-case") as caught:
        Reference.parse("docker.io/Me/App")
    assert caught.value.hint == "did you mean docker.io/me/app?"


@given(registries, repositories, tags, st.one_of(st.just(""), digests))
def test_a_full_name_reads_back_as_itself(registry: str, repository: str, tag: str, digest: str) -> None:
    reference = Reference.parse(f"{registry}/{repository}:{tag}" + (f"@{digest}" if digest else ""))
    assert Reference.parse(str(reference)) == reference
    assert (reference.tag, reference.digest) == (tag, digest)


@given(registries, repositories, tags)
@example("docker.io", "library/a/b", "1")
@example("docker.io", "looks.like/a-registry", "1")
@example("docker.io", "localhost/app", "1")
def test_the_short_form_stands_for_the_same_image(registry: str, repository: str, tag: str) -> None:
    reference = Reference.parse(f"{registry}/{repository}:{tag}")
    assert Reference.parse(reference.familiar) == reference


@given(st.text(max_size=60))
def test_any_text_is_a_name_or_an_error_of_its_own_kind(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except InvalidReference:
        return
    assert Reference.parse(str(reference)) == reference


def test_a_digest_is_what_a_registry_is_asked_for_where_there_is_one() -> None:
    reference = Reference.parse("alpine:3")
    assert reference.target == "3"
    assert reference.with_digest(DIGEST).target == DIGEST
