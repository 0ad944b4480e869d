"""Routes: which rule holds for a name, and where the name is asked for then."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from img.errors import RegistryBlocked, UsageError
from img.oci import Reference
from img.registry.routes import Mirror, Route, Routes, Rule, Use, caller_mirrors

DIGEST = "sha256:" + "a" * 64


def places(routes: Routes, name: str) -> list[str]:
    return [f"{route.host}/{route.repository}" for route in routes.of(Reference.parse(name))]


def test_without_rules_a_name_is_asked_for_where_it_says() -> None:
    assert places(Routes(), "alpine") == ["docker.io/library/alpine"]


@pytest.mark.parametrize(
    ("prefix", "name", "covered"),
    [
        ("example.com", "example.com/app", True),
        ("example.com", "example.com:5000/app", False),
        ("example.com", "example.community/app", False),
        ("example.com/a", "example.com/a", True),
        ("example.com/a", "example.com/a/b:1", True),
        ("example.com/a", "example.com/ab", False),
        ("example.com/a:1", "example.com/a:1", True),
        ("example.com/a:1", "example.com/a:10", False),
        (f"example.com/a@{DIGEST}", f"example.com/a@{DIGEST}", True),
        ("docker.io", "alpine", True),
        ("docker.io/library", "alpine", True),
        ("*.example.com", "a.b.example.com/x", True),
        ("*.example.com", "example.com/x", False),
        ("*.example.com", "badexample.com/x", False),
        ("*.example.com:5000/ns", "a.example.com:5000/ns/x", True),
        ("*.example.com/ns", "a.example.com/other", False),
        ("[::1]:5000", "[::1]:5000/app", True),
    ],
)
def test_a_prefix_ends_where_a_part_of_the_name_ends(prefix: str, name: str, covered: bool) -> None:
    assert bool(Rule(prefix=prefix).covers(Reference.parse(name))) == covered


@pytest.mark.parametrize(
    ("prefix", "location", "name", "place"),
    [
        ("docker.io", "mirror.lan:5000", "alpine", "mirror.lan:5000/library/alpine"),
        ("docker.io/library", "mirror.lan/hub", "alpine:3", "mirror.lan/hub/alpine"),
        ("example.com/a/b", "other.com/c", "example.com/a/b:1", "other.com/c"),
        ("example.com/a:1", "other.com/c", "example.com/a:1", "other.com/c"),
        ("*.example.com", "cache.lan/all", "x.example.com/app", "cache.lan/all/app"),
        ("*.example.com", "", "x.example.com/app", "x.example.com/app"),
        ("example.com", "index.docker.io", "example.com/alpine", "docker.io/library/alpine"),
    ],
)
def test_a_location_stands_in_the_place_of_the_prefix(
    prefix: str, location: str, name: str, place: str
) -> None:
    assert places(Routes([Rule(prefix=prefix, location=location)]), name) == [place]


def test_a_location_without_a_repository_is_told_with_the_file() -> None:
    rule = Rule(prefix="example.com/app", location="mirror.lan", source="my.conf:3")
    with pytest.raises(UsageError, match=r"my\.conf:3.*mirror\.lan"):
        places(Routes([rule]), "example.com/app")


def test_mirrors_come_first_and_those_of_the_caller_before_those_of_files() -> None:
    rule = Rule(
        prefix="docker.io",
        location="hub.lan",
        mirrors=(Mirror(location="a.lan", insecure=True), Mirror(location="b.lan/x")),
    )
    routes = Routes([rule], caller_mirrors(["docker.io=http://mine.lan", "quay.io=other.lan"]))
    assert routes.of(Reference.parse("alpine")) == (
        Route(host="mine.lan", repository="library/alpine", insecure=True, mirror=True),
        Route(host="a.lan", repository="library/alpine", insecure=True, mirror=True),
        Route(host="b.lan", repository="x/library/alpine", mirror=True),
        Route(host="hub.lan", repository="library/alpine"),
    )


@pytest.mark.parametrize(
    "pair",
    ["docker.io=", "=mirror.lan", "docker.io=ftp://x", "docker.io=user:secret@x", "x=https://secret@y"],
)
def test_a_mirror_that_is_none_is_told(pair: str) -> None:
    with pytest.raises(UsageError, match="HOST=MIRROR") as caught:
        caller_mirrors([pair])
    assert "secret" not in str(caught.value)


def test_what_is_blocked_is_told_with_the_file() -> None:
    routes = Routes([Rule(prefix="bad.example.com", blocked=True, source="/etc/r.conf:7")])
    with pytest.raises(RegistryBlocked, match=r"/etc/r\.conf:7 blocks bad\.example\.com") as caught:
        places(routes, "bad.example.com/app")
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("use", "name", "path", "serves"),
    [
        (Use.ALL, "app:1", "manifests/1", True),
        (Use.DIGESTS, "app:1", "manifests/1", False),
        (Use.DIGESTS, "app:1", f"manifests/{DIGEST}", True),
        (Use.DIGESTS, "app:1", "tags/list?n=9", False),
        (Use.TAGS, "app:1", "manifests/1", True),
        (Use.TAGS, f"app@{DIGEST}", f"manifests/{DIGEST}", False),
        (Use.TAGS, f"app@{DIGEST}", f"blobs/{DIGEST}", True),
        (Use.DIGESTS, "app:1", f"blobs/{DIGEST}", True),
    ],
)
def test_a_mirror_serves_what_its_use_says(use: Use, name: str, path: str, serves: bool) -> None:
    route = Route(host="m", repository="app", mirror=True, use=use)
    assert route.serves(Reference.parse(name), path) == serves


parts = st.lists(st.sampled_from(["a", "ab", "b", "c-1"]), min_size=1, max_size=4)


@given(name=parts, cuts=st.lists(st.integers(0, 5), max_size=5), others=st.lists(parts, max_size=5))
def test_the_longest_prefix_holds(name: list[str], cuts: list[int], others: list[list[str]]) -> None:
    whole = ["x.example.com", *name]
    prefixes = {"/".join(whole[: cut + 1]) for cut in cuts}
    prefixes |= {"/".join(["x.example.com", *other]) for other in others} | {"*.example.com"}
    rules = [Rule(prefix=prefix, location=f"host-{n}.lan/r") for n, prefix in enumerate(sorted(prefixes))]
    fitting = [p for p in prefixes if whole[: p.count("/") + 1] == p.split("/")]
    wanted = max(fitting, key=len, default="*.example.com")
    (route,) = Routes(rules).of(Reference.parse("/".join(whole)))
    assert route.host == f"host-{sorted(prefixes).index(wanted)}.lan"
