"""Credentials: where they come from, that they go where they belong, and that they stay nowhere."""

from __future__ import annotations

import base64
import json
import os
import pty
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from img import Client
from img.errors import Unauthorized, UsageError
from img.progress import Event, Note

from tests.conftest import Context
from tests.support import hosts
from tests.support.command import PROGRAM, Img, Outcome
from tests.support.registry import Registry, copy
from tests.support.tokens import TokenServer

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


def test_helpers_of_registries_conf_are_asked_and_keep_what_a_login_gives(
    img: Img, closed: Registry, helper: Helper, tmp_path: Path
) -> None:
    conf = tmp_path / "registries.conf"
    conf.write_text('credential-helpers = ["none", "listed"]\n')
    env = {**helper("listed"), "CONTAINERS_REGISTRIES_CONF": str(conf)}
    program = tmp_path / "bin/docker-credential-none"
    program.write_text("#!/bin/sh\necho this helper keeps nothing\nexit 1\n")
    program.chmod(0o755)
    name = f"{closed.host}/busybox"
    write_config(img, {"auths": {closed.host: {"auth": BASE64}}})
    said = img.fails(3, "pull", name, env=env).text
    assert "this helper keeps nothing" in said and f"{conf}:1 names it" in said, "and the file is not read"
    logged = img.ok(
        "login", "--json", "-u", USER, "--password-stdin", closed.host, env=env, stdin=PASSWORD.encode()
    )
    assert logged.json()["helper"] == "docker-credential-listed" and logged.json()["source"] == f"{conf}:1"
    img.ok("pull", name, env=env)
    assert img.ok("login", "--get-login", closed.host, env=env).stdout == f"{USER}\n"
    space = os.readlink("/proc/self/ns/user")
    asked = (tmp_path / "kept-listed.log").read_text().splitlines()
    assert f"store {os.getuid()} {space}" in asked and all(line.endswith(space) for line in asked)
    assert "docker-credential-none failed" in img.ok("logout", closed.host, env=env).stderr
    img.fails(3, "pull", name, env=env)
    flags, helpers = ("--registries-conf", str(conf)), {"PATH": env["PATH"]}
    img.ok("login", *flags, "-u", USER, "--password-stdin", closed.host, env=helpers, stdin=PASSWORD.encode())
    assert "Logout succeeded." in img.ok("logout", *flags, closed.host, env=helpers).stdout
    img.fails(3, "pull", *flags, name, env=helpers)


@pytest.mark.once
@pytest.mark.parametrize(
    "verb",
    [
        ("pull",), ("push",), ("tags",), ("copy", "alpine"), ("manifest", "inspect"), ("referrers",),
        ("build", "-t"), ("build", "--build-arg"), ("lock", "-f"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_password_in_a_name_is_repeated_nowhere(
    img: Img, make_context: Context, verb: tuple[str, ...]
) -> None:
    name = "user:hunter2@registry.invalid/app"
    context = make_context({"Dockerfile": f"ARG BASE={name}\nFROM scratch\nCOPY --from={name} /a /a\n"})
    words = {"--build-arg": (f"BASE={name}", context), "-f": (context / "Dockerfile", context)}
    said = img.fails(2, *verb, *words.get(verb[-1], (name, context) if verb[-1] == "-t" else (name,)))
    assert "hunter2" not in said.text and "user:***@registry.invalid/app" in said.text


@pytest.mark.once
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


@pytest.mark.once
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


def log_in(
    img: Img, *args: str | Path, password: str = PASSWORD, env: dict[str, str] | None = None
) -> Outcome:
    return img("login", "-u", USER, "--password-stdin", *args, stdin=f"{password}\n".encode(), env=env)


@pytest.mark.once
def test_a_login_is_verified_warned_of_stored_used_and_forgotten(img: Img, closed: Registry) -> None:
    name = f"{closed.host}/busybox"
    refused = log_in(img, closed.host, password="guessed-it")
    assert refused.code == 3 and "does not take" in refused.stderr and "guessed-it" not in refused.text
    assert not config_of(img).exists()
    done = log_in(img, closed.host)
    assert (done.code, done.stdout) == (
        0,
        "Login succeeded.\n",
    ) and f"stand in {config_of(img)}" in done.stderr
    assert json.loads(config_of(img).read_text()) == {"auths": {closed.host: {"auth": BASE64}}}
    assert stat.S_IMODE(config_of(img).stat().st_mode) == 0o600
    assert img.ok("login", "--get-login", closed.host).stdout == f"{USER}\n"
    again = img.ok("login", "--json", closed.host)
    assert again.json()["username"] == USER and again.json()["checked"] and "Trying" in again.stderr
    img.ok("pull", name)
    gone = img.ok("logout", closed.host).stdout
    assert gone == f"Removing login credentials for {closed.host}\nLogout succeeded.\n"
    assert img.ok("logout", closed.host).stdout == f"Not logged in to {closed.host}\n"
    assert "not logged in" in img.fails(1, "login", "--get-login", closed.host).stderr
    assert f"img login {closed.host}" in img.fails(3, "pull", name).stderr


@pytest.mark.once
def test_a_login_may_be_for_a_namespace_and_in_a_file_of_its_own(
    img: Img, closed: Registry, tmp_path: Path
) -> None:
    file = tmp_path / "own" / "auth.json"
    assert log_in(img, "--authfile", file, f"{closed.host}/team").code == 0
    assert list(json.loads(file.read_text())["auths"]) == [f"{closed.host}/team"]
    assert not config_of(img).exists()
    env = {"REGISTRY_AUTH_FILE": str(file)}
    img.fails(3, "pull", f"{closed.host}/busybox", env=env)
    rows = img.ok("logout", "--all", "--json", env=env).json()
    assert rows == [{"server": f"{closed.host}/team", "file": str(file), "removed": True}]
    assert img.ok("logout", "--all", env=env).stdout == "Not logged in to any registry\n"
    assert log_in(img, "no place").code == 2
    assert "--username" in img.fails(2, "login", "--password-stdin", closed.host, stdin=b"x").stderr
    assert "no terminal" in img.fails(2, "login", closed.host).stderr


def test_a_login_goes_into_the_helper_and_is_found_there(
    img: Img, closed: Registry, helper: Helper, tmp_path: Path
) -> None:
    env = helper("all")
    write_config(img, {"credsStore": "all"})
    done = log_in(img, "--json", closed.host, env=env)
    assert done.code == 0 and "warning" not in done.stderr
    assert done.json()["helper"] == "docker-credential-all"
    assert json.loads(config_of(img).read_text()) == {"credsStore": "all", "auths": {closed.host: {}}}
    img.ok("pull", f"{closed.host}/busybox", env=env)
    img.ok("logout", closed.host, env=env)
    assert not os.listdir(tmp_path / "kept-all")


@pytest.mark.once
def test_other_credentials_that_go_before_are_told(img: Img, closed: Registry, tmp_path: Path) -> None:
    (tmp_path / "containers").mkdir()
    (tmp_path / "containers" / "auth.json").write_text(json.dumps({"auths": {closed.host: {"auth": BASE64}}}))
    env = {"XDG_RUNTIME_DIR": str(tmp_path)}
    assert "go before those" in log_in(img, closed.host, env=env).stderr
    assert "still open it" in img.ok("logout", closed.host, env=env).stderr


@pytest.mark.once
def test_a_login_asks_on_the_terminal_and_shows_no_password(img: Img, closed: Registry) -> None:
    child, terminal = pty.fork()
    if not child:
        os.execve(PROGRAM, img.command("login", closed.host), img.environment())
    shown = b""
    for question, answer in ((b"Username: ", USER), (b"Password: ", PASSWORD)):
        while not shown.endswith(question):
            shown += os.read(terminal, 1024)
        os.write(terminal, f"{answer}\n".encode())
    while True:
        try:
            shown += os.read(terminal, 1024)
        except OSError:  # Linux's way to tell that the other side is closed
            break
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, shown
    assert b"Login succeeded." in shown and PASSWORD.encode() not in shown


@pytest.mark.once
def test_no_secret_is_left_anywhere(
    img: Img, closed: Registry, make_context: Context, tmp_path: Path
) -> None:
    """Everything that is printed, and everything in the store, beside a token server that gives tokens."""
    secrets = [PASSWORD, BASE64, "refresh-", "eyJ"]
    context = make_context({"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
    said: list[str] = []

    def run(code: int, *args: str | Path, stdin: bytes = b"") -> None:
        outcome = img(*args, stdin=stdin)  # with -d, an error has its traceback
        assert outcome.code == code, str(outcome)
        said.append(outcome.text)

    line = f"{USER}:{PASSWORD}\n".encode()
    tokens = TokenServer(tmp_path / "tokens", users={USER: PASSWORD}, gives_refresh=True)
    with tokens, Registry(tmp_path / "bearer", auth=tokens.auth) as bearer:
        for host in (closed.host, bearer.host):
            said.append(log_in(img, "-d", host).text)
            run(0, "-d", "build", "--progress", "json", "-t", f"{host}/made", "--push", context)
            run(0, "-d", "pull", "--progress", "json", f"{host}/made")
            run(0, "-d", "push", "--progress", "plain", f"{host}/made")
            run(3, "-d", "pull", f"{host}/missing")
            run(0, "-d", "push", "--creds-stdin", f"{host}/made", stdin=line)
        identity = json.loads(config_of(img).read_text())["auths"][bearer.host]["identitytoken"]
        assert identity in tokens.refresh_tokens
        tokens.users[USER] = "another"
        tokens.refresh_tokens.clear()
        run(3, "-d", "push", f"{bearer.host}/made")
        run(3, "-d", "push", "--creds-stdin", f"{bearer.host}/made", stdin=line)
    search = ["grep", "-rhaE", "|".join(secrets), str(img.state)]
    said.append(subprocess.run(search, capture_output=True, check=False).stdout.decode(errors="replace"))
    assert not [text for text in said if any(secret in text for secret in secrets)]


@pytest.mark.once
def test_the_library_logs_in_uses_it_and_logs_out(closed: Registry, tmp_path: Path) -> None:
    heard: list[Event] = []
    file = tmp_path / "auth.json"
    with Client(tmp_path / "state", progress=heard.append, auth_files=[file]) as client:
        with pytest.raises(Unauthorized):
            client.login(closed.host, USER, "guessed-it")
        assert not file.exists()
        done = client.login(closed.host, USER, PASSWORD)
        assert (done.server, done.username, done.source, done.checked) == (closed.host, USER, str(file), True)
        assert [event for event in heard if isinstance(event, Note) and str(file) in event.text]
        assert client.logout(closed.host) and not client.logout(closed.host)
    with Client(tmp_path / "state") as client, pytest.raises(UsageError, match="no file is named"):
        client.login(closed.host, USER, PASSWORD)
    given = {closed.host: (USER, PASSWORD)}
    try:
        with Client(tmp_path / "state", credentials=given) as client:
            assert client.pull(f"{closed.host}/busybox").layers
    finally:
        hosts.remove_tree(tmp_path / "state")
