"""`--check` and `--call`, and how a build shows its warnings: forms, exit codes, the directive, bases."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Context
from tests.support.command import Img
from tests.support.layout import Item, tar_of, write_layout
from tests.support.registry import Registry

pytestmark = pytest.mark.once

BAD = "FROM scratch as Base\nMAINTAINER me\nCOPY a /a\n"
GOOD = "FROM scratch AS base\nCOPY a /a\n"


def found(img: Img, context: Path, *args: str | Path, **options: Any) -> list[tuple[str, int]]:
    """Rule and first line of every warning of `--check`, from docker's JSON."""
    outcome = img("build", "--call=check,format=json", *args, context, **options)
    assert outcome.code in (0, 1), str(outcome)
    return [
        (w["ruleName"], w["location"]["ranges"][0]["start"]["line"])
        for w in outcome.json()["warnings"]
        if w["level"] == "warning"
    ]


# ---- --check -------------------------------------------------------------------------------------


def test_a_check_says_rule_place_lines_and_what_to_do_and_fails(img: Img, make_context: Context) -> None:
    context = make_context({"Dockerfile": BAD + 'LABEL a \\\n  "b"\n', "a": ""})
    outcome = img.fails(1, "build", "--check", context)
    blocks = outcome.stdout.split("\n\n")
    assert blocks[0].startswith("Dockerfile:1: StageNameCasing: ")
    assert "\n    1 > FROM scratch as Base\n" in blocks[0]
    assert blocks[2].startswith("Dockerfile:2: MaintainerDeprecated: ")
    assert "\n      = write LABEL org.opencontainers.image.authors=" in blocks[2]
    assert '\n    4 > LABEL a \\\n    5 >   "b"\n' in blocks[3]
    assert blocks[-1] == "4 warnings\n"


def test_a_clean_file_passes_and_nothing_is_built(img: Img, make_context: Context) -> None:
    context = make_context({"Dockerfile": GOOD, "a": ""})
    outcome = img.ok("build", "--check", "-t", "t", context)
    assert outcome.stdout == "no warnings\n"
    assert img("inspect", "t").code == 5


def test_hints_are_shown_and_fail_nothing(img: Img, make_context: Context) -> None:
    context = make_context({"Dockerfile": "FROM scratch\nADD a /a\n", "a": ""})
    outcome = img.ok("build", "--check", context)
    assert "Dockerfile:2: AddInsteadOfCopy (hint): " in outcome.stdout
    assert outcome.stdout.endswith("\nno warnings, 1 hint\n")


@pytest.mark.parametrize(
    "flags", [["--check"], ["-check"], ["--call=check"], ["--call", "check"], ["--call=lint"]]
)
def test_each_spelling_asks_for_the_check(flags: list[str], img: Img, make_context: Context) -> None:
    outcome = img.fails(1, "build", *flags, make_context({"Dockerfile": BAD, "a": ""}))
    assert outcome.stdout.endswith("\n3 warnings\n")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--call=chekc"], "build, check, outline, targets"),
        (["--call=check,format=xml"], "format=sarif"),
        (["--call=outline,format=sarif"], "format=json"),
        (["--call=targets,form=json"], "format=json"),
        (["--check", "--call=outline"], "different things"),
    ],
)
def test_a_call_that_makes_no_sense_is_a_usage_error(
    flags: list[str], words: str, img: Img, make_context: Context
) -> None:
    assert words in img.fails(2, "build", *flags, make_context({"Dockerfile": GOOD, "a": ""})).stderr


def test_call_build_builds(img: Img, make_context: Context) -> None:
    img.build(make_context({"Dockerfile": GOOD, "a": ""}), "--call=build")
    img.ok("inspect", "t")


def test_a_dockerfile_on_standard_input_is_checked(img: Img, make_context: Context) -> None:
    context = make_context({"a": ""})
    assert found(img, context, "-f", "-", stdin=BAD.encode()) == [
        ("StageNameCasing", 1),
        ("FromAsCasing", 1),
        ("MaintainerDeprecated", 2),
    ]
    assert img.fails(1, "build", "--check", "-", stdin=BAD.encode()).stdout.endswith("\n3 warnings\n")


def test_a_context_archive_on_standard_input_is_checked(img: Img, make_context: Context) -> None:
    context = make_context({"Dockerfile": BAD, "a": "", ".env": "x"})
    done = subprocess.run(["tar", "-c", "-C", context, "."], stdout=subprocess.PIPE, check=True)
    outcome = img.fails(1, "build", "--check", "-", stdin=done.stdout)
    assert outcome.stdout.endswith("\n3 warnings\n")


def test_another_file_and_a_target_are_checked(img: Img, make_context: Context) -> None:
    text = "FROM scratch AS one\nLABEL a=$b\nFROM scratch AS two\nLABEL c=$d\n"
    context = make_context({"sub/Other": text})
    assert found(img, context, "-f", "sub/Other") == [("UndefinedVar", 2), ("UndefinedVar", 4)]
    assert found(img, context, "-f", "sub/Other", "--target", "one") == [("UndefinedVar", 2)]
    outcome = img.fails(1, "build", "--check", "-f", "sub/Other", "--target", "two", context)
    assert outcome.stdout.startswith("sub/Other:4: UndefinedVar: ")


def test_build_arguments_count(img: Img, make_context: Context) -> None:
    context = make_context({"Dockerfile": "FROM scratch\nARG D=app\nWORKDIR $D\n"})
    assert found(img, context) == [("WorkdirRelativePath", 3)]
    assert found(img, context, "--build-arg", "D=/app") == []


def test_a_mistake_is_shown_after_what_was_found(img: Img, make_context: Context) -> None:
    context = make_context({"Dockerfile": "FROM scratch as base\nEXPOSE nothing\n"})
    outcome = img.fails(2, "build", "--check", context)
    assert outcome.stdout.startswith("Dockerfile:1: FromAsCasing: ")
    assert "Dockerfile:2: 'nothing' is no port" in outcome.stderr
    outcome = img.fails(2, "build", "--call=check,format=json", context)
    assert outcome.json()["buildError"]["location"]["ranges"][0]["start"]["line"] == 2
    (result,) = img.fails(2, "build", "--call=check,format=sarif", context).json()["runs"][0]["results"][1:]
    assert (result["ruleId"], result["level"]) == ("DockerfileError", "error")


def test_a_file_that_cannot_be_parsed_fails_in_every_form(img: Img, make_context: Context) -> None:
    context = make_context({"Dockerfile": "FORM scratch\n"})
    for form in ("text", "json", "sarif"):
        outcome = img.fails(2, "build", f"--call=check,format={form}", context)
        assert "did you mean FROM?" in outcome.stderr
    for method in ("outline", "targets"):
        assert "did you mean FROM?" in img.fails(2, "build", f"--call={method}", context).stderr


# ---- bases ---------------------------------------------------------------------------------------


@pytest.fixture
def java(registry: Registry, tmp_path: Path) -> str:
    """A base whose environment and shell matter, for the platform of this machine."""
    config = {"Env": ["PATH=/bin", "JAVA_HOME=/java"], "Shell": ["/bin/sh", "-ec"]}
    write_layout(tmp_path / "java", [tar_of([Item(path="a")])], config)
    return registry.push_layout(tmp_path / "java", "java")


def test_the_environment_and_the_shell_of_the_base_count(
    img: Img, make_context: Context, java: str, busybox_image: str
) -> None:
    text = "FROM {}\nENV PATH=$JAVA_HOME/bin:$PATH\nCMD java\n"
    assert found(img, make_context({"Dockerfile": text.format(java)})) == []
    assert found(img, make_context({"Dockerfile": text.format(busybox_image)})) == [
        ("UndefinedVar", 2),
        ("JSONArgsRecommended", 3),
    ]
    assert img.ok("images", "--json").json() == [], "a check gives no image a name"


def test_a_base_that_cannot_be_had_makes_the_rules_silent_that_need_it(
    img: Img, make_context: Context
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        name = f"127.0.0.1:{closed.getsockname()[1]}/x:1"
        context = make_context({"Dockerfile": f"FROM {name}\nENV a=$b\nCMD c\nMAINTAINER me\n"})
        outcome = img.fails(1, "build", "--check", context)
    assert outcome.stdout.startswith("Dockerfile:4: MaintainerDeprecated: ")
    assert outcome.stdout.endswith("\n1 warning\n")
    assert f"note: {name} could not be had" in outcome.stderr


def test_a_named_image_that_cannot_be_had_is_a_note_as_well(img: Img, make_context: Context) -> None:
    context = make_context({"Dockerfile": "FROM base\nLABEL a=$b\nCOPY --from=more /a /a\nMAINTAINER me\n"})
    named = [
        f"--build-context={name}=docker-image://no.such.registry.invalid/x:1" for name in ("base", "more")
    ]
    outcome = img.fails(1, "build", "--check", "--pull=never", *named, context)
    assert "MaintainerDeprecated" in outcome.stdout and "UndefinedVar" not in outcome.stdout
    assert outcome.stderr.count("note: no.such.registry.invalid/x:1 could not be had") == 1


def test_a_check_fetches_no_file_and_no_repository(img: Img, make_context: Context) -> None:
    text = "FROM scratch\nADD http://127.0.0.1:9/a.tar.gz /\nADD https://127.0.0.1:9/r.git#v1 /r\n"
    text += "COPY --from=t --parents /a/./b /\n"
    context = make_context({"Dockerfile": text})
    named = "--build-context=t=http://127.0.0.1:9/t.tar"
    assert img.ok("build", "--check", named, context).stdout == "no warnings\n"


def test_a_check_without_the_network_looks_into_the_store(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nENV a=$b\n"})
    outcome = img.ok("build", "--check", "--pull=never", context)
    assert "pulling is off" in outcome.stderr
    img.ok("pull", busybox_image)
    assert found(img, context, "--pull=never") == [("UndefinedVar", 2)]


def test_a_base_for_another_platform_is_found(img: Img, make_context: Context, busybox_image: str) -> None:
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nCOPY a /a\n", "a": ""})
    img.ok("pull", busybox_image)
    other = "linux/s390x"
    outcome = img("build", "--check", "--platform", other, context)
    # A registry's single-platform image answers for every platform, and says which it is.
    assert "InvalidBaseImagePlatform" in outcome.stdout, str(outcome)
    built = img.ok("build", "-t", "t", "--platform", other, context)
    assert built.stderr.count("InvalidBaseImagePlatform") == 1
    assert built.stderr.count(f"not for {other}") == 1


# ---- the context ---------------------------------------------------------------------------------


def test_the_ignore_file_counts_and_so_does_the_dockerfiles_own(img: Img, make_context: Context) -> None:
    files = {"Dockerfile": "FROM scratch\nCOPY a /a\n", "a": "", ".dockerignore": "# no\na\n"}
    assert found(img, make_context(files)) == [("CopyIgnoredFile", 2)]
    assert found(img, make_context({**files, ".dockerignore": "*\n!a\n"})) == []
    assert found(img, make_context({**files, "Dockerfile.dockerignore": "b\n"})) == []


def test_secrets_in_the_context_are_hinted_at_where_they_are_copied(img: Img, make_context: Context) -> None:
    files: Mapping[str, str] = {
        "Dockerfile": "FROM scratch\nCOPY src /src\nCOPY . /all\nCOPY --parents **/*.pem /p\n",
        "src/a": "",
        ".env": "PASSWORD=geheim",
        "keys/tls.pem": "-----BEGIN PRIVATE KEY-----\ngeheim\n",
        "keys/ca.pem": "-----BEGIN CERTIFICATE-----\n",
    }
    context = make_context(files)
    os.symlink("/etc/shadow", context / "linked.key")
    outcome = img.ok("build", "--check", context)
    places = [line for line in outcome.stdout.splitlines() if "SecretInContext" in line]
    assert [line.split(":")[1] for line in places] == ["3", "3", "4"]
    assert ".env looks like a secret" in places[0]
    assert all("keys/tls.pem looks like a secret" in place for place in places[1:])
    assert "geheim" not in outcome.text
    (context / ".dockerignore").write_text(".env\nkeys\n")
    assert "SecretInContext" not in img.ok("build", "--check", context).stdout
    (context / ".dockerignore").unlink()
    (context / "Dockerfile").write_text("# check=skip=SecretInContext\n" + files["Dockerfile"])
    assert "SecretInContext" not in img.ok("build", "--check", context).stdout


# ---- the directive -------------------------------------------------------------------------------


def test_skip_and_experimental_are_obeyed_and_the_build_argument_beats_them(
    img: Img, make_context: Context
) -> None:
    text = "# check=skip=FromAsCasing;experimental=all\n# x\n" + BAD
    context = make_context({"Dockerfile": text, "a": ""})
    rules = [rule for rule, _ in found(img, context)]
    assert rules == ["StageNameCasing", "InvalidDefinitionDescription", "MaintainerDeprecated"]
    argument = "BUILDKIT_DOCKERFILE_CHECK=skip=StageNameCasing"
    rules = [rule for rule, _ in found(img, context, "--build-arg", argument)]
    assert rules == ["FromAsCasing", "MaintainerDeprecated"]


def test_error_true_fails_the_build_before_anything_runs(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    text = f"# check=error=true\nFROM {busybox_image} as base\nRUN echo it ran\nMAINTAINER me\n"
    outcome = img.fails(2, "build", "-t", "t", make_context({"Dockerfile": text}))
    assert "it ran" not in outcome.text
    assert "2 warnings found:\n - FromAsCasing: " in outcome.stderr
    assert "Dockerfile:1: 2 findings fail the build" in outcome.stderr
    assert "FromAsCasing, MaintainerDeprecated" in outcome.stderr
    assert img("inspect", "t").code == 5


def test_error_true_lets_a_clean_build_and_hints_pass(img: Img, make_context: Context) -> None:
    text = "# check=error=true\nFROM scratch\nADD a /a\n"
    outcome = img.build(make_context({"Dockerfile": text, "a": ""}))
    assert "AddInsteadOfCopy" not in outcome.text


def test_error_true_as_a_build_argument_fails_the_build(img: Img, make_context: Context) -> None:
    context = make_context({"Dockerfile": BAD, "a": ""})
    argument = "BUILDKIT_DOCKERFILE_CHECK=skip=StageNameCasing;error=true"
    outcome = img.fails(2, "build", "--build-arg", argument, context)
    assert "FromAsCasing, MaintainerDeprecated" in outcome.stderr
    assert "StageNameCasing" not in outcome.stderr


def test_a_check_says_that_error_true_fails_a_build(img: Img, make_context: Context) -> None:
    context = make_context({"Dockerfile": "# check=error=true\nFROM scratch as base\n"})
    outcome = img.fails(1, "build", "--check", context)
    assert outcome.stdout.endswith("1 warning; a build fails for that, since the checks have error=true\n")
    error = img.fails(1, "build", "--check", "--json", context).json()["buildError"]
    assert "FromAsCasing" in error["message"]
    clean = make_context({"Dockerfile": "# check=error=true\nFROM scratch AS base\nADD a /\n"})
    assert "buildError" not in img.ok("build", "--check", "--json", clean).json()


def test_a_directive_that_cannot_be_read_is_pointed_at(img: Img, make_context: Context) -> None:
    context = make_context({"Dockerfile": "# check=eror=true\nFROM scratch\nCOPY a /\n", "a": ""})
    for flags in ([], ["--check"]):
        outcome = img.fails(2, "build", *flags, context)
        assert "Dockerfile:1: check has no option 'eror'" in outcome.stderr
        assert "did you mean error?" in outcome.stderr


# ---- outline and targets -------------------------------------------------------------------------


TARGETS = """\
ARG BASE=no.such.registry.invalid/x:1
# build compiles
FROM $BASE AS build
# LEVEL is how hard it tries
ARG LEVEL=2
RUN --mount=type=secret,id=token,required=true --mount=type=ssh --mount=type=cache,target=/c make
# run is what is shipped
FROM scratch AS run
COPY --from=build /a /a
"""


def test_the_targets_are_listed_without_the_network(img: Img, make_context: Context) -> None:
    context = make_context({"Dockerfile": TARGETS})
    rows = [line.split() for line in img.ok("build", "--call=targets", context).stdout.splitlines()]
    assert rows[1] == ["build", "no.such.registry.invalid/x:1", "compiles"]
    assert rows[2] == ["run", "(default)", "scratch", "is", "what", "is", "shipped"]
    data = img.ok("build", "--call=targets,format=json", context).json()
    assert data["targets"][1] == {
        "name": "run",
        "default": True,
        "description": "is what is shipped",
        "base": "scratch",
        "location": {"ranges": [{"start": {"line": 8}, "end": {"line": 8}}]},
    }
    assert base64.b64decode(data["sources"][0]).decode() == TARGETS


def test_the_outline_tells_what_a_target_takes(img: Img, make_context: Context) -> None:
    context = make_context({"Dockerfile": TARGETS})
    text = img.ok("build", "--call=outline", "--target", "build", "--build-arg", "LEVEL=3", context).stdout
    assert text == textwrap.dedent("""\
        TARGET:      build
        DESCRIPTION: compiles

        BUILD ARG   VALUE                          DESCRIPTION
        BASE        no.such.registry.invalid/x:1
        LEVEL       3                              is how hard it tries

        SECRET   REQUIRED
        token    true

        SSH       REQUIRED
        default

        CACHE
        /c
        """)
    data = img.ok("build", "--call=outline", "--json", context).json()
    assert data["name"] == "run"
    assert [(arg["name"], arg["value"]) for arg in data["args"]] == [
        ("BASE", "no.such.registry.invalid/x:1"),
        ("LEVEL", "2"),
    ]
    assert data["secrets"][0]["name"] == "token" and data["secrets"][0]["required"] is True
    assert data["ssh"][0]["name"] == "default" and "required" not in data["ssh"][0]
    assert data["cache"][0]["ID"] == "/c"
    outcome = img.fails(2, "build", "--call=outline", "--target", "bulid", context)
    assert "did you mean build?" in outcome.stderr


# ---- JSON and SARIF ------------------------------------------------------------------------------


def test_the_json_of_a_check_is_dockers(img: Img, make_context: Context) -> None:
    context = make_context({"Dockerfile": "FROM scratch\nENV a \\\n b\n"})
    outcome = img.fails(1, "build", "--check", "--json", context)
    data = outcome.json()
    (warning,) = data["warnings"]
    assert warning["ruleName"] == "LegacyKeyValueFormat"
    assert warning["location"] == {"ranges": [{"start": {"line": 2}, "end": {"line": 3}}]}
    assert warning["detail"] and warning["description"]
    assert warning["url"].endswith("/rule/legacy-key-value-format/")
    assert "buildError" not in data
    (source,) = data["sources"]
    assert (source["filename"], source["language"]) == ("Dockerfile", "Dockerfile")
    assert base64.b64decode(source["data"]) == b"FROM scratch\nENV a \\\n b\n"


def test_sarif_has_what_its_schema_requires(img: Img, make_context: Context) -> None:
    """SARIF 2.1.0: sections 3.13, 3.14, 3.18, 3.19, 3.27, 3.28, 3.30, 3.49, and their required fields."""
    context = make_context({"my Dockerfile": BAD + "ADD a /b\n", "a": ""})
    outcome = img.fails(1, "build", "--call=check,format=sarif", "-f", "my Dockerfile", context, cwd=context)
    log = outcome.json()
    assert log["version"] == "2.1.0" and log["$schema"].endswith("sarif-schema-2.1.0.json")
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "img" and driver["version"]
    ids = [rule["id"] for rule in driver["rules"]]
    assert len(set(ids)) == len(ids) > 22
    for rule in driver["rules"]:
        assert rule["shortDescription"]["text"]
        assert rule["defaultConfiguration"]["level"] in ("none", "note", "warning", "error")
    assert next(rule["id"] for rule in driver["rules"] if "helpUri" not in rule) == "UnknownRule"
    assert all(isinstance(item["executionSuccessful"], bool) for item in run["invocations"])
    levels = []
    for result in run["results"]:
        assert result["message"]["text"]
        assert ids[result["ruleIndex"]] == result["ruleId"]
        levels.append(result["level"])
        (location,) = result["locations"]
        place = location["physicalLocation"]
        assert place["artifactLocation"]["uri"] == "my%20Dockerfile"
        region = place["region"]
        assert 1 <= region["startLine"] <= region["endLine"]
        assert region["snippet"]["text"]
    assert levels == ["warning", "warning", "warning", "note"]


def test_sarif_names_the_file_as_seen_from_the_present_folder(img: Img, make_context: Context) -> None:
    context = make_context({"app/Dockerfile": BAD, "app/a": ""})
    outcome = img.fails(1, "build", "--call=check,format=sarif", "app", cwd=context)
    (uri,) = {
        r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        for r in outcome.json()["runs"][0]["results"]
    }
    assert uri == "app/Dockerfile"


# ---- how a build shows its warnings --------------------------------------------------------------


def test_warnings_come_once_in_one_block_after_the_steps(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    text = f"FROM {busybox_image} as base\nRUN echo it ran\nCMD one\n"
    outcome = img.ok("build", "-t", "t", make_context({"Dockerfile": text}), "--build-arg", "TYPO=1")
    steps, _, block = outcome.stderr.partition("3 warnings found:\n")
    assert "it ran" in steps
    lines = block.splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == [
        " - FromAsCasing",
        " - JSONArgsRecommended",
        " - build arguments that no ARG takes",
    ]
    assert lines[0].endswith("(line 1)") and lines[1].endswith("(line 3)")
    assert lines[3].startswith("Built image")
    again = img.ok("build", "-t", "t", make_context({"Dockerfile": text}))
    assert "2 warnings found:" in again.stderr, "cached steps warn as well"


def test_one_warning_is_one(img: Img, make_context: Context) -> None:
    outcome = img.build(make_context({"Dockerfile": "FROM scratch\nCOPY a /\nMAINTAINER me\n", "a": ""}))
    assert "\n1 warning found:\n - MaintainerDeprecated: " in outcome.stderr


def test_a_build_that_fails_shows_its_warnings_before_the_error(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    text = f"FROM {busybox_image}\nENV A=$B\nRUN exit 3\n"
    outcome = img.fails(1, "build", "-t", "t", make_context({"Dockerfile": text}))
    warning, error = outcome.stderr.index("1 warning found"), outcome.stderr.rindex("exit code 3")
    assert warning < error
    assert outcome.stderr.count("UndefinedVar") == 1


def test_a_quiet_build_says_nothing(img: Img, make_context: Context) -> None:
    outcome = img.build(make_context({"Dockerfile": BAD, "a": ""}), "-q")
    assert outcome.stderr == ""
    assert outcome.stdout.startswith("sha256:")


def test_events_and_the_result_have_the_findings_as_data(img: Img, make_context: Context) -> None:
    outcome = img.build(make_context({"Dockerfile": BAD, "a": ""}), "--progress", "json", "--json")
    events = [json.loads(line) for line in outcome.stderr.splitlines()]
    warned = [event for event in events if event["event"] == "Warned"]
    assert [(e["number"], e["total"], e["rule"], e["line"]) for e in warned] == [
        (1, 3, "StageNameCasing", 1),
        (2, 3, "FromAsCasing", 1),
        (3, 3, "MaintainerDeprecated", 2),
    ]
    assert events[-1] == warned[-1], "they come last"
    results = outcome.json()["warnings"]
    assert [(w["rule"], w["path"], w["line"], w["level"]) for w in results] == [
        ("StageNameCasing", "Dockerfile", 1, "warning"),
        ("FromAsCasing", "Dockerfile", 1, "warning"),
        ("MaintainerDeprecated", "Dockerfile", 2, "warning"),
    ]


def test_hints_stay_out_of_a_build(img: Img, make_context: Context) -> None:
    context = make_context({"Dockerfile": "FROM scratch\nADD a /\nCOPY . /\n", "a": "", ".env": ""})
    outcome = img.build(context, "--json")
    assert "found" not in outcome.stderr
    assert outcome.json()["warnings"] == []


# ---- the library ---------------------------------------------------------------------------------


def test_the_library_checks_and_asks_in_its_own_process(img: Img, make_context: Context) -> None:
    context = make_context({"Dockerfile": TARGETS.replace("ARG LEVEL=2", "ARG TOKEN=2")})
    code = f"""
        import os, img
        before = os.listdir("/proc/self/ns"), [os.readlink("/proc/self/ns/user")]
        with img.Client({str(img.state)!r}) as client:
            targets = client.targets({str(context)!r})
            assert [target.name for target in targets] == ["build", "run"], targets
            outline = client.outline({str(context)!r}, target="build")
            assert isinstance(outline, img.Outline) and outline.secrets[0].required
            try:
                client.check({str(context)!r}, target="nope")
            except img.DockerfileError as error:
                assert "nope" in str(error)
            else:
                raise AssertionError
        assert before == (os.listdir("/proc/self/ns"), [os.readlink("/proc/self/ns/user")])
    """
    _python(img, code)


def test_the_library_gives_findings(img: Img, make_context: Context) -> None:
    context = make_context({"Dockerfile": BAD + "ADD a /b\n", "a": ""})
    code = f"""
        import img
        with img.Client({str(img.state)!r}) as client:
            found = client.check({str(context)!r})
            assert [f.rule for f in found] == [
                "StageNameCasing", "FromAsCasing", "MaintainerDeprecated", "AddInsteadOfCopy"
            ], found
            assert str(found[0]).startswith("Dockerfile:1: StageNameCasing: ")
            result = client.build({str(context)!r})
            assert all(isinstance(f, img.Finding) for f in result.warnings)
            assert result.warnings == found[:3]
    """
    _python(img, code)


def _python(img: Img, code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=img.environment(),
        cwd=img.home,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
