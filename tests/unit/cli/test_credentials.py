"""`--creds` and the environment of CI: which registry they are for."""

from __future__ import annotations

from pathlib import Path

import pytest
from img.cli import clicks as click
from img.cli.common import credential_files
from img.cli.credentials import VARIABLES, given


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "REGISTRY_AUTH_FILE", "DOCKER_AUTH_CONFIG", "DOCKER_CONFIG", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/ali")


def asked(*words: str, **parameters: object) -> dict[str, tuple[str, str]]:
    """What a command with these parameters makes of `--creds`."""
    context = click.Context(click.Command("x", params=[click.Option(["--creds"])]))
    context.params.update(parameters)
    with context:
        return given(words)


PAIR = ("ali", "se=s:ame")


@pytest.mark.parametrize(
    ("parameters", "place"),
    [
        ({"name": "r.example/a"}, "r.example"),
        ({"name": "docker://r.example:5000/a:1"}, "r.example:5000"),
        ({"names": ("r.example/a", "r.example/b")}, "r.example"),
        ({"name": "alpine"}, "docker.io"),
        ({"tags": ("stage=r.example/a", "r.example/b"), "path": "other.example/a"}, "r.example"),
        ({"outputs": ("type=registry,name=r.example/a,push=true",), "tags": ()}, "r.example"),
        ({"source": "./a folder", "target": "r.example/a"}, "r.example"),
    ],
)
def test_credentials_are_for_the_registry_that_is_named(parameters: dict[str, object], place: str) -> None:
    assert asked("ali:se=s:ame", **parameters) == {place: PAIR}


@pytest.mark.parametrize(
    ("word", "place"),
    [
        ("r.example=ali:se=s:ame", "r.example"),
        ("r.example:5000=ali:se=s:ame", "r.example:5000"),
        ("localhost=ali:se=s:ame", "localhost"),
        ("host:5000/team=ali:se=s:ame", "host:5000/team"),
        ("[::1]:5000=ali:se=s:ame", "[::1]:5000"),
        ("r.example/team/app=ali:se=s:ame", "r.example/team/app"),
    ],
)
def test_or_for_the_one_that_is_written_with_them(word: str, place: str) -> None:
    assert asked(word) == {place: PAIR}


@pytest.mark.parametrize(
    ("word", "parameters"),
    [
        ("ali:s3cret", {}),
        ("ali:s3cret", {"names": ("r.example/a", "s.example/a")}),
        (":s3cret", {"name": "r.example/a"}),
        ("r.example=:s3cret", {}),
    ],
)
def test_what_is_for_nobody_or_for_several_is_refused(word: str, parameters: dict[str, object]) -> None:
    with pytest.raises(click.UsageError) as caught:
        asked(word, **parameters)
    assert "s3cret" not in caught.value.message


def test_a_user_name_that_holds_an_equals_sign_is_no_registry() -> None:
    assert asked("a=b:se=s", name="r.example/a") == {"r.example": ("a=b", "se=s")}


def test_the_environment_names_its_registry_and_gives_way_to_a_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(VARIABLES, ("r.example", "ci", "token"), strict=True):
        monkeypatch.setenv(name, value)
    assert asked(name="s.example/a") == {"r.example": ("ci", "token")}
    assert asked("ali:pw", name="r.example/a") == {"r.example": ("ali", "pw")}
    monkeypatch.delenv("IMG_REGISTRY")
    with pytest.raises(click.UsageError, match="IMG_REGISTRY is not set"):
        asked(name="r.example/a")
    with click.Context(click.Command("ls")):  # which speaks to no registry
        assert given(()) == {}


def test_files_are_looked_for_where_podman_and_docker_have_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert credential_files() == {
        "auth_config": "",
        "auth_files": ("/run/user/7/containers/auth.json", "/home/ali/.config/containers/auth.json"),
        "docker_config": "/home/ali/.docker/config.json",
    }
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("os.getuid", lambda: 7)
    assert credential_files()["auth_files"][0] == "/run/containers/7/auth.json"
    monkeypatch.setenv("REGISTRY_AUTH_FILE", "/named")
    assert credential_files() == {"auth_files": ("/named",)}
    monkeypatch.chdir(tmp_path)
    assert credential_files("flag.json") == {"auth_files": (f"{tmp_path}/flag.json",)}
