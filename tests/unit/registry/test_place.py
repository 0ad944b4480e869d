"""Places: what credentials are for, and how they are called."""

from __future__ import annotations

import pytest
from img.errors import InvalidReference
from img.registry import Credentials, Given, Place
from img.registry.place import DOCKER_HUB


@pytest.mark.parametrize(
    ("written", "shown", "key"),
    [
        ("", "docker.io", DOCKER_HUB),
        ("docker.io", "docker.io", DOCKER_HUB),
        ("https://index.docker.io/v1/", "docker.io", DOCKER_HUB),
        ("registry-1.docker.io", "docker.io", DOCKER_HUB),
        ("docker.io/me", "docker.io/me", "docker.io/me"),
        ("R.Example:5000", "r.example:5000", "r.example:5000"),
        ("https://r.example/v2/", "r.example", "r.example"),
        ("r.example/team/app", "r.example/team/app", "r.example/team/app"),
        ("[::1]:5000/team", "[::1]:5000/team", "[::1]:5000/team"),
        ("localhost", "localhost", "localhost"),
    ],
)
def test_a_place_is_read_in_each_of_its_spellings(written: str, shown: str, key: str) -> None:
    place = Place.parse(written)
    assert (str(place), place.key) == (shown, key)


@pytest.mark.parametrize(
    "written", ["r example", "r.example/Team", "-r", "me", "me/app", "r.example/a//b", "a@b"]
)
def test_what_is_no_place_is_refused(written: str) -> None:
    with pytest.raises(InvalidReference):
        Place.parse(written)


@pytest.mark.parametrize("written", ["ci:hunter2@r.example", "https://hunter2@r.example/v2/"])
def test_a_password_in_a_place_is_not_repeated(written: str) -> None:
    with pytest.raises(InvalidReference, match="--username") as caught:
        Place.parse(written)
    assert "hunter2" not in repr(caught.value)


def test_what_was_given_goes_to_its_own_place_alone() -> None:
    host, team = Credentials(username="host"), Credentials(username="team")
    given = Given({Place.parse("r.example"): host, Place.parse("r.example/team"): team})
    assert given.get("r.example", "other") == host
    assert given.get("R.example", "team/app") == team
    assert given.get("r.example", "teams/app") == host
    assert given.get("r.example:5000", "team/app") is None
    assert given.get("r.example.evil.example", "team/app") is None
    assert given.get("mirror.example", "r.example/team/app") is None
