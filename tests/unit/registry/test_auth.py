"""Credentials out of the files that docker and podman write, and out of several of them."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from img.errors import RegistryError, UsageError
from img.registry import Chain, ConfigFile, ConfigText, Credentials, Given, Place

Write = Callable[[object], ConfigFile]


def encoded(pair: str) -> str:
    return base64.b64encode(pair.encode()).decode()


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a config.json and opens it."""

    def make(config: object) -> ConfigFile:
        text = config if isinstance(config, str) else json.dumps(config)
        (tmp_path / "config.json").write_text(text)
        return ConfigFile(str(tmp_path / "config.json"))

    return make


def ali(password: str = "sesame") -> Credentials:
    return Credentials(username="ali", password=password)


@pytest.mark.parametrize(
    "entry",
    [
        {"auth": encoded("ali:sesame")},
        {"auth": encoded("ali:sesame\0\0")},
        {"username": "ali", "password": "sesame"},
    ],
    ids=["base64", "base64 padded with zeros", "plain"],
)
def test_an_entry_is_read_in_each_of_its_forms(write: Write, entry: dict[str, str]) -> None:
    assert write({"auths": {"r.example": entry}}).get("r.example", "any/thing") == ali()


def test_a_password_may_hold_a_colon(write: Write) -> None:
    config = write({"auths": {"r.example": {"auth": encoded("ali:se:same")}}})
    assert config.get("r.example", "a") == ali("se:same")


def test_an_identity_token_is_read(write: Write) -> None:
    config = write({"auths": {"r.example": {"auth": encoded("00000000:"), "identitytoken": "t0k"}}})
    found = config.get("r.example", "a")
    assert found and found.identity_token == "t0k"


@pytest.mark.parametrize(
    "key", ["r.example:5000", "https://r.example:5000", "http://r.example:5000/v2/", "r.example:5000/v1/"]
)
def test_a_key_may_be_written_as_an_address(write: Write, key: str) -> None:
    config = write({"auths": {key: {"auth": encoded("ali:sesame")}}})
    assert config.get("r.example:5000", "a") == ali()
    assert config.get("r.example", "a") is None


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "index.docker.io", "docker.io"])
def test_docker_io_is_found_under_each_of_its_names(write: Write, key: str) -> None:
    assert write({"auths": {key: {"auth": encoded("ali:sesame")}}}).get("docker.io", "library/a") == ali()


def test_the_longest_match_of_the_repository_wins(write: Write) -> None:
    names = {"r.example": "host", "r.example/team": "team", "r.example/team/app": "app"}
    config = write({"auths": {key: {"auth": encoded(f"ali:{p}")} for key, p in names.items()}})
    assert config.get("r.example", "other") == ali("host")
    assert config.get("r.example", "team/tool") == ali("team")
    assert config.get("r.example", "team/app") == ali("app")
    assert config.get("r.example", "team/app2") == ali("team")
    assert config.get("r.example.org", "team/app") is None


def test_a_missing_file_and_an_empty_entry_hold_nothing(write: Write, tmp_path: Path) -> None:
    assert ConfigFile(str(tmp_path / "none")).get("r.example", "a") is None
    assert write({}).get("r.example", "a") is None
    assert write({"auths": {"r.example": {}}}).get("r.example", "a") is None


def test_a_login_in_between_counts(write: Write) -> None:
    config = write({})
    assert config.get("r.example", "a") is None
    write({"auths": {"r.example": {"auth": encoded("ali:sesame")}}})
    assert config.get("r.example", "a") == ali()


@pytest.mark.parametrize(
    "broken",
    [
        '{"auths": {"r.example": {"auth": "s3cret"',
        "[]",
        {"auths": []},
        {"auths": {"r.example": "s3cret"}},
        {"auths": {"r.example": {"auth": "s3cret!"}}},
        {"auths": {"r.example": {"auth": encoded("s3cret")}}},
        {"auths": {"r.example": {"auth": 7}}},
        {"credsStore": "../s3cret"},
        "[" * 200_000,
    ],
)
def test_a_broken_file_is_named_and_not_quoted(write: Write, broken: object) -> None:
    with pytest.raises(UsageError, match=r"config\.json is broken") as caught:
        write(broken).get("r.example", "a")
    assert "s3cret" not in f"{caught.value!r}{caught.value.hint}"


def test_nothing_secret_is_in_the_repr() -> None:
    shown = repr(Credentials(username="ali", password="sesame", identity_token="t0k"))
    assert "sesame" not in shown and "t0k" not in shown


def entry(pair: str) -> dict[str, str]:
    return {"auth": encoded(pair)}


def test_the_first_source_that_has_something_is_believed_and_named(tmp_path: Path) -> None:
    for name, hosts in {"one": ["a.example"], "two": ["a.example", "b.example"]}.items():
        config = {"auths": {host: entry(f"ali:{name}") for host in hosts}}
        (tmp_path / name).write_text(json.dumps(config))
    paths = [str(tmp_path / name) for name in ("missing", "one", "two")]
    text = ConfigText(json.dumps({"auths": {"c.example": entry("ali:text")}}), "THE_VARIABLE")
    given = Given({Place.parse("d.example"): ali("given")})
    chain = Chain([given, text, *(ConfigFile(path) for path in paths)])
    for registry, password, source in (
        ("a.example", "one", paths[1]),
        ("b.example", "two", paths[2]),
        ("c.example", "text", "THE_VARIABLE"),
        ("d.example", "given", "the credentials given"),
    ):
        assert chain.get(registry, "x") == ali(password)
        assert chain.source_of(registry, "x") == source
    assert chain.get("e.example", "x") is None and chain.source_of("e.example", "x") == ""
    assert paths[1] in chain.source


def test_a_source_goes_before_a_longer_match_of_a_later_one(tmp_path: Path) -> None:
    (tmp_path / "one").write_text(json.dumps({"auths": {"r.example": entry("ali:one")}}))
    (tmp_path / "two").write_text(json.dumps({"auths": {"r.example/a": entry("ali:two")}}))
    assert Chain([ConfigFile(str(tmp_path / n)) for n in ("one", "two")]).get("r.example", "a/b") == ali(
        "one"
    )


def test_a_broken_text_is_named_by_its_variable_and_not_quoted() -> None:
    with pytest.raises(UsageError, match="THE_VARIABLE is broken") as caught:
        ConfigText('{"auths": s3cret', "THE_VARIABLE").get("r.example", "a")
    assert "s3cret" not in str(caught.value)


def test_a_file_that_anybody_may_change_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("{}")
    heard: list[str] = []
    path.chmod(0o644)
    ConfigFile(str(path), warn=heard.append).get("r.example", "a")
    assert not heard
    path.chmod(0o666)
    config = ConfigFile(str(path), warn=heard.append)
    assert config.get("r.example", "a") is config.get("r.example", "b") is None
    assert len(heard) == 1 and f"chmod 600 {path}" in heard[0]


class TestHelpers:
    @pytest.fixture
    def helper(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
        """Installs a credential helper: a shell script on PATH."""
        programs = tmp_path / "bin"
        programs.mkdir()
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")

        def install(name: str, script: str) -> None:
            program = programs / f"docker-credential-{name}"
            program.write_text(f"#!/bin/sh\nread -r server\n{script}\n")
            program.chmod(0o755)

        return install

    def test_a_helper_is_asked_for_the_registry(
        self, write: Write, helper: Callable[[str, str], None]
    ) -> None:
        helper("one", 'test "$1" = get && echo "{\\"Username\\":\\"$server\\",\\"Secret\\":\\"s\\"}"')
        config = write({"credHelpers": {"r.example": "one"}})
        assert config.get("r.example", "a") == Credentials(username="r.example", password="s")
        assert config.get("other.example", "a") is None

    def test_the_store_is_asked_for_docker_io_under_its_old_name(
        self, write: Write, helper: Callable[[str, str], None]
    ) -> None:
        helper("all", 'echo "{\\"Username\\":\\"$server\\",\\"Secret\\":\\"s\\"}"')
        found = write({"credsStore": "all"}).get("docker.io", "library/a")
        assert found and found.username == "https://index.docker.io/v1/"

    def test_a_token_of_a_helper_is_an_identity_token(
        self, write: Write, helper: Callable[[str, str], None]
    ) -> None:
        helper("all", 'echo \'{"Username":"<token>","Secret":"t0k"}\'')
        assert write({"credsStore": "all"}).get("r.example", "a") == Credentials(identity_token="t0k")

    def test_what_a_helper_does_not_know_is_looked_up_in_the_file(
        self, write: Write, helper: Callable[[str, str], None]
    ) -> None:
        helper("all", "echo 'credentials not found in native keychain'; exit 1")
        config = write({"credsStore": "all", "auths": {"r.example": {"auth": encoded("ali:sesame")}}})
        assert config.get("r.example", "a") == ali()

    @pytest.mark.parametrize(
        "script",
        [
            "echo s3cret; exit 3",
            'echo \'{ "Secret" : "s3cret" }\'; exit 3',
            "echo s3cret",
            'echo \'{"Secret":"s3cret"}\'',
        ],
    )
    def test_a_helper_that_fails_is_named_and_not_quoted(
        self, write: Write, helper: Callable[[str, str], None], script: str
    ) -> None:
        helper("bad", script)
        with pytest.raises(RegistryError, match="docker-credential-bad") as caught:
            write({"credsStore": "bad"}).get("r.example", "a")
        assert "s3cret" not in f"{caught.value!r}{caught.value.hint}"

    def test_the_longest_match_wins_across_sections(
        self, write: Write, helper: Callable[[str, str], None]
    ) -> None:
        helper("one", 'echo "{\\"Username\\":\\"one\\",\\"Secret\\":\\"$server\\"}"')
        helper("all", 'echo "{\\"Username\\":\\"all\\",\\"Secret\\":\\"$server\\"}"')
        config = write(
            {
                "auths": {"r.example": entry("ali:file"), "r.example/team/app": entry("ali:app"),
                          "s.example/kept": {}},
                "credHelpers": {"r.example/team": "one", "t.example": ""},
                "credsStore": "all",
            }
        )  # fmt: skip

        def found(registry: str, repository: str) -> tuple[str, str]:
            credentials = config.get(registry, repository)
            return (credentials.username, credentials.password) if credentials else ("", "")

        assert found("r.example", "team/app") == ("ali", "app")
        assert found("r.example", "team/tool") == ("one", "r.example/team")
        assert found("r.example", "other") == ("all", "r.example")
        assert found("s.example", "kept/x") == ("all", "s.example/kept")
        assert found("t.example", "x") == ("", "")

    def test_a_helper_is_not_asked_at_every_request(
        self, write: Write, helper: Callable[[str, str], None], tmp_path: Path
    ) -> None:
        helper("all", f'echo >> {tmp_path}/asked; echo \'{{"Username":"a","Secret":"s"}}\'')
        config = write({"credsStore": "all"})
        for _ in range(3):
            assert config.get("r.example", "a")
        assert (tmp_path / "asked").read_text() == "\n"

    def test_what_a_helper_says_in_words_is_shown_cleaned(
        self, write: Write, helper: Callable[[str, str], None]
    ) -> None:
        helper("bad", "printf 'the keyring \\033[31m is locked\\nmore\\n'; echo s3cret >&2; exit 1")
        with pytest.raises(RegistryError, match="the keyring  \\[31m is locked") as caught:
            write({"credsStore": "bad"}).get("r.example", "a")
        assert "more" not in str(caught.value) and "s3cret" not in str(caught.value)

    def test_a_helper_that_is_not_installed_is_told(self, write: Write) -> None:
        with pytest.raises(RegistryError, match="docker-credential-no-such"):
            write({"credsStore": "no-such"}).get("r.example", "a")

    def test_helpers_can_be_run_elsewhere(self, write: Write, tmp_path: Path) -> None:
        ran: list[tuple[Sequence[str], bytes]] = []

        def run(command: Sequence[str], given: bytes) -> tuple[int, bytes]:
            ran.append((command, given))
            return 0, b'{"Username":"ali","Secret":"sesame"}'

        write({"credsStore": "far"})
        config = ConfigFile(str(tmp_path / "config.json"), run=run)
        assert config.get("r.example", "a") == ali()
        assert ran == [(["docker-credential-far", "get"], b"r.example")]
