"""`Location`: places as skopeo writes them, and our own store."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from img.errors import InvalidReference
from img.oci import Reference
from img.oci.location import Location, has_prefix

DIGEST = "sha256:" + "0123456789abcdef" * 4

paths = st.from_regex(r"(/|\./)?[A-Za-z0-9_. -]+(/[A-Za-z0-9_.@ -]+)*", fullmatch=True).filter(
    lambda path: path != "-" and not path.endswith("@" + DIGEST)
)
refs = st.from_regex(r"[a-z0-9]+([-._/][a-z0-9]+){0,2}", fullmatch=True)
names = st.sampled_from(["alpine", "me/app:1", "localhost:5000/a/b", "[::1]:5000/x:1", f"a@{DIGEST}"])


@pytest.mark.parametrize(
    ("written", "full"),
    [
        ("alpine", "docker://docker.io/library/alpine:latest"),
        ("docker://alpine:3", "docker://docker.io/library/alpine:3"),
        ("docker:dind", "docker://docker.io/library/docker:dind"),
        ("oci", "docker://docker.io/library/oci:latest"),
        ("host:5000/a", "docker://host:5000/a:latest"),
        ("localhost:5000/a/b:v1", "docker://localhost:5000/a/b:v1"),
        ("docker:5000/app:1", "docker://docker:5000/app:1"),
        (f"alpine:3@{DIGEST}", f"docker://docker.io/library/alpine:3@{DIGEST}"),
        ("oci:dir", "oci:dir"),
        ("oci:a/b:x/y:1", "oci:a/b:x/y:1"),
        (f"oci:dir:1@{DIGEST}", f"oci:dir:1@{DIGEST}"),
        ("oci-archive:a.tar:@2", "oci-archive:a.tar:@2"),
        ("docker-archive:a.tar:me/app", "docker-archive:a.tar:docker.io/me/app:latest"),
        ("docker-archive:a.tar:[::1]:5000/x:1", "docker-archive:a.tar:[::1]:5000/x:1"),
        ("dir:x", "dir:x"),
        ("img:me/app", "img:docker.io/me/app:latest"),
    ],
)
def test_a_place_is_read_as_written(written: str, full: str) -> None:
    location = Location.parse(written)
    assert str(location) == full
    assert str(Location.parse(full)) == full
    assert has_prefix(written) == location.written


@given(
    st.sampled_from(["localhost", "registry", "my-host", "h.example", "docker"]),
    st.integers(0, 65535),
    refs,
    st.sampled_from(["", ":v1", f"@{DIGEST}", f":v1@{DIGEST}"]),
)
def test_a_host_with_a_port_is_no_prefix(host: str, port: int, name: str, suffix: str) -> None:
    for written in (f"{host}:{port}/{name}{suffix}", f"z{name}{suffix}"):
        assert Location.parse(written).reference == Reference.parse(written)


@pytest.mark.parametrize(
    ("written", "at", "hint"),
    [
        ("oci:", 4, "oci:PATH"),
        ("oci://x", 4, "did you mean oci:x?"),
        ("oci:d:", 5, "did you mean oci:d?"),
        ("oci:d:a b", 7, "a tag, or a name"),
        ("dir:x:y", 5, ""),
        ("docker-archive:a.tar:Me", 21, "did you mean me?"),
        (f"docker-archive:a.tar:me@{DIGEST}", 21, ""),
        ("oci-archive:-", 12, "img save"),
        ("docker:/alpine:3", 7, "did you mean docker://alpine:3?"),
        ("docker://Alpine", 9, "did you mean alpine?"),
        ("docker-daemon:app:1", 0, "docker-archive:"),
        ("containers-storage:app", 0, "oci-archive:"),
        ("oci-layout://x", 0, "oci:PATH"),
        ("oci-achive:/tmp/x.tar", 0, "did you mean oci-archive:/tmp/x.tar?"),
        ("alpine:3@sha256:abc", 16, ""),
    ],
)
def test_a_near_miss_says_where_it_is_and_what_was_meant(written: str, at: int, hint: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        Location.parse(written)
    assert (caught.value.reference, caught.value.at) == (written, at)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("written", "safe"),
    [
        ("ci:hunter2@host/app", "ci:***@host/app"),
        ("ci:hunt:er2@127.0.0.1:5000/app:1", "ci:***@127.0.0.1:5000/app:1"),
        ("https://oauth2:hunt@er2/x@host/app", "https://oauth2:***@host/app"),
        ("docker://ci:hunter2@host/app", "docker://ci:***@host/app"),
        ("ci:hunt@er2@host/app", "ci:***@host/app"),
        ("https://ci:hunter2@host/app@sha256:0f", "https://ci:***@host/app@sha256:0f"),
        pytest.param("//:" * 100_000 + "hunter2@host/app", "//:***@host/app", id="slow"),
    ],
)
def test_a_password_in_a_name_is_not_repeated(written: str, safe: str) -> None:
    with pytest.raises(InvalidReference, match="no user and no password") as caught:
        Location.parse(written)
    assert caught.value.reference == safe and "er2" not in f"{caught.value!r}{caught.value.hint}"


@given(st.sampled_from(["oci", "oci-archive"]), paths, st.one_of(st.just(""), refs))
def test_a_path_ends_at_its_first_colon(prefix: str, path: str, ref: str) -> None:
    location = Location.parse(f"{prefix}:{path}" + (f":{ref}" if ref else ""))
    assert (location.transport, location.path, location.ref) == (prefix, path, ref)
    assert Location.parse(str(location)) == location


@given(st.sampled_from(["docker://", "img:", "docker-archive:x.tar:"]), names)
def test_what_follows_a_prefix_is_a_name(prefix: str, name: str) -> None:
    if "@" in name and prefix.startswith("docker-archive"):
        return
    location = Location.parse(prefix + name)
    assert location.reference == Reference.parse(name)
    assert Location.parse(str(location)) == location


@given(st.text(max_size=40))
def test_any_text_is_a_place_or_an_error_of_its_own_kind(text: str) -> None:
    try:
        location = Location.parse(text)
    except InvalidReference as error:
        caught = error
    else:
        assert Location.parse(str(location)).reference == location.reference
        return
    assert str(caught) and caught.at <= len(text)
