"""What the settings say of credentials, and how helpers are run for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import img.engine.keychain
import pytest
from img.engine import Settings
from img.engine.helping import names_helper
from img.engine.keychain import keychain
from img.errors import InvalidReference, RegistryError, UsageError
from img.progress import silent

Program = Callable[[str], None]


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Installs `docker-credential-here`, a shell script."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def install(script: str) -> None:
        program = tmp_path / "docker-credential-here"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    return install


def auths(password: str, *names: str) -> str:
    return json.dumps({"auths": {name: {"username": "ali", "password": password} for name in names}})


def test_the_settings_are_asked_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "first").write_text(auths("first", "a.example", "b", "c.example"))
    (tmp_path / "docker").write_text(auths("docker", "a.example", "b", "c.example", "d.example"))
    chain = keychain(
        Settings(
            state="",
            credentials={"a.example": ["ali", "given"], "d.example/team": ("ali", "team")},
            auth_config=auths("text", "a.example", "b"),
            auth_files=(str(tmp_path / "missing"), str(tmp_path / "first")),
            docker_config=str(tmp_path / "docker"),
        ),
        silent,
    )
    assert chain is not None
    found = {name: chain.get(name, "team/app") for name in ("a.example", "b", "c.example", "d.example", "e")}
    assert {name: one.password if one else "" for name, one in found.items()} == {
        "a.example": "given", "b": "text", "c.example": "first", "d.example": "team", "e": "",
    }  # fmt: skip
    assert keychain(Settings(state=""), silent) is None


def test_credentials_for_what_is_no_registry_are_refused() -> None:
    with pytest.raises(InvalidReference):
        keychain(Settings(state="", credentials={"ab": ("ali", "s3cret")}), silent)
    with pytest.raises(UsageError) as caught:
        keychain(Settings(state="", credentials={"a.example": ["s3cret"]}), silent)
    assert "s3cret" not in f"{caught.value!r}" and "s3cret" not in repr(
        Settings(state="", credentials={"a": ("ali", "s3cret")}, auth_config="s3cret")
    )


def test_a_helper_has_the_proxies_of_the_settings_and_no_others(
    helper: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper('echo "{\\"Username\\":\\"$http_proxy|$https_proxy|$no_proxy\\",\\"Secret\\":\\"s\\"}"')
    monkeypatch.setenv("http_proxy", "http://not.this")
    text = '{"credsStore": "here"}'
    for proxies, seen in (({}, "||"), ({"https": "http://this"}, "|http://this|near,far")):
        settings = Settings(state="", auth_config=text, proxies=proxies, no_proxy=("near", "far"))
        chain = keychain(settings, silent)
        found = chain and chain.get("r.example", "x")
        assert found and found.username == seen


def test_a_helper_that_does_not_answer_is_ended(helper: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(img.engine.keychain, "SECONDS", 0.2)
    helper("exec sleep 3600")
    chain = keychain(Settings(state="", auth_config='{"credsStore": "here"}'), silent)
    assert chain is not None
    with pytest.raises(RegistryError, match=r"docker-credential-here failed .* no answer within"):
        chain.get("r.example", "x")


def test_only_a_config_that_names_a_helper_needs_a_process_for_it(tmp_path: Path) -> None:
    plain, named = tmp_path / "plain", tmp_path / "named"
    plain.write_text(auths("s", "a"))
    named.write_text('{"credHelpers": {"a": "here"}}')
    files = {"docker_config": str(plain), "auth_files": (str(tmp_path / "missing"),)}
    assert not names_helper(Settings(state="", **files))  # type: ignore[arg-type]
    assert names_helper(Settings(state="", auth_files=(str(named),)))
    assert names_helper(Settings(state="", docker_config=str(named)))
    assert names_helper(Settings(state="", auth_config='{"credsStore": "here"}'))
    closed = tmp_path / "registries.conf.d"
    closed.mkdir(0)  # of which whoever reads it complains
    assert not names_helper(Settings(state="", registries_conf=(str(closed), str(tmp_path / "missing"))))


def test_the_helpers_of_registries_conf_are_asked_in_their_order(
    helper: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper(
        f'read server; echo "$server" >> {tmp_path}/asked\n'
        'case $server in a.example|docker.io) echo \'{"Username":"ali","Secret":"helper"}\';;\n'
        "b.example) echo my cloud is away; exit 1;;\n"
        "*) echo credentials not found in native keychain; exit 1;; esac"
    )
    conf, docker, named = tmp_path / "registries.conf", tmp_path / "config.json", tmp_path / "named.json"
    docker.write_text(auths("file", "a.example", "b.example", "c.example"))
    named.write_text(auths("named", "a.example"))

    def asked(names: str, **files: object) -> dict[str, str]:
        conf.write_text(f"credential-helpers = [{names}]")
        files = files or {"docker_config": str(docker)}
        settings = Settings(state="", registries_conf=(str(conf),), **files)  # type: ignore[arg-type]
        assert names_helper(settings)
        chain = keychain(settings, silent)
        assert chain is not None
        found = {}
        for name in ("a.example", "b.example", "c.example", "d.example", "docker.io"):
            try:
                one = chain.get(name, "team/app")
                found[name] = f"{one.password} {chain.source_of(name, 'team/app')}" if one else ""
            except RegistryError as error:
                found[name] = str(error.hint)
        return {name: text.replace(str(tmp_path), "") for name, text in found.items()}

    ours, file = "helper /registries.conf:1", "file /config.json"
    away = "/registries.conf:1 names it; install or mend it, or take it out of the file"
    assert asked('"here", "containers-auth.json"') == {
        "a.example": ours, "b.example": file, "c.example": file, "d.example": "", "docker.io": ours,
    }  # fmt: skip
    lines = (tmp_path / "asked").read_text().splitlines()
    assert lines.count("a.example") == 1 and "a.example/team/app" not in lines, "once, for the registry"
    (tmp_path / "asked").unlink()
    assert asked('"containers-auth.json", "here"')["a.example"] == file
    assert "a.example" not in (tmp_path / "asked").read_text()
    # Without the word the files are not read, but for one that was named: it goes before.
    assert asked('"here"') == {
        "a.example": ours, "b.example": away, "c.example": "", "d.example": "", "docker.io": ours,
    }  # fmt: skip
    assert asked('"here"', auth_files=(str(named),))["a.example"] == "named /named.json"
    assert asked("")["a.example"] == file
    conf.write_text("# credential-helpers are programs\n")
    assert not names_helper(Settings(state="", registries_conf=(str(conf), str(tmp_path))))
