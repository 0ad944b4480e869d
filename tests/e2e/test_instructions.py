"""Each instruction, built by the installed command; results read from `img save` by other code."""

from __future__ import annotations

import pytest

from tests.conftest import Context
from tests.support import hosts
from tests.support.command import Img


def test_run_in_shell_form_and_in_exec_form_leaves_its_files(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    exec_form = 'RUN ["sh", "-c", "echo $0 > /two", "two"]'
    img.build(make_context({"Dockerfile": f"FROM {busybox_image}\nRUN echo one > /one\n{exec_form}\n"}))
    image = img.image()
    assert image.text("one") == "one\n"
    assert image.text("two") == "two\n"
    assert len(image.layers) == 3


def test_run_sees_the_hosts_names_and_leaves_none_of_the_mounts_in_the_layer(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    script = "test -e /etc/resolv.conf && test -e /etc/hosts && test -c /dev/null && test -r /proc/self/stat"
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nRUN {script} && echo yes > /made\n"})
    img.build(context)
    assert set(img.image().layers[-1]) == {"made"}


def test_run_that_deletes_a_file_and_refills_a_folder_hides_what_was_below(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = (
        f"FROM {busybox_image}\n"
        "RUN mkdir /d && touch /d/a /d/b /gone\n"
        "RUN rm /gone && rm -r /d && mkdir /d && touch /d/c\n"
    )
    img.build(make_context({"Dockerfile": dockerfile}))
    tree = img.image().tree
    assert "gone" not in tree
    assert {path for path in tree if path.startswith("d/")} == {"d/c"}


def test_run_as_another_user_has_that_users_ids_home_and_groups(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    if not hosts.many_ids():
        pytest.skip("needs more than one user id: a range in /etc/subuid and uidmap")
    dockerfile = (
        f"FROM {busybox_image}\n"
        "USER worker\nRUN id -u > /tmp/uid; id -g > /tmp/gid; echo $HOME > /tmp/home\n"
        "USER 1234:50\nRUN id -u > /tmp/uid2; id -G > /tmp/groups2\n"
    )
    img.build(make_context({"Dockerfile": dockerfile}))
    image = img.image()
    assert image.text("tmp/uid") == "1000\n"
    assert image.text("tmp/gid") == "1000\n"
    assert image.text("tmp/home") == "/home/worker\n"
    assert image.tree["tmp/uid"].owner == "1000:1000"
    assert image.text("tmp/uid2") == "1234\n"
    assert image.text("tmp/groups2").split() == ["50"]
    assert image.config["User"] == "1234:50"


def test_set_user_id_bits_owners_and_su_work_inside_a_run(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    if not hosts.many_ids():
        pytest.skip("needs more than one user id: a range in /etc/subuid and uidmap")
    dockerfile = (
        f"FROM {busybox_image}\n"
        "RUN cp /bin/busybox /bin/suid && chmod 4755 /bin/suid && touch /own && chown 33:44 /own\n"
        "RUN mkdir /box && chmod 0777 /box && su worker -c 'touch /box/by-worker'\n"
    )
    img.build(make_context({"Dockerfile": dockerfile}))
    tree = img.image().tree
    assert tree["bin/suid"].bits == "4755"
    assert tree["own"].owner == "33:44"
    assert tree["box/by-worker"].owner == "1000:1000"


def test_env_workdir_and_shell_reach_the_steps_after_them(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = (
        f"FROM {busybox_image}\n"
        "ENV A=1 B='two words'\nENV C ${A}st\nWORKDIR /srv\nWORKDIR app\n"
        'SHELL ["/bin/sh", "-e", "-c"]\n'
        'RUN echo "$A|$B|$C|$PWD|$-" > out\n'
    )
    img.build(make_context({"Dockerfile": dockerfile}))
    image = img.image()
    a, b, c, folder, flags = image.text("srv/app/out").strip().split("|")
    assert (a, b, c, folder) == ("1", "two words", "1st", "/srv/app")
    assert "e" in flags
    assert image.config["WorkingDir"] == "/srv/app"
    assert image.config["Shell"] == ["/bin/sh", "-e", "-c"]
    assert {"A=1", "B=two words", "C=1st"} <= set(image.config["Env"])


def test_workdir_makes_its_folder_and_its_parents(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    img.build(make_context({"Dockerfile": f"FROM {busybox_image}\nWORKDIR /a/b/c\n"}))
    tree = img.image().tree
    assert [tree[path].kind for path in ("a", "a/b", "a/b/c")] == ["dir"] * 3
    assert tree["a/b/c"].bits == "755"


def test_every_instruction_of_the_configuration_ends_in_its_field(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = (
        f"FROM {busybox_image}\n"
        'LABEL one=1 "two words"="a b"\nEXPOSE 80 53/udp\nVOLUME /data ["/x"]\nVOLUME ["/logs", "/more"]\n'
        "USER worker:staff\nSTOPSIGNAL SIGINT\nMAINTAINER Somebody\n"
        "HEALTHCHECK --interval=30s --timeout=3s --start-period=1m --retries=4 CMD wget -q localhost\n"
        'ENTRYPOINT ["/bin/echo", "-n"]\nCMD ["hello"]\n'
    )
    dockerfile = dockerfile.replace('VOLUME /data ["/x"]\n', "VOLUME /data\n")
    img.build(make_context({"Dockerfile": dockerfile}))
    image = img.image()
    config = image.config
    assert config["Labels"] == {"one": "1", "two words": "a b"}
    assert config["ExposedPorts"] == {"80/tcp": {}, "53/udp": {}}
    assert config["Volumes"] == {"/data": {}, "/logs": {}, "/more": {}}
    assert config["User"] == "worker:staff"
    assert config["StopSignal"] == "SIGINT"
    assert config["Healthcheck"] == {
        "Test": ["CMD-SHELL", "wget -q localhost"],
        "Interval": 30_000_000_000,
        "Timeout": 3_000_000_000,
        "StartPeriod": 60_000_000_000,
        "Retries": 4,
    }
    assert config["Entrypoint"] == ["/bin/echo", "-n"]
    assert config["Cmd"] == ["hello"]
    assert image.document["author"] == "Somebody"
    assert len(image.layers) == 1, "no instruction of the configuration makes a layer"


def test_shell_forms_of_cmd_and_entrypoint_are_wrapped_in_the_shell(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    img.build(make_context({"Dockerfile": f"FROM {busybox_image}\nENTRYPOINT echo a\nCMD echo b\n"}))
    config = img.image().config
    assert config["Entrypoint"] == ["/bin/sh", "-c", "echo a"]
    assert config["Cmd"] == ["/bin/sh", "-c", "echo b"]


def test_a_new_entrypoint_forgets_the_command_of_the_base(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    img.build(make_context({"Dockerfile": f'FROM {busybox_image}\nENTRYPOINT ["/bin/true"]\n'}))
    assert not img.image().config.get("Cmd")


def test_history_has_one_line_for_each_instruction_and_marks_the_empty_ones(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = f"FROM {busybox_image}\nENV A=1\nRUN touch /x\nCOPY Dockerfile /\nCMD x\n"
    img.build(make_context({"Dockerfile": dockerfile}))
    history = img.image().document["history"][1:]
    assert [bool(line.get("empty_layer")) for line in history] == [True, False, False, True]
    words = ("ENV", "touch /x", "COPY", "CMD")
    assert all(word in line["created_by"] for word, line in zip(words, history, strict=True))


def test_scratch_holds_nothing_but_what_is_copied(img: Img, make_context: Context) -> None:
    img.build(make_context({"Dockerfile": "FROM scratch\nCOPY hello /hello\n", "hello": "hi"}))
    image = img.image()
    assert set(image.tree) == {"hello"}
    assert image.document["os"] == "linux"


def test_onbuild_is_recorded_and_runs_right_after_the_next_from(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    base = make_context(
        {"Dockerfile": f"FROM {busybox_image}\nONBUILD COPY note /note\nONBUILD RUN cat /note > /copied\n"}
    )
    img.build(base, tag="base:1")
    recorded = img.image("base:1")
    assert recorded.config["OnBuild"] == ["COPY note /note", "RUN cat /note > /copied"]
    assert "note" not in recorded.tree
    child = make_context(
        {"Dockerfile": "FROM base:1\nRUN test -f /copied && echo late > /late\n", "note": "n"}
    )
    img.build(child, tag="child:1")
    image = img.image("child:1")
    assert image.text("copied") == "n"
    assert image.text("late") == "late\n"
    assert not image.config.get("OnBuild")
