"""Secrets and ssh agents: seen by the step that asks, and by nothing and nobody else."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Context, MakeImg
from tests.support import hosts
from tests.support.command import Img, Outcome, steps_run
from tests.support.orphans import Orphans
from tests.support.trees import ReadImage

SECRET = "correct-horse-battery-staple"

Built = Callable[..., ReadImage]


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file with a secret in it."""
    path = tmp_path / "secret"
    path.write_text(SECRET)
    path.chmod(0o600)
    return path


@pytest.fixture
def built(img: Img, make_context: Context, busybox_image: str) -> Built:
    """Builds steps over busybox and reads the image."""

    def build(steps: str, *flags: str | Path) -> ReadImage:
        img.build(make_context({"Dockerfile": f"FROM {busybox_image}\n{steps}"}), *flags)
        return img.image()

    return build


# ---- secrets -------------------------------------------------------------------------------------


def test_a_secret_is_a_file_of_its_own_that_only_root_reads(built: Built, secret: Path) -> None:
    image = built(
        "RUN --mount=type=secret,id=k cd /run/secrets; wc -c < k > /got; stat -c '%a %u:%g' k >> /got\n"
        "RUN ls -A /run > /after 2>/dev/null || echo none > /after\n",
        f"--secret=id=k,src={secret}",
    )
    assert image.text("got") == f"{len(SECRET)}\n400 0:0\n"
    assert image.text("after") == "none\n"


def test_a_secrets_target_mode_and_owner_are_as_asked(built: Built, secret: Path) -> None:
    if not hosts.many_ids():
        pytest.skip("needs more than one user id: a range in /etc/subuid and uidmap")
    image = built(
        "WORKDIR /w\nUSER worker\n"
        "RUN --mount=type=secret,id=k,target=in/f,uid=1000,gid=50,mode=0440"
        " stat -c '%n %a %u:%g' /w/in/f > /tmp/got; cat /w/in/f > /dev/null && echo read >> /tmp/got\n"
        "RUN --mount=type=secret,id=k cat /run/secrets/k 2>/dev/null || echo refused >> /tmp/got\n"
        "RUN --mount=type=secret,target=/x/k test -e /x/k && echo by-target >> /tmp/got\n",
        f"--secret=id=k,src={secret}",
    )
    assert image.text("tmp/got") == "/w/in/f 440 1000:50\nread\nrefused\nby-target\n"


def test_a_secret_can_be_a_variable_or_both(built: Built, secret: Path) -> None:
    image = built(
        "RUN --mount=type=secret,id=k,env=K echo ${#K} > /got; ls /run/secrets || echo no-file >> /got\n"
        'RUN --mount=type=secret,id=k,env=K,target=/k test "$K" = "$(cat /k)" && echo both >> /got\n'
        'RUN echo "[$K]" >> /got\n',
        f"--secret=id=k,src={secret}",
    )
    assert image.text("got") == f"{len(SECRET)}\nno-file\nboth\n[]\n"


def test_a_secret_comes_from_a_file_or_a_variable_as_docker_finds_it(
    img: Img, make_context: Context, busybox_image: str, tmp_path: Path
) -> None:
    (tmp_path / "bare").write_text("file")
    step = "RUN --mount=type=secret,id=bare cat /run/secrets/bare > /got\n"
    context = make_context({"Dockerfile": f"FROM {busybox_image}\n{step}"})
    for word, variables, expected in (
        ("id=bare", {}, "file"),
        ("id=bare", {"bare": "variable"}, "variable"),
        ("id=bare,env=OTHER", {"OTHER": "other"}, "other"),
        ("id=bare,type=env,src=OTHER", {"OTHER": "other"}, "other"),
        ("type=file,source=bare,id=bare", {"bare": "variable"}, "file"),
        ("id=bare,env=UNSET", {}, ""),
    ):
        img.ok("build", "-t", "t", "--no-cache", "--secret", word, context, cwd=tmp_path, env=variables)
        assert img.image().text("got") == expected, word


def test_a_secret_that_was_not_given_is_not_there_unless_it_is_required(
    built: Built, img: Img, make_context: Context, busybox_image: str, secret: Path
) -> None:
    image = built(
        'RUN --mount=type=secret,id=k,env=K echo "${K-unset}" > /got; ls /run >> /got 2>&1 || true\n'
    )
    assert image.text("got").startswith("unset\n")
    steps = "RUN --mount=type=secret,id=npm_tokn,required true\n"
    context = make_context({"Dockerfile": f"FROM {busybox_image}\n{steps}"})
    outcome = img.fails(2, "build", "--secret", f"id=npm_token,src={secret}", context)
    assert "Dockerfile:2" in outcome.stderr and "did you mean npm_token?" in outcome.stderr
    assert "--secret id=npm_tokn,src=FILE" in img.fails(2, "build", context).stderr


def test_no_byte_of_a_secret_is_anywhere_after_a_build(
    img: Img, make_context: Context, busybox_image: str, secret: Path
) -> None:
    """Nor during it: the step looks for it on every disk that it can see, and stays in memory."""
    steps = (
        "RUN --mount=type=secret,id=f --mount=type=secret,id=v,env=V --mount=type=cache,target=/c"
        " grep ' /run/secrets/f ' /proc/mounts | cut -d' ' -f3 > /kind\n"
        "RUN --mount=type=secret,id=f --mount=type=secret,id=v,env=V cat /run/secrets/f > /dev/null; exit 3\n"
    )
    context = make_context({"Dockerfile": f"FROM {busybox_image}\n{steps}"})
    flags = ("--secret", f"id=f,src={secret}", "--secret", "id=v,env=V")
    value = "another-value-of-a-secret"
    outcome = img("build", "-d", "-t", "t", *flags, context, env={"V": value})
    assert outcome.code == 1
    (context / "Dockerfile").write_text(f"FROM {busybox_image}\n{steps.splitlines()[0]}\n")
    said = outcome.text + img.ok("build", "-d", "-t", "t", *flags, context, env={"V": value}).text
    saved = img.home / "saved.tar"
    img.ok("save", "-o", saved, "t")
    for text in (SECRET, value):
        assert text not in said
        assert text.encode() not in saved.read_bytes()
        command = hosts.inside("grep", "-rlF", text, str(img.state))
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (found.returncode, found.stdout) == (1, ""), found.stdout
    assert img.image().text("kind") in ("ramfs\n", "tmpfs\n")


def test_another_value_of_a_secret_makes_no_step_run_again(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    context = make_context(
        {"Dockerfile": f"FROM {busybox_image}\nRUN --mount=type=secret,id=k,env=K echo ${{#K}} > /got\n"}
    )
    ran = [
        len(steps_run(img.ok("build", "-t", "t", *flags, context, env={"k": value})))
        for flags, value in (((), ""), (("--secret=id=k",), "one"), (("--secret=id=k",), "three"))
    ]
    assert ran == [1, 0, 0]


@pytest.mark.parametrize("way", ["native", "single"])
def test_secrets_work_without_overlay_and_with_one_id(
    way: str, make_img: MakeImg, make_context: Context, busybox_image: str, secret: Path
) -> None:
    img = make_img("--single-id") if way == "single" else make_img("-b", "native")
    dockerfile = (
        f"FROM {busybox_image}\nUSER worker\n"
        "RUN --mount=type=secret,id=k,uid=1000 wc -c < /run/secrets/k > /tmp/got\n"
    )
    img.build(make_context({"Dockerfile": dockerfile}), "--secret", f"id=k,src={secret}")
    image = img.image()
    assert image.text("tmp/got") == f"{len(SECRET)}\n"
    assert "run" not in image.tree


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("src=/x", "needs an id"),
        ("id=k,src=/no/such/file", "/no/such/file does not exist"),
        ("id=k,src=/tmp", "is a folder"),
        ("id=k", "the file k does not exist"),
        ("id=k,type=keychain,src=/x", "file or env, not 'keychain'"),
        ("id=k,soruce=/x", "'soruce'"),
        ("k", "'k'"),
    ],
)
def test_a_secret_flag_that_makes_no_sense_is_refused_before_anything_is_done(
    word: str, message: str, img: Img, make_context: Context
) -> None:
    outcome = img.fails(2, "build", "--secret", word, make_context({"Dockerfile": "FROM scratch\n"}))
    assert message in outcome.stderr


# ---- agents --------------------------------------------------------------------------------------


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A new private key without a passphrase."""
    path = tmp_path / "id"
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "a-key-for-tests", "-f", str(path)]
    subprocess.run(command, check=True)
    return path


@pytest.fixture
def agent(tmp_path: Path, key: Path) -> Iterator[Path]:
    """A running agent that holds the key: its socket."""
    path = tmp_path / "agent"
    process = subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    process.stdout.readline()  # it listens by now
    environment = {**os.environ, "SSH_AUTH_SOCK": str(path)}
    subprocess.run(["ssh-add", "-q", str(key)], env=environment, check=True)
    yield path
    process.terminate()
    process.communicate()


@pytest.fixture
def client(make_context: Context, busybox_image: str) -> Callable[[str], Path]:
    """Makes a context whose image is busybox with this machine's ssh-add and what it is linked to."""

    def make(steps: str) -> Path:
        files: dict[str, str | bytes] = {"root/usr/bin/ssh-add": Path("/usr/bin/ssh-add").read_bytes()}
        linked = subprocess.run(["ldd", "/usr/bin/ssh-add"], capture_output=True, text=True, check=True)
        for path in re.findall(r"(/\S+) \(0x", linked.stdout):
            files[f"root{path}"] = Path(path).read_bytes()
        dockerfile = f"FROM {busybox_image}\nCOPY --chmod=755 root /\n{steps}"
        return make_context({"Dockerfile": dockerfile, **files})

    return make


def test_a_step_asks_the_callers_agent_and_cannot_change_it(
    img: Img, client: Callable[[str], Path], agent: Path
) -> None:
    context = client(
        "RUN --mount=type=ssh ssh-add -L > /keys; ssh-add -D 2>/dev/null || echo refused > /emptied;"
        " ssh-add -L > /still; echo $SSH_AUTH_SOCK > /socket; stat -c '%a %u:%g' $SSH_AUTH_SOCK > /mode\n"
        'RUN ls /run > /after 2>/dev/null || echo none > /after; echo "[$SSH_AUTH_SOCK]" >> /after\n'
    )
    img.ok("build", "-t", "t", "--ssh", "default", context, env={"SSH_AUTH_SOCK": str(agent)})
    image = img.image()
    assert "a-key-for-tests" in image.text("keys")
    assert image.text("still") == image.text("keys")
    assert image.text("emptied") == "refused\n"
    assert image.text("socket") == "/run/buildkit/ssh_agent.0\n"
    assert image.text("mode") == "600 0:0\n"
    assert image.text("after") == "none\n[]\n"


def test_a_step_of_an_ordinary_user_has_a_socket_of_its_own(
    img: Img, client: Callable[[str], Path], agent: Path
) -> None:
    if not hosts.many_ids():
        pytest.skip("needs more than one user id: a range in /etc/subuid and uidmap")
    context = client(
        "USER worker\nRUN --mount=type=ssh,id=one,target=/s/a,uid=1000,mode=0640 --mount=type=ssh,id=two"
        " stat -c '%n %a %u' /s/a > /tmp/got; ssh-add -l >> /tmp/got; ls /run/buildkit >> /tmp/got;"
        " ls -ln /run/buildkit\n"
    )
    img.ok("build", "-t", "t", "--ssh", f"one={agent}", "--ssh", f"two={agent}", context)
    got = img.image().text("tmp/got")
    assert got.startswith("/s/a 640 1000\n")
    assert "a-key-for-tests" in got
    assert got.endswith("ssh_agent.1\n")


def test_keys_are_held_by_an_agent_that_ends_with_the_step(
    img: Img, client: Callable[[str], Path], key: Path
) -> None:
    context = client("RUN --mount=type=ssh,id=deploy,required ssh-add -L > /keys\n")
    img.build(context, "--ssh", f"deploy={key}")
    assert "a-key-for-tests" in img.image().text("keys")
    private = key.read_text().splitlines()[2]
    found = subprocess.run(
        hosts.inside("grep", "-rlF", private, str(img.state)), capture_output=True, check=False
    )
    assert found.stdout == b""


def test_kill_9_leaves_no_agent_that_holds_a_key(img: Img, client: Callable[[str], Path], key: Path) -> None:
    context = client("RUN --mount=type=ssh ssh-add -l && echo holding && sleep 1000\n")
    with Orphans() as orphans:
        process = img.start("build", "--ssh", f"default={key}", context)
        assert process.stdout is not None
        for line in process.stdout:
            if line == b"holding\n":
                break
        assert orphans.running(f"agent-{process.pid}")
        process.kill()
        process.communicate()
        assert orphans.left() == []  # OpenSSH looks every ten seconds whether its program is there


def test_a_key_that_asks_for_a_passphrase_is_told(
    img: Img, make_context: Context, busybox_image: str, tmp_path: Path
) -> None:
    path = tmp_path / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "hunter22", "-f", str(path)], check=True)
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nRUN --mount=type=ssh true\n"})
    outcome = img.fails(1, "build", "--ssh", f"default={path}", context)
    assert "passphrase" in outcome.stderr and str(path) in outcome.stderr


def test_an_agent_that_was_not_given_is_not_there_unless_it_is_required(
    built: Built, img: Img, make_context: Context, busybox_image: str
) -> None:
    assert (
        built("RUN --mount=type=ssh ls -A /run > /got 2>/dev/null || echo none > /got\n").text("got")
        == "none\n"
    )
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nRUN --mount=type=ssh,required true\n"})
    outcome = img.fails(2, "build", context)
    assert "Dockerfile:2" in outcome.stderr and "--ssh default=SOCKET" in outcome.stderr


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("default", "$SSH_AUTH_SOCK is not set"),
        ("a=/no/such/key", "/no/such/key does not exist"),
        ("=x", "default or ID"),
    ],
)
def test_an_ssh_flag_that_makes_no_sense_is_refused(
    word: str, message: str, img: Img, make_context: Context
) -> None:
    outcome: Outcome = img.fails(2, "build", "--ssh", word, make_context({"Dockerfile": "FROM scratch\n"}))
    assert message in outcome.stderr
