from __future__ import annotations

import json

import pytest

from tests.conftest import Context
from tests.support import hosts, trees
from tests.support.command import Img, steps_run

pytestmark = pytest.mark.once

ANY = "# syntax=docker/dockerfile:1\nFROM {base}\n"


def built(img: Img, make_context: Context, base: str, text: str, *args: str) -> trees.ReadImage:
    """The image of a Dockerfile whose `{base}` is busybox."""
    context = make_context({"Dockerfile": text.replace("{base}", base), "note": "n\n"})
    img.build(context, *args)
    return img.image()


# ---- what RUN sees and leaves ------------------------------------------------------------------------

FILES = {
    "an argument and its default": ("ARG A=1 B=$A-2\nRUN echo $A $B > /o\n", "1 1-2\n"),
    "ENV over ARG": ("ARG A=arg\nENV A=env\nRUN echo $A > /o\n", "env\n"),
    "an ARG over an ENV before it": ("ENV A=env\nARG A=arg\nRUN echo $A > /o\n", "arg\n"),
    "an argument without a value": ("ARG A\nRUN echo ${A-unset} > /o\n", "unset\n"),
    "operators are the builder's in ENV": (
        "ENV V=1.2 F=/a/b.tgz\nENV A=${V//./-} B=${F##*/} C=${F%%.*} D=${X:-d}\nRUN echo $A $B $C $D > /o\n",
        "1-2 b.tgz /a/b d\n",
    ),
    "and the shell's in RUN": ("RUN X=a.b; echo ${X%.b} '${X}' > /o\n", "a ${X}\n"),
    "the exec form has no shell": ('RUN ["touch", "/$X"]\nRUN ls / | grep -F \'$\' > /o\n', "$X\n"),
    "quotes in the exec form": ('RUN ["sh", "-c", "echo \\"a  b\\" > /o"]\n', "a  b\n"),
    "brackets without JSON are a command": ("RUN [ -d /bin ] && echo yes > /o\n", "yes\n"),
    "a continued line with comments and an empty line": (
        "RUN echo a \\\n  # why\n\n  b \\\n  c > /o\n", "a b c\n",
    ),
    "the lone here-document is the script": ("RUN <<EOF\nX=1\necho $X \\$X > /o\nEOF\n", "1 $X\n"),
    "an indented here-document": ("RUN <<-EOF\n\techo a > /o\n\tEOF\n", "a\n"),
    "a here-document with the shell named": (
        "RUN <<EOF\n#!/bin/sh -e\necho $- $0 > /o\nEOF\n", "e /dev/pipes/EOF\n",
    ),
    "a here-document with another interpreter": (
        'RUN <<EOF\n#!/bin/awk -f\nBEGIN { print 6 * 7 > "/o" }\nEOF\n', "42\n",
    ),
    "a here-document that a program reads": ("RUN cat <<EOF > /o\n$A'b'\nEOF\n", "'b'\n"),
    "a quoted one that a program reads": ("RUN cat <<'EOF' > /o\n$A'b'\nEOF\n", "$A'b'\n"),
    "two on one line": ("RUN cat <<A > /o && cat <<B >> /o\n1\nA\n2\nB\n", "1\n2\n"),
    "one on a file descriptor": ("RUN cat 3<<EOF <&3 > /o\nthree\nEOF\n", "three\n"),
    "a here-document under another SHELL": (
        'SHELL ["/bin/sh", "-ec"]\nRUN <<EOF\necho $- > /o\nEOF\n', None,
    ),
    "SHELL is what runs a RUN": ('SHELL ["/bin/awk"]\nRUN BEGIN { print "awk" > "/o" }\n', "awk\n"),
    "WORKDIR adds up": ("ENV D=x\nWORKDIR /a\nWORKDIR $D/../y\nRUN pwd > /o\n", "/a/y\n"),
    "the name of the machine": ("RUN hostname > /o\n", "buildkitsandbox\n"),
    "files from here-documents, with variables": (
        "ARG V=1\nCOPY <<a <<'b' /d/\n$V\na\n$V\nb\nRUN cat /d/a /d/b > /o\n", "1\n$V\n",
    ),
    "the target's name": (
        "ARG TARGETSTAGE TARGETOS\nRUN echo $TARGETSTAGE $TARGETOS > /o\n", "default linux\n",
    ),
    "CR LF at every line's end": ("RUN echo a \\\r\n  b > /o\r\n", "a b\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_run_leaves_what_the_language_says(
    name: str, img: Img, make_context: Context, busybox_image: str
) -> None:
    lines, expected = FILES[name]
    found = built(img, make_context, busybox_image, ANY + lines).text("o")
    if expected is None:
        assert "e" in found
    else:
        assert found == expected


# ---- what the configuration says ---------------------------------------------------------------------

CONFIGS: dict[str, tuple[str, dict[str, object]]] = {
    "an entrypoint and a command in both forms": (
        'ENTRYPOINT ["/bin/echo", "a b"]\nCMD c  "d"\n',
        {"Entrypoint": ["/bin/echo", "a b"], "Cmd": ["/bin/sh", "-c", 'c  "d"']},
    ),
    "an entrypoint that forgets the base's command": (
        "ENTRYPOINT x\n", {"Entrypoint": ["/bin/sh", "-c", "x"]},
    ),
    "a shell of one's own": (
        'SHELL ["/bin/ash", "-c"]\nCMD x\n', {"Shell": ["/bin/ash", "-c"], "Cmd": ["/bin/ash", "-c", "x"]},
    ),
    "an empty command": ("CMD []\n", {}),
    "ports in every form": (
        "ARG P='80 53/UDP'\nEXPOSE $P 7000-7001 127.0.0.1:1:2\n",
        {"ExposedPorts": {"2/tcp": {}, "53/udp": {}, "7000/tcp": {}, "7001/tcp": {}, "80/tcp": {}}},
    ),
    "a signal with an offset": ("STOPSIGNAL rtmin+3\n", {"StopSignal": "rtmin+3"}),
    "labels, quoted and in the old form": (
        'ENV A=1\nLABEL "a b"=\'$A\' c="$A d"\nLABEL e f  g\n',
        {"Labels": {"a b": "$A", "c": "1 d", "e": "f  g"}},
    ),
    "no check of health": ("HEALTHCHECK NONE\n", {"Healthcheck": {"Test": ["NONE"]}}),
    "a trigger with a here-document": (
        "ONBUILD RUN <<EOF\n$x \\\nEOF\n", {"OnBuild": ["RUN <<EOF\n$x \\\nEOF"]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_the_configuration_is_what_the_language_says(
    name: str, img: Img, make_context: Context, busybox_image: str
) -> None:
    lines, expected = CONFIGS[name]
    config = built(img, make_context, busybox_image, ANY + lines).config
    kept = {key: value for key, value in config.items() if key not in ("Env", "WorkingDir")}
    if not lines.startswith(("CMD", "ENTRYPOINT", "SHELL")):
        assert kept.pop("Cmd") == ["sh"]
    assert kept == expected


# ---- stages ------------------------------------------------------------------------------------------


def test_a_stage_takes_nothing_from_a_later_one_and_both_are_shown(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    late = f"FROM {busybox_image} AS make\nRUN echo late > /o\n"
    text = f"FROM scratch AS out\nCOPY --from=make /o /o\n{late}"
    outcome = img.fails(2, "build", "-t", "t", "--target", "out", make_context({"Dockerfile": text}))
    assert "Dockerfile:2: the stage make comes only later" in outcome.stderr
    assert "also Dockerfile:3: FROM" in outcome.stderr


def test_a_variable_names_the_stage_to_copy_from(img: Img, make_context: Context, busybox_image: str) -> None:
    text = (
        f"ARG WHICH=a\nFROM {busybox_image} AS a\nRUN echo a > /o\n"
        f"FROM {busybox_image} AS b\nRUN echo b > /o\n"
        "FROM scratch\nCOPY --from=$WHICH /o /o\n"
    )
    context = make_context({"Dockerfile": text})
    outcome = img.build(context, "--build-arg", "WHICH=b")
    assert img.image().text("o") == "b\n"
    assert "holds a variable" in outcome.stderr


def test_stages_that_need_each_other_are_shown_with_all_their_lines(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    text = f"FROM {busybox_image} AS a\nCOPY --from=b /x /x\nFROM {busybox_image} AS b\nCOPY --from=a /y /y\n"
    error = img.fails(2, "build", make_context({"Dockerfile": text})).stderr
    assert "Dockerfile:2: the stages need each other: a -> b -> a" in error
    assert "Dockerfile:4: COPY --from=a /y /y" in error
    assert "--->" not in error, "nothing ran"


def test_triggers_of_a_base_in_a_registry_run_here_with_its_files_and_variables(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    name = busybox_image.partition("/")[0] + "/trigger:1"
    text = (
        f"FROM {busybox_image}\nONBUILD ARG WHO=nobody\nONBUILD COPY note /in\n"
        'ONBUILD RUN <<EOF\nset -e\necho "$WHO $(cat /in)" > /o\nEOF\nONBUILD COPY --from=tools /tool /tool\n'
    )
    img.build(make_context({"Dockerfile": text}), tag=name)
    img.ok("push", name)
    img.ok("rm", name)
    text = f"FROM {busybox_image} AS tools\nRUN echo t > /tool\nFROM {name}\nRUN cat /o /tool > /both\n"
    context = make_context({"Dockerfile": text, "note": "noted"})
    img.build(context, "--build-arg", "WHO=me", tag="child")
    image = img.image("child")
    assert image.text("both") == "me noted\nt\n"
    assert "OnBuild" not in image.config


def test_triggers_of_a_stage_run_once_in_the_stage_on_it(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    text = "FROM {base} AS a\nONBUILD RUN echo t >> /o\nFROM a AS b\nRUN cp /o /b\nFROM b\nRUN cp /o /c\n"
    image = built(img, make_context, busybox_image, text)
    assert (image.text("b"), image.text("c")) == ("t\n", "t\n")


# ---- arguments of the builder --------------------------------------------------------------------------


def test_a_proxy_is_seen_in_both_cases_and_is_in_neither_history_nor_key(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    text = f"FROM {busybox_image}\nRUN echo $HTTPS_PROXY $https_proxy > /o\n"
    context = make_context({"Dockerfile": text})
    img.build(context, "--build-arg", "https_proxy=http://u:secret@one.invalid")
    image = img.image()
    assert image.text("o").split() == ["http://u:secret@one.invalid"] * 2
    assert "secret" not in json.dumps(image.document)
    assert steps_run(img.build(context, "--build-arg", "HTTPS_PROXY=http://two.invalid")) == []


def test_the_machine_can_be_named_and_another_name_is_another_step(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    text = f"FROM {busybox_image}\nRUN hostname > /o; grep -c box /etc/hosts >> /o\n"
    context = make_context({"Dockerfile": text})
    img.build(context)
    assert img.image().text("o").splitlines()[0] == "buildkitsandbox"
    again = img.build(context, "--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=my-box")
    assert img.image().text("o").splitlines()[0] == "my-box"
    assert int(img.image().text("o").splitlines()[1]) >= 1
    assert len(steps_run(again)) == 1


def test_the_epoch_is_an_argument_wherever_it_was_given(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    text = f"FROM {busybox_image}\nARG SOURCE_DATE_EPOCH\nRUN echo $SOURCE_DATE_EPOCH > /o\n"
    context = make_context({"Dockerfile": text})
    img.ok("build", "-t", "t", context, env={"SOURCE_DATE_EPOCH": "1700000000"})
    assert img.image().text("o") == "1700000000\n"
    img.build(context, "--build-arg", "SOURCE_DATE_EPOCH=1600000000")
    assert img.image().text("o") == "1600000000\n"


def test_the_platform_arguments_are_those_of_the_machine(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    text = (
        f"FROM --platform=$BUILDPLATFORM {busybox_image}\nARG TARGETPLATFORM BUILDPLATFORM TARGETARCH\n"
        "RUN echo $TARGETPLATFORM $BUILDPLATFORM $TARGETARCH > /o\n"
    )
    image = built(img, make_context, busybox_image, text)
    arch = image.document["architecture"]
    assert image.text("o").split() == [f"linux/{arch}", f"linux/{arch}", arch]


def test_another_frontend_is_refused_by_directive_and_by_argument(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    context = make_context({"Dockerfile": "# syntax=example/other:1\nthis is: another language\n"})
    error = img.fails(2, "build", context).stderr
    assert "Dockerfile:1: this file is written for another frontend, 'example/other:1'" in error
    assert "hint: img speaks docker/dockerfile alone" in error
    plain = make_context({"Dockerfile": f"FROM {busybox_image}\n"})
    asked = "BUILDKIT_SYNTAX=example/other:1"
    assert "BUILDKIT_SYNTAX asks" in img.fails(2, "build", "--build-arg", asked, plain).stderr
    img.ok("build", "--build-arg", "BUILDKIT_SYNTAX=docker/dockerfile:1-labs", plain)


def test_user_and_folder_are_those_of_the_moment(img: Img, make_context: Context, busybox_image: str) -> None:
    if not hosts.many_ids():
        pytest.skip("needs more than one user id: a range in /etc/subuid and uidmap")
    text = (
        "FROM {base}\nARG WHO=worker\nWORKDIR /w\nRUN chown worker /w\nUSER $WHO\nWORKDIR sub\n"
        "RUN id -un > o; pwd >> o\nUSER root\nRUN id -u >> o\n"
    )
    image = built(img, make_context, busybox_image, text)
    assert image.text("w/sub/o") == "worker\n/w/sub\n0\n"
    assert image.tree["w/sub"].owner == "1000:1000"


def test_a_base_that_cannot_be_had_is_shown_with_its_line(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    nowhere = busybox_image.partition("/")[0] + "/nowhere"
    error = img.fails(3, "build", make_context({"Dockerfile": f"FROM {nowhere}\n"})).stderr
    assert "Dockerfile:1: " in error
    assert f"    1 | FROM {nowhere}\n      |      ^\n" in error
    text = f"FROM scratch AS a\nFROM scratch\nCOPY \\\n  --from={nowhere} a b\n"
    error = img.fails(3, "build", make_context({"Dockerfile": text})).stderr
    assert f"    3 | COPY \\\n    4 |   --from={nowhere} a b\n" in error


MISTAKES = {
    "RUN --moutn=type=cache,target=/x y\n": ("Dockerfile:2", "--mount", 5),
    "LABEL a=1 \\\n      b\n": ("Dockerfile:3", "name=value", 7),
    "EXPOSE 80/upd\n": ("Dockerfile:2", "did you mean udp?", 8),
    "STOPSIGNAL SIGTREM\n": ("Dockerfile:2", "did you mean SIGTERM?", 12),
    "ARG VERSION=1\nUSER ${VERISON:?}\n": ("Dockerfile:3", "did you mean $VERSION?", 6),
    "COPY --from=5 a b\n": ("Dockerfile:2", "stage, number 0", 13),
    "RUN <<EOF\nx\n": ("Dockerfile:2", "end it with a line that holds EOF", 5),
}


@pytest.mark.parametrize("lines", MISTAKES)
def test_a_mistake_is_shown_with_its_line_a_caret_and_what_to_do(
    lines: str, img: Img, make_context: Context
) -> None:
    where, hint, column = MISTAKES[lines]
    error = img.fails(2, "build", make_context({"Dockerfile": f"FROM scratch\n{lines}"})).stderr
    assert f"{where}: " in error
    assert hint in error
    (caret,) = [line for line in error.splitlines() if line.strip("| ") == "^"]
    assert caret.index("^") - caret.index("|") == column + 1
