"""WWW-Authenticate headers, as registries write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from img.registry.challenge import Challenge, read_challenges, read_scopes, scopes_for, write_scopes


def test_a_bearer_challenge_with_commas_in_quotes() -> None:
    header = (
        'Bearer realm="https://auth.example/token",service="a, b=c",scope="repository:x/y:pull,push",error=x'
    )
    (challenge,) = read_challenges(header)
    assert challenge.scheme == "bearer"
    assert challenge.parameters == {
        "realm": "https://auth.example/token",
        "service": "a, b=c",
        "scope": "repository:x/y:pull,push",
        "error": "x",
    }
    assert challenge.scopes == scopes_for("x/y", "pull", "push")


def test_several_challenges_in_one_header() -> None:
    header = 'Negotiate, Basic realm="a \\"b\\"", bearer REALM = "r" , service=s'
    assert read_challenges(header) == (
        Challenge(scheme="negotiate"),
        Challenge(scheme="basic", parameters={"realm": 'a "b"'}),
        Challenge(scheme="bearer", parameters={"realm": "r", "service": "s"}),
    )


@pytest.mark.parametrize("header", ["", "   ", '"', "=", ",,,", '= "x"'])
def test_what_is_no_challenge_is_none(header: str) -> None:
    assert read_challenges(header) == ()


@given(st.text(max_size=200))
def test_whatever_comes_is_read_without_an_error(header: str) -> None:
    for challenge in read_challenges(header):
        assert challenge.scheme == challenge.scheme.lower()


def test_a_header_made_to_be_slow_is_cut() -> None:
    assert len(read_challenges("Basic, " * 5000)) < 2000


def test_scopes_merge_by_resource_in_a_stable_order() -> None:
    merged = scopes_for("b", "push", "pull") | scopes_for("a", "pull") | scopes_for("b", "pull")
    assert write_scopes(merged) == ["repository:a:pull", "repository:b:pull,push"]


def test_scopes_survive_being_written() -> None:
    scopes = read_scopes("repository:host:5000/a:pull,push registry:catalog:*")
    assert read_scopes(" ".join(write_scopes(scopes))) == scopes
    assert ("registry:catalog", "*") in scopes and ("repository:host:5000/a", "pull") in scopes
