"""The checks that are pure: the directive, the habits of a RUN with mounts, and what looks like a secret."""

from __future__ import annotations

import pytest
from img.dockerfile import parse
from img.dockerfile.checks import RULES, check_options, looks_secret
from img.dockerfile.checks.habits import check_habits
from img.errors import DockerfileError, UsageError

BUILDKIT = [
    "StageNameCasing",
    "FromAsCasing",
    "NoEmptyContinuation",
    "ConsistentInstructionCasing",
    "DuplicateStageName",
    "ReservedStageName",
    "JSONArgsRecommended",
    "MaintainerDeprecated",
    "UndefinedArgInFrom",
    "WorkdirRelativePath",
    "UndefinedVar",
    "MultipleInstructionsDisallowed",
    "LegacyKeyValueFormat",
    "InvalidBaseImagePlatform",
    "RedundantTargetPlatform",
    "SecretsUsedInArgOrEnv",
    "InvalidDefaultArgInFrom",
    "FromPlatformFlagConstDisallowed",
    "CopyIgnoredFile",
    "InvalidDefinitionDescription",
    "ExposeProtoCasing",
    "ExposeInvalidFormat",
]


def test_a_rule_of_buildkit_has_the_address_of_its_page_and_one_of_ours_has_none() -> None:
    pages = {name: rule.url.rstrip("/").rpartition("/")[2] for name, rule in RULES.items()}
    assert pages["JSONArgsRecommended"] == "json-args-recommended"
    assert pages["FromPlatformFlagConstDisallowed"] == "from-platform-flag-const-disallowed"
    assert all(pages[name] for name in BUILDKIT)
    assert {name for name, page in pages.items() if not page} == set(RULES) - set(BUILDKIT)


def hints(text: str) -> list[tuple[str, str]]:
    """Rule and what to do, for the lines after a FROM."""
    return [(f.rule, f.hint) for f in check_habits(parse(f"FROM busybox:1\n{text}\n".encode()))]


def test_the_rules_of_buildkit_are_all_here_and_are_warnings() -> None:
    assert len(BUILDKIT) == 22
    assert [name for name, rule in RULES.items() if not rule.own] == BUILDKIT
    assert {RULES[name].level for name in BUILDKIT} == {"warning"}
    assert [name for name in BUILDKIT if RULES[name].experimental] == ["InvalidDefinitionDescription"]


# ---- the directive -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("directive", "message", "column", "hint"),
    [
        ("skpi=all", "check has no option 'skpi'", 9, "did you mean skip?"),
        ("skip", "'skip' needs a value", 9, "skip=Rule"),
        ("error=yes", "error is true or false, not 'yes'", 9, "error=true"),
        ("skip=A;wrong=x", "check has no option 'wrong'", 16, "skip=Rule"),
        ("skip=all;", "check has no option ''", 0, "skip=Rule"),
    ],
)
def test_a_mistake_in_the_directive_is_pointed_at(
    directive: str, message: str, column: int, hint: str
) -> None:
    dockerfile = parse(f"# check={directive}\nFROM scratch\n".encode())
    with pytest.raises(DockerfileError) as caught:
        check_options(dockerfile, {})
    assert message in caught.value.message
    assert (caught.value.line, caught.value.column) == (1, column)
    assert hint in caught.value.hint


def test_a_mistake_in_the_build_argument_names_it() -> None:
    with pytest.raises(UsageError, match="BUILDKIT_DOCKERFILE_CHECK: error is true or false"):
        check_options(parse(b"FROM scratch\n"), {"BUILDKIT_DOCKERFILE_CHECK": "error=maybe"})


@pytest.mark.parametrize("value", ["1", "t", "T", "TRUE", "true", "True"])
def test_error_takes_gos_words_for_true(value: str) -> None:
    options, _ = check_options(parse(f"# check=error={value}\nFROM scratch\n".encode()), {})
    assert options.error


def test_options_may_stand_in_any_order_with_blanks() -> None:
    text = "# check = experimental = all ; skip = FromAsCasing , UndefinedVar ; error = false\nFROM scratch\n"
    options, found = check_options(parse(text.encode()), {})
    assert options.skip == {"FromAsCasing", "UndefinedVar"}
    assert options.experimental == {"all"}
    assert not options.error
    assert found == ()


def test_a_rule_that_nobody_knows_is_answered_with_the_one_that_is_like_it() -> None:
    _, (found,) = check_options(parse(b"# check=skip=UndefinedVra\nFROM scratch\n"), {})
    assert (found.rule, found.line, found.hint) == ("UnknownRule", 1, "did you mean UndefinedVar?")


# ---- habits --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "mounts"),
    [
        ("apt-get install -y x", ["/var/cache/apt,sharing=locked", "/var/lib/apt,sharing=locked"]),
        ("sudo -E pip3 install x", ["/root/.cache/pip"]),
        ("npm ci", ["/root/.npm"]),
        ("GOFLAGS=-v go build .", ["/go/pkg/mod", "/root/.cache/go-build"]),
        ("(cargo build)", ["/usr/local/cargo/registry"]),
        ("uv sync", ["/root/.cache/uv"]),
    ],
)
def test_a_hint_says_which_mount_to_write(command: str, mounts: list[str]) -> None:
    flags = " ".join(f"--mount=type=cache,target={mount}" for mount in mounts)
    assert ("CacheMountRecommended", f"write RUN {flags} …") in hints(f"RUN {command}")


def test_who_wrote_a_cache_mount_gets_no_hint() -> None:
    assert hints("RUN --mount=type=cache,target=/root/.npm npm ci") == []
    assert hints("RUN --mount=type=cache,target=/c pip install --cache-dir=/c x") == []
    apt = "--mount=type=cache,target=/var/lib/apt --mount=type=cache,target=/var/cache/apt"
    assert hints(f"RUN {apt} apt-get update && apt-get install -y x") == []
    assert [rule for rule, _ in hints("RUN --mount=type=bind,source=a,target=/a npm ci")] == [
        "CacheMountRecommended"
    ]


def test_a_cache_on_another_folder_does_not_keep_the_lists_away() -> None:
    (found,) = hints("RUN --mount=type=cache,target=/var/cache/apt apt-get update && apt-get install x")
    assert found[0] == "AptListsLeft"


def test_where_quotes_make_it_unsure_there_is_no_hint() -> None:
    assert hints("RUN sh -c 'a && npm ci'") == []
    assert hints("RUN echo 'it; is' fine && echo \"npm ci\"") == []


def test_the_exec_form_is_one_command() -> None:
    assert [rule for rule, _ in hints('RUN ["/usr/bin/npm", "ci"]')] == ["CacheMountRecommended"]


def test_an_add_that_checks_or_unpacks_is_meant() -> None:
    checksum = "sha256:" + "0" * 64
    assert hints(f"ADD --checksum={checksum} https://example.org/a /a") == []
    assert hints("ADD --unpack=false a /a") == []
    assert hints("ADD git@example.org:a.git /a\nADD https://example.org/a.git#main /b") == []


def test_the_order_of_copy_and_install_names_the_files_to_copy_first() -> None:
    (found,) = (f for f in hints("COPY . /app\nRUN cd /app && npm ci") if f[0] == "CopyBeforeInstall")
    assert found[1] == "COPY package.json package-lock.json ./ first, install, then COPY the rest"


# ---- secrets -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        ".env",
        "a/.env",
        ".env.production",
        "id_rsa",
        "keys/id_ed25519",
        ".aws/credentials",
        "home/.aws/credentials",
        ".netrc",
        ".git-credentials",
        ".kube/config",
    ],
)
def test_a_secret_is_told_by_its_name(path: str) -> None:
    assert looks_secret(path, lambda: pytest.fail("it was read"))


@pytest.mark.parametrize(
    "path",
    [
        ".env.example",
        ".env.sample",
        "id_rsa.pub",
        "env",
        "app.env.py",
        "credentials",
        "config",
        "a.txt",
        "x/",
    ],
)
def test_a_sample_and_a_plain_name_are_none(path: str) -> None:
    assert not looks_secret(path, lambda: pytest.fail("it was read"))


@pytest.mark.parametrize(
    ("path", "content", "secret"),
    [
        ("tls.pem", b"-----BEGIN CERTIFICATE-----\n", False),
        ("tls.pem", b"-----BEGIN PRIVATE KEY-----\n", True),
        ("a/server.key", b"-----BEGIN EC PRIVATE KEY-----\n", True),
        ("i18n.key", b"hello=Hallo\n", False),
        (".npmrc", b"registry=https://example.org\n", False),
        (".npmrc", b"//example.org/:_authToken=abc\n", True),
        (".npmrc", b"//example.org/:_authToken=${NPM_TOKEN}\n", False),
        (".pypirc", b"[pypi]\nusername = x\npassword = y\n", True),
        ("config.json", b'{"a": 1}', False),
        (".docker/config.json", b'{"auths": {"x": {"auth": "YQ=="}}}', True),
    ],
)
def test_a_name_that_may_mean_a_secret_needs_a_content_that_does(
    path: str, content: bytes, secret: bool
) -> None:
    assert looks_secret(path, lambda: content) == secret
