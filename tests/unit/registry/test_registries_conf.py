"""registries.conf as containers has it: read, and told with its place where it is broken."""

from __future__ import annotations

from pathlib import Path

import pytest
from img.errors import UsageError
from img.registry.registries_conf import read_helpers, read_rules
from img.registry.routes import Mirror, Rule, Use

FULL = """
unqualified-search-registries = ["quay.io"]
short-name-mode = "enforcing"

[[registry]]
prefix = "docker.io"
location = "hub.lan:5000/"
insecure = true

[[registry.mirror]]
location = "a.lan/x"
insecure = true
[[registry.mirror]]
location = "b.lan"
pull-from-mirror = "tag-only"

[[ registry ]] # blocked
location = "bad.example.com"
blocked = true
mirror-by-digest-only = true
mirror = [{ location = "c.lan" }]

[aliases]
"app" = "quay.io/me/app"
"""

BOTH = """
[[registry]]
location = "x.lan"
mirror-by-digest-only = true
[[registry.mirror]]
location = "m.lan"
pull-from-mirror = "all"
"""


def test_all_that_it_may_say(tmp_path: Path) -> None:
    file = tmp_path / "registries.conf"
    file.write_text(FULL)
    assert read_rules([str(file), str(tmp_path / "missing")]) == (
        Rule(
            prefix="docker.io",
            location="hub.lan:5000",
            insecure=True,
            mirrors=(
                Mirror(location="a.lan/x", insecure=True),
                Mirror(location="b.lan", use=Use.TAGS),
            ),
            source=f"{file}:5",
        ),
        Rule(
            prefix="bad.example.com",
            blocked=True,
            mirrors=(Mirror(location="c.lan", use=Use.DIGESTS),),
            source=f"{file}:17",
        ),
    )


def test_a_later_file_replaces_a_prefix_and_folders_are_read_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "registries.conf.d"
    folder.mkdir()
    for name, location in {"10.conf": "a.lan", "20.conf": "b.lan", "30.toml": "c.lan"}.items():
        (folder / name).write_text(f'[[registry]]\nprefix = "x.lan"\nlocation = "{location}"\n')
    (rule,) = read_rules([str(folder)])
    assert rule.location == "b.lan" and rule.source == f"{folder}/20.conf:1"


def test_version_one_says_what_is_insecure_and_blocked(tmp_path: Path) -> None:
    file = tmp_path / "old.conf"
    lists = {"search": ["docker.io"], "insecure": ["a.lan", "b.lan"], "block": ["b.lan"]}
    file.write_text("".join(f"[registries.{name}]\nregistries = {hosts}\n" for name, hosts in lists.items()))
    assert read_rules([str(file)]) == (
        Rule(prefix="a.lan", insecure=True, source=str(file)),
        Rule(prefix="b.lan", insecure=True, blocked=True, source=str(file)),
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a = 1\nb = = 2\n", ":2:5: Invalid value"),
        ('registry = "x"', "no list of tables"),
        ("[[registry]]\nblocked = true", ":1: a [[registry]] needs 'prefix' or 'location'"),
        ('\n[[registry]]\nprefix = "https://x.lan"', ":2: 'prefix' is written without"),
        ('[[registry]]\nlocation = "a b"', "'location' is host[:port][/namespace], not 'a b'"),
        ('[[registry]]\nlocation = "*.x.lan"', "'location' is host"),
        ('[[registry]]\nprefix = "x.lan"\nblocked = "yes"', "'blocked' is true or false"),
        ('[[registry]]\nprefix = "x.lan"\n[[registry.mirror]]\n', "a [[registry.mirror]] needs 'location'"),
        ('[[registry]]\nprefix = "x"\nmirror = [{location = "m", pull-from-mirror = "no"}]', "is one of all"),
        (BOTH, "exclude each other"),
        ('[registries.block]\nregistries = ["a"]\n[[registry]]\nprefix = "x"', "mixes version 1"),
        ("[registries]\ninsecure = 5", "is no list of names"),
        ("\xff", "no TOML"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "r.conf"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError) as caught:
        read_rules([str(file)])
    assert str(file) in str(caught.value) and told in str(caught.value)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    loop = tmp_path / "loop.conf"
    loop.symlink_to(loop)
    with pytest.raises(UsageError, match=r"loop\.conf"):
        read_rules([str(loop)])


def test_the_last_list_of_helpers_holds_and_an_empty_one_is_none(tmp_path: Path) -> None:
    first, folder = tmp_path / "registries.conf", tmp_path / "registries.conf.d"
    folder.mkdir()
    first.write_text('# credential-helpers = ["no"]\ncredential-helpers = ["one", "containers-auth.json"]\n')
    places = [str(first), str(folder)]
    assert read_helpers(places) == (("one", "containers-auth.json"), f"{first}:2")
    (folder / "a.conf").write_text('[[registry]]\nlocation = "x.lan"\n')
    (folder / "b.conf").write_text('\n\ncredential-helpers = [\n  "two",\n]\n')
    assert read_helpers(places) == (("two",), f"{folder}/b.conf:3")
    (folder / "c.conf").write_text("credential-helpers = []\n")
    assert read_helpers(places) == ((), "")
    for wrong in ('"one"', '["../bin/sh"]', "[1]"):
        (folder / "c.conf").write_text(f"\ncredential-helpers = {wrong}\n")
        with pytest.raises(UsageError, match=r"c\.conf:2: .*credential-helpers"):
            read_helpers(places)
