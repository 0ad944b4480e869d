"""Times, tables, templates and the environment, as every verb has them."""

from __future__ import annotations

import time

import click
import pytest
from img.cli.common import Globals, ago, default_state, pairs, print_rows, table


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.5, "0 seconds ago"), (1.5, "1 second ago"), (59.5, "59 seconds ago"), (61, "1 minute ago"),
     (7300, "2 hours ago"), (86500, "1 day ago"), (15 * 86400, "2 weeks ago"), (800 * 86400, "2 years ago"),
     (-100, "0 seconds ago")],
)  # fmt: skip
def test_how_long_ago_is_said_in_the_largest_unit_that_fits(seconds: float, text: str) -> None:
    assert ago(time.time() - seconds) == text


def test_columns_are_as_wide_as_their_widest_cell(capsys: pytest.CaptureFixture[str]) -> None:
    table(("ID", "SIZE"), [("short", "1"), ("much longer", "22")])
    assert capsys.readouterr().out == "ID            SIZE\nshort         1\nmuch longer   22\n"


def test_a_template_prints_each_row(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": "a", "config": {"User": "me"}}]
    assert print_rows(rows, "{id}\\t{config[User]}")
    assert capsys.readouterr().out == "a\tme\n"
    assert not print_rows(rows, "")


@pytest.mark.parametrize(
    "template", ["{nope}", "{}", "{id", "{config.User}", "{config[Nope]}", "{id:d}", "{id[x]}"]
)
def test_a_template_that_fits_no_row_is_an_error_that_names_the_fields(template: str) -> None:
    with pytest.raises(click.UsageError, match="the fields are config, id"):
        print_rows([{"id": "a", "config": {"User": "me"}}], template)


def test_pairs_keep_all_after_the_first_equals_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIVEN", "from outside")
    monkeypatch.delenv("ABSENT", raising=False)
    assert pairs(["A=b=c", "E=", "GIVEN", "ABSENT"], "--build-arg", bare=True) == {
        "A": "b=c",
        "E": "",
        "GIVEN": "from outside",
    }


@pytest.mark.parametrize("word", ["=x", "bare", ""])
def test_a_pair_without_a_name_or_a_value_is_refused(word: str) -> None:
    with pytest.raises(click.UsageError, match="--label takes NAME=VALUE"):
        pairs([word], "--label", bare=False)


def test_the_store_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("IMG_STATE", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert default_state() == "/home/me/.local/share/img"
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert default_state() == "/data/img"
    monkeypatch.setenv("IMG_STATE", "/state")
    assert default_state() == "/state"


def test_only_what_caches_look_for_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "ACTIONS_RUNTIME_TOKEN", "GITHUB_REF", "GITHUB_TOKEN", "MY_AWS_SECRET"):
        monkeypatch.setenv(name, "s3cret")
    settings = Globals().settings()
    assert {"AWS_PROFILE", "ACTIONS_RUNTIME_TOKEN", "GITHUB_REF"} <= set(settings.variables)
    assert not {"GITHUB_TOKEN", "MY_AWS_SECRET"} & set(settings.variables)
    assert "s3cret" not in repr(settings)
