"""What login and logout do to a config file and to the helpers that it names."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from img.errors import RegistryError, UsageError
from img.registry import ConfigFile, Credentials, Place
from img.registry.login_file import LoginFile

ALI = Credentials(username="ali", password="sesame")
TOKEN = Credentials(username="ali", identity_token="t0k")
BASE64 = "YWxpOnNlc2FtZQ=="
HUB = "https://index.docker.io/v1/"


class Helpers:
    """Every credential helper there is, in memory: each has a drawer of its own."""

    def __init__(self) -> None:
        self.drawers: dict[str, dict[str, tuple[str, str]]] = {}
        self.broken = False

    def __call__(self, command: Sequence[str], given: bytes) -> tuple[int, bytes]:
        program, action = command
        drawer = self.drawers.setdefault(program.removeprefix("docker-credential-"), {})
        if self.broken:
            return 1, b"the keyring is locked and says " + given
        if action == "list":
            return 0, json.dumps({server: pair[0] for server, pair in drawer.items()}).encode()
        if action == "store":
            data = json.loads(given)
            drawer[data["ServerURL"]] = data["Username"], data["Secret"]
            return 0, b""
        server = given.decode()
        if server not in drawer:
            return 1, b"credentials not found in native keychain\n"
        if action == "erase":
            del drawer[server]
            return 0, b""
        username, secret = drawer[server]
        return 0, json.dumps({"ServerURL": server, "Username": username, "Secret": secret}).encode()


@pytest.fixture
def helpers() -> Helpers:
    return Helpers()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "config.json"


def write(path: Path, config: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(config))


def read(path: Path) -> dict[str, object]:
    data: dict[str, object] = json.loads(path.read_text())
    return data


def at(text: str) -> Place:
    return Place.parse(text)


def test_a_new_file_and_its_folder_are_for_the_owner_alone(path: Path) -> None:
    LoginFile(str(path)).store(at("r.example"), ALI)
    assert read(path) == {"auths": {"r.example": {"auth": BASE64}}}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert os.listdir(path.parent) == ["config.json"]
    assert ConfigFile(str(path)).get("r.example", "a") == ALI


def test_what_is_not_understood_stays_in_its_order(path: Path) -> None:
    write(
        path, {"HttpHeaders": {"a": "b"}, "auths": {"x.example": {"auth": "eDp5", "n": 1}}, "z": [1.5, None]}
    )
    path.chmod(0o644)
    file = LoginFile(str(path))
    file.store(at("r.example"), ALI)
    assert list(read(path)) == ["HttpHeaders", "auths", "z"]
    assert read(path)["auths"] == {"x.example": {"auth": "eDp5", "n": 1}, "r.example": {"auth": BASE64}}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert file.erase(at("r.example")) and not file.erase(at("r.example"))
    assert read(path)["auths"] == {"x.example": {"auth": "eDp5", "n": 1}} and read(path)["z"] == [1.5, None]


def test_an_entry_replaces_those_that_mean_the_same(path: Path) -> None:
    write(
        path, {"auths": {"docker.io": {"auth": "eDp5"}, "x.example": {}, "index.docker.io": {"auth": "eDp5"}}}
    )
    file = LoginFile(str(path))
    file.store(at("docker.io"), TOKEN)
    assert list(read(path)["auths"].items()) == [  # type: ignore[attr-defined]
        (HUB, {"auth": "YWxpOg==", "identitytoken": "t0k"}),
        ("x.example", {}),
    ]
    assert ConfigFile(str(path)).get("docker.io", "library/a") == TOKEN
    assert file.erase(at("")) and read(path)["auths"] == {"x.example": {}}


def test_a_symlink_is_followed_and_stays(path: Path, tmp_path: Path) -> None:
    (tmp_path / "dotfiles").mkdir()
    (tmp_path / "dotfiles" / "docker.json").write_text("{}")
    path.parent.mkdir()
    path.symlink_to("../dotfiles/docker.json")
    LoginFile(str(path)).store(at("r.example"), ALI)
    assert path.is_symlink() and "r.example" in (tmp_path / "dotfiles" / "docker.json").read_text()


def test_to_forget_what_was_never_known_makes_no_file(path: Path) -> None:
    assert not LoginFile(str(path)).erase(at("r.example")) and not LoginFile(str(path)).erase_all()
    assert not path.parent.exists()


def test_a_broken_file_is_left_alone(path: Path) -> None:
    for text in ('{"auths": ', '{"auths": []}', '{"credsStore": 7}'):
        write(path, {})
        path.write_text(text)
        with pytest.raises(UsageError, match="is broken"):
            LoginFile(str(path)).store(at("r.example"), ALI)
        assert path.read_text() == text


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot write the credentials to .*/file/config.json"):
        LoginFile(str(tmp_path / "file" / "config.json")).store(at("r.example"), ALI)


def test_logins_at_once_lose_nothing(path: Path) -> None:
    def login(number: int) -> None:
        for part in range(5):
            LoginFile(str(path)).store(at(f"r{number}-{part}.example"), ALI)

    threads = [threading.Thread(target=login, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read(path)["auths"]) == 30  # type: ignore[arg-type]


def test_the_helper_keeps_the_secret_and_the_file_none(path: Path, helpers: Helpers) -> None:
    write(
        path,
        {"auths": {"r.example": {"auth": BASE64}}, "credsStore": "all", "credHelpers": {"h.example": "one"}},
    )
    file = LoginFile(str(path), run=helpers)
    for name in ("r.example", "h.example", "h.example/team", "docker.io"):
        file.store(at(name), ALI)
    file.store(at("t.example"), TOKEN)
    assert helpers.drawers["one"] == {n: ("ali", "sesame") for n in ("h.example", "h.example/team")}
    assert helpers.drawers["all"] == {
        "r.example": ("ali", "sesame"), HUB: ("ali", "sesame"), "t.example": ("<token>", "t0k"),
    }  # fmt: skip
    assert set(map(str, read(path)["auths"].values())) == {"{}"}  # type: ignore[attr-defined]
    config = ConfigFile(str(path), run=helpers)
    assert config.get("h.example", "team/app") == config.get("docker.io", "library/a") == ALI
    helpers.drawers["all"]["https://desktop.example/odd path/"] = "ali", "sesame"
    assert file.erase_all() == [
        "desktop.example/odd path", "docker.io", "h.example", "h.example/team", "r.example", "t.example",
    ]  # fmt: skip
    assert file.erase_all() == [] and not file.erase(at("r.example"))
    assert not any(helpers.drawers.values()) and read(path)["auths"] == {}
    assert read(path)["credHelpers"] == {"h.example": "one"}


def test_a_registry_may_be_taken_out_of_the_store(path: Path, helpers: Helpers) -> None:
    write(path, {"credsStore": "all", "credHelpers": {"r.example": ""}})
    LoginFile(str(path), run=helpers).store(at("r.example/team"), ALI)
    assert read(path)["auths"] == {"r.example/team": {"auth": BASE64}} and not helpers.drawers


def test_a_helper_that_fails_changes_nothing_and_gives_nothing_away(path: Path, helpers: Helpers) -> None:
    write(path, {"credsStore": "all"})
    before, helpers.broken = path.read_text(), True
    with pytest.raises(
        RegistryError, match=r"docker-credential-all failed for r.example: exit code 1"
    ) as caught:
        LoginFile(str(path), run=helpers).store(at("r.example"), ALI)
    assert "sesame" not in f"{caught.value!r}{caught.value.hint}"
    assert path.read_text() == before
