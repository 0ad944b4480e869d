"""What each instruction makes of the config, or of the step. Source: Dockerfile reference."""

from __future__ import annotations

import re
from typing import Any

import pytest
from img.builder.graph import InlineFile
from img.errors import DockerfileError

from .planning import Bases, base, copies, plan, runs, workdirs


def config(lines: str, **run: Any) -> dict[str, Any]:
    """The `config` object after these lines, on a base whose own is `run`."""
    return dict(plan(f"FROM busybox\n{lines}\n", Bases({"busybox": base(**run)})).targets[0].config.run)


def words(lines: str, **run: Any) -> tuple[Any, Any]:
    after = config(lines, **run)
    return after.get("Entrypoint"), after.get("Cmd")


# ---- CMD, ENTRYPOINT, SHELL ----------------------------------------------------------------------


def test_a_new_entrypoint_forgets_a_cmd_that_came_from_the_base() -> None:
    assert words('ENTRYPOINT ["/app"]', Cmd=["sh"]) == (["/app"], None)


@pytest.mark.parametrize("lines", ['CMD ["x"]\nENTRYPOINT ["/app"]', 'ENTRYPOINT ["/app"]\nCMD ["x"]'])
def test_a_cmd_of_the_same_stage_stays_on_either_side_of_the_entrypoint(lines: str) -> None:
    assert words(lines, Cmd=["sh"]) == (["/app"], ["x"])


def test_a_cmd_of_the_stage_below_is_one_of_a_base() -> None:
    graph = plan('FROM busybox AS a\nCMD ["x"]\nFROM a\nENTRYPOINT ["/app"]\n')
    assert graph.targets[0].config.words("Cmd") is None


def test_a_new_cmd_leaves_the_entrypoint_of_the_base() -> None:
    assert words('CMD ["x"]', Entrypoint=["/e"], Cmd=["y"]) == (["/e"], ["x"])


def test_shell_forms_stand_behind_the_shell_of_the_moment() -> None:
    lines = 'CMD a b\nSHELL ["/bin/bash", "-ec"]\nENTRYPOINT c "d"'
    assert words(lines) == (["/bin/bash", "-ec", 'c "d"'], ["/bin/sh", "-c", "a b"])


def test_the_shell_of_the_base_counts() -> None:
    graph = plan("FROM busybox\nRUN x\n", Bases({"busybox": base(Shell=["/bin/ash", "-c"])}))
    assert runs(graph)[0].args == ("/bin/ash", "-c", "x")


def test_commands_are_not_expanded() -> None:
    assert words("ENV A=1\nCMD echo $A")[1][-1] == "echo $A"
    assert words('ENV A=1\nCMD ["$A"]')[1] == ["$A"]
    assert runs(plan('FROM busybox\nENV A=1\nRUN ["$A"]\n'))[0].args == ("$A",)


def test_an_exec_form_in_single_quotes_is_a_shell_form() -> None:
    assert words("CMD ['a', 'b']")[1] == ["/bin/sh", "-c", "['a', 'b']"]


# ---- the other fields ----------------------------------------------------------------------------


def test_ports_may_be_ranges_have_protocols_and_come_from_variables() -> None:
    lines = 'ENV P="90 91/udp"\nEXPOSE 80 443/TCP 8000-8002/udp $P'
    assert list(config(lines, ExposedPorts={"22/tcp": {}})["ExposedPorts"]) == [
        "22/tcp", "443/tcp", "80/tcp", "8000/udp", "8001/udp", "8002/udp", "90/tcp", "91/udp",
    ]  # fmt: skip


@pytest.mark.parametrize("port", ["http", "80/icmp", "9-8", "65536", "1-99999", "-1", "80-", "80/tcp/udp"])
def test_what_is_no_port_is_an_error_at_its_word(port: str) -> None:
    with pytest.raises(DockerfileError, match="is no port") as caught:
        config(f"EXPOSE 80 {port}")
    assert (caught.value.line, caught.value.column) == (2, 11)


def test_labels_and_volumes_are_added_to_those_of_the_base() -> None:
    after = config('LABEL b=2 a=3\nVOLUME ["/x", "/y y"]\nVOLUME /z', Labels={"a": "1"}, Volumes={"/w": {}})
    assert after["Labels"] == {"a": "3", "b": "2"}
    assert list(after["Volumes"]) == ["/w", "/x", "/y y", "/z"]


def test_user_stopsignal_and_maintainer_are_expanded_and_kept() -> None:
    graph = plan("FROM busybox\nARG U=me\nUSER $U:staff\nSTOPSIGNAL ${S:-SIGINT}\nMAINTAINER Jo <jo@x>\n")
    assert (graph.targets[0].config.user, graph.targets[0].config.run["StopSignal"]) == ("me:staff", "SIGINT")
    assert graph.targets[0].config.author == "Jo <jo@x>"


def test_a_healthcheck_replaces_the_one_before_it_as_a_whole() -> None:
    first = "HEALTHCHECK --interval=5s --retries=2 CMD curl x\n"
    assert config(first)["Healthcheck"] == {
        "Test": ["CMD-SHELL", "curl x"],
        "Interval": 5_000_000_000,
        "Retries": 2,
    }
    assert config(first + 'HEALTHCHECK CMD ["y"]')["Healthcheck"] == {"Test": ["CMD", "y"]}
    assert config(first + "HEALTHCHECK NONE")["Healthcheck"] == {"Test": ["NONE"]}


# ---- WORKDIR -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "path"),
    [
        ("WORKDIR /a", "/a"),
        ("WORKDIR a", "/base/a"),
        ("WORKDIR /a\nWORKDIR b\nWORKDIR c", "/a/b/c"),
        ("WORKDIR ..", "/"),
        ("WORKDIR ../../..", "/"),
        ("WORKDIR /a//b/./c/", "/a/b/c"),
        ("WORKDIR //a", "/a"),
        ("ENV D=/x\nWORKDIR $D/y", "/x/y"),
    ],
)
def test_a_folder_to_work_in_is_absolute_from_the_one_before(lines: str, path: str) -> None:
    assert config(lines, WorkingDir="/base")["WorkingDir"] == path


def test_a_folder_is_made_for_the_user_of_the_moment() -> None:
    made = workdirs(plan("FROM busybox\nWORKDIR /a\nUSER me\nWORKDIR /b\n"))
    assert [(op.path, op.user) for op in made] == [("/a", ""), ("/b", "me")]


# ---- RUN -----------------------------------------------------------------------------------------


def test_run_has_the_folder_the_user_and_the_network_of_the_moment() -> None:
    (run,) = runs(plan("FROM busybox\nUSER me:staff\nWORKDIR /w\nRUN --network=none x\n"))
    assert (run.cwd, run.user, run.network) == ("/w", "me:staff", "none")


def test_a_lone_here_document_is_the_shells_script() -> None:
    (run,) = runs(plan("FROM busybox\nRUN <<EOT\na\n\tb $X\nEOT\n"))
    assert run.args == ("/bin/sh", "-c", "a\n\tb $X\n")


def test_a_here_document_with_an_interpreter_of_its_own_is_run_as_a_file() -> None:
    (run,) = runs(plan("FROM busybox\nRUN <<EOT\n#!/usr/bin/env python3\nprint(1)\nEOT\n"))
    assert run.args == ("/dev/pipes/EOT",)
    assert run.script == InlineFile(name="EOT", content="#!/usr/bin/env python3\nprint(1)\n")


def test_here_documents_among_other_words_are_left_to_the_shell() -> None:
    (run,) = runs(plan("FROM busybox\nRUN cat <<A <<'B' > /x\n#!one\nA\ntwo\nB\n"))
    assert run.args[-1] == "cat <<A <<'B' > /x\n#!one\nA\ntwo\nB"
    assert run.script is None


def test_what_is_read_but_not_carried_out_is_refused_and_never_ignored() -> None:
    with pytest.raises(DockerfileError, match="no devices of this machine"):
        plan("FROM busybox\nRUN --device=gpu x\n")


@pytest.mark.parametrize(
    ("flag", "allow"), [("--security=insecure", "security.insecure"), ("--network=host", "network.host")]
)
def test_what_a_dockerfile_may_not_take_for_itself_needs_the_callers_word(flag: str, allow: str) -> None:
    text = f"FROM busybox\nRUN {flag} x\n"
    with pytest.raises(DockerfileError, match="is not allowed") as caught:
        plan(text)
    assert f"--allow {allow}" in caught.value.hint
    (run,) = runs(plan(text, allow=frozenset({allow})))
    assert {run.security, run.network} & {"insecure", "host"}


def test_the_builds_network_is_that_of_a_run_that_names_none_and_allows_it_to_others() -> None:
    graph = plan("FROM busybox\nRUN a\nRUN --network=none b\nRUN --network=host c\n", network="host")
    assert [run.network for run in runs(graph)] == ["host", "none", "host"]


# ---- COPY and ADD --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dest", "absolute"),
    [
        ("/d", "/d"),
        ("/d/", "/d/"),
        ("d", "/w/d"),
        (".", "/w/"),
        ("./", "/w/"),
        ("/d/.", "/d/"),
        ("../../..", "/"),
        ("/", "/"),
        ("$D", "/from-env"),
    ],
)
def test_a_destination_is_absolute_and_keeps_the_slash_that_makes_it_a_folder(
    dest: str, absolute: str
) -> None:
    (copy,) = copies(plan(f"FROM busybox\nENV D=/from-env\nWORKDIR /w\nCOPY a {dest}\n"))
    assert copy.dest == absolute


def test_the_words_and_flags_of_copy_are_expanded() -> None:
    lines = "ARG U=me\nARG M=640\nARG F=file\n"
    (copy,) = copies(plan(f"FROM busybox\n{lines}COPY --chown=$U:g --chmod=$M --exclude=*.$F $F b* /d/\n"))
    assert (copy.chown, copy.chmod, copy.exclude) == ("me:g", "640", ("*.$F",))
    assert copy.sources == ("file", "b*")


@pytest.mark.parametrize(
    ("line", "message", "column"),
    [
        ("COPY --chmod=64a a /d", "--chmod=64a is no mode", 14),
        ("COPY --chmod=$M a /d", "--chmod=9 is no mode", 14),
        ("ADD --chmod=u+rz a /d", "--chmod=u+rz is no mode", 13),
        ("COPY --chmod=u a /d", "--chmod=u is no mode", 14),
        ("COPY --exclude=x --exclude=[a a /d", "--exclude=[a: not a valid pattern", 28),
    ],
)
def test_a_flag_of_copy_that_cannot_be_carried_out_is_refused_with_its_place(
    line: str, message: str, column: int
) -> None:
    with pytest.raises(DockerfileError, match=re.escape(message)) as caught:
        plan(f"FROM busybox\nARG M=9\nARG G=staff\n{line}\n")
    assert (caught.value.line, caught.value.column) == (4, column)


def test_several_sources_without_a_slash_are_warned_about() -> None:
    graph = plan("FROM busybox\nCOPY a b /d\nCOPY a b /d/\nCOPY a /d\nCOPY a b .\n")
    assert [warning.partition(":")[2][:2] for warning in graph.warnings] == ["2:"]


def test_add_unpacks_unless_told_otherwise_and_copy_never_does() -> None:
    graph = plan("FROM busybox\nADD a /\nADD --unpack=false a /\nCOPY a /\n")
    assert [copy.parts[0].unpack for copy in copies(graph)] == [True, False, False]


def test_here_documents_of_copy_are_expanded_unless_quoted() -> None:
    graph = plan("FROM busybox\nENV A=1\nCOPY <<one <<'two' /d/\n$A \\$A\none\n$A\ntwo\n")
    assert copies(graph)[0].inline == (
        InlineFile(name="one", content="1 $A\n"),
        InlineFile(name="two", content="$A\n"),
    )


@pytest.mark.parametrize(
    "line", ["RUN echo \udcff", "COPY \udcff /", "WORKDIR /\udcff", "RUN <<E\n\udcff\nE"]
)
def test_bytes_that_are_not_utf_8_are_refused_where_a_path_or_a_process_would_get_them(line: str) -> None:
    with pytest.raises(DockerfileError, match="not UTF-8") as caught:
        plan(f"FROM busybox\n{line}\n")
    assert caught.value.line == 2
