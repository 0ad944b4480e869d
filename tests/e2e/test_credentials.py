"""Credentials: where they come from, that they go where they belong, and that they stay nowhere."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Context
from tests.support.command import Img
from tests.support.registry import Registry, copy

USER, PASSWORD = "ali", "open sesame"
# The password, hashed with bcrypt at its lowest cost.
HTPASSWD = f"{USER}:$2b$04$VI3hoehx4mKMBVB/jDnVfeKnUck.5WxPzjgvVjKHETUK.VLYBdb3O"
BASE64 = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

Helper = Callable[[str], dict[str, str]]


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory, busybox_layout: Path) -> Iterator[Registry]:
    """A registry for `USER` alone, with an image in it."""
    with Registry(tmp_path_factory.mktemp("closed"), htpasswd=HTPASSWD) as running:
        copy(
            f"oci:{busybox_layout}:latest", f"docker://{running.host}/busybox:latest",
            f"--dest-creds={USER}:{PASSWORD}",
        )  # fmt: skip
        yield running


@pytest.fixture
def helper(tmp_path: Path) -> Helper:
    """Installs a credential helper that keeps what it is given in files; gives the environment for it."""

    def install(name: str) -> dict[str, str]:
        kept = tmp_path / f"kept-{name}"
        kept.mkdir()
        programs = tmp_path / "bin"
        programs.mkdir(exist_ok=True)
        program = programs / f"docker-credential-{name}"
        program.write_text(
            "#!/usr/bin/python3\n"
            "import json, os, sys, urllib.parse\n"
            f"kept = {str(kept)!r}\n"
            "action, given = sys.argv[1], sys.stdin.read()\n"
            "space = os.readlink('/proc/self/ns/user')\n"
            "open(kept + '.log', 'a').write(f'{action} {os.getuid()} {space}\\n')\n"
            "data = json.loads(given) if action == 'store' else {'ServerURL': given}\n"
            "path = os.path.join(kept, urllib.parse.quote(data['ServerURL'], safe=''))\n"
            "if action == 'store':\n"
            "    open(path, 'w').write(given)\n"
            "elif action == 'list':\n"
            "    all = [json.load(open(os.path.join(kept, n))) for n in os.listdir(kept)]\n"
            "    print(json.dumps({d['ServerURL']: d['Username'] for d in all}))\n"
            "elif not os.path.exists(path):\n"
            "    print('credentials not found in native keychain')\n"
            "    sys.exit(1)\n"
            "elif action == 'get':\n"
            "    print(open(path).read())\n"
            "else:\n"
            "    os.unlink(path)\n"
        )
        program.chmod(0o755)
        return {"PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}

    return install


def config_of(img: Img) -> Path:
    return img.home / ".docker" / "config.json"


def write_config(img: Img, config: object) -> Path:
    path = config_of(img)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(config))
    return path


def test_a_helper_is_asked_as_the_real_user_outside_the_namespace(
    img: Img, closed: Registry, helper: Helper, tmp_path: Path
) -> None:
    env = helper("own")
    paper = {"ServerURL": closed.host, "Username": USER, "Secret": PASSWORD}
    (tmp_path / "kept-own" / closed.host.replace(":", "%3A")).write_text(json.dumps(paper))
    write_config(img, {"credHelpers": {closed.host: "own"}})
    img.ok("pull", f"{closed.host}/busybox", env=env)
    asked = (tmp_path / "kept-own.log").read_text().splitlines()
    assert asked == [f"get {os.getuid()} {os.readlink('/proc/self/ns/user')}"]


def test_credentials_come_from_each_of_their_places(img: Img, closed: Registry, tmp_path: Path) -> None:
    name = f"{closed.host}/busybox"
    config = json.dumps({"auths": {closed.host: {"auth": BASE64}}})
    wrong = json.dumps({"auths": {closed.host: {"auth": base64.b64encode(b"eve:guess").decode()}}})
    files = {}
    for place in ("file", "run/containers/auth.json", "xdg/containers/auth.json"):
        files[place] = tmp_path / place
        files[place].parent.mkdir(parents=True, exist_ok=True)
        files[place].write_text(config)

    def pulled(*flags: str, **env: str) -> bool:
        outcome = img("pull", *flags, name, env=env)
        assert outcome.code in (0, 3), str(outcome)
        return outcome.code == 0

    assert not pulled()
    write_config(img, json.loads(wrong))
    assert not pulled()
    assert pulled("--authfile", str(files["file"]))
    assert pulled(REGISTRY_AUTH_FILE=str(files["file"]))
    assert pulled(XDG_RUNTIME_DIR=str(tmp_path / "run"))
    assert pulled(XDG_CONFIG_HOME=str(tmp_path / "xdg"))
    assert pulled(DOCKER_AUTH_CONFIG=config)
    assert pulled("--creds", f"{USER}:{PASSWORD}")
    variables = {"IMG_REGISTRY_USERNAME": USER, "IMG_REGISTRY_PASSWORD": PASSWORD}
    assert pulled(IMG_REGISTRY=closed.host, **variables)
    assert not pulled(IMG_REGISTRY="other.example", **variables)
    assert not pulled("--creds", f"other.example={USER}:{PASSWORD}")
    assert "IMG_REGISTRY is not set" in img.fails(2, "pull", name, env=variables).stderr


def test_credentials_for_a_command_are_for_the_registry_that_it_names(
    img: Img, closed: Registry, registry: Registry, make_context: Context
) -> None:
    line = f"{USER}:{PASSWORD}\n".encode()
    dockerfile = f"FROM {closed.host}/busybox\nRUN true\n".encode()
    # The rest of standard input stays what it was.
    img.ok("build", "--creds-stdin", "-t", f"{closed.host}/made", "--push", "-", stdin=line + dockerfile)
    img.fails(3, "build", "--pull", "--creds-stdin", "-t", f"{registry.host}/x", "-", stdin=line + dockerfile)
    context = make_context({"Dockerfile": f"FROM {closed.host}/busybox\n"})
    refused = img.fails(2, "build", "--creds", f"{USER}:{PASSWORD}", context)
    assert "names no registry" in refused.stderr and PASSWORD not in refused.text
    img.ok("build", "--pull", "--creds", f"{closed.host}={USER}:{PASSWORD}", context)
    both = img.fails(2, "push", "--creds", f"{USER}:{PASSWORD}", f"{closed.host}/a", f"{registry.host}/a")
    assert "names" in both.stderr and PASSWORD not in both.text
    nobody = img.fails(2, "pull", "--creds", USER, f"{closed.host}/busybox")
    assert "no terminal" in nobody.stderr
