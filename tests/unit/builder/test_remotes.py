"""What ADD of URLs and repositories, and named contexts, become in a plan."""

from __future__ import annotations

import pytest
from img.builder import NamedContext, PlanOptions, context_name, needed_bases
from img.builder.graph import GitOp, HttpOp, SourceOp, TreeOp
from img.dockerfile import parse
from img.errors import DockerfileError

from tests.unit.builder.planning import AMD64, ARM64, Bases, base, copies, plan, shown

GIT = "https://host.example/app.git"
SUM = "sha256:" + "0" * 64


def _fetches(text: str) -> list[HttpOp | GitOp]:
    return [node.op for node in plan(text).nodes if isinstance(node.op, (HttpOp, GitOp))]


@pytest.mark.parametrize(
    ("source", "op"),
    [
        ("http://h/a", HttpOp(url="http://h/a", name="a")),
        ("https://h/d/a.tar.gz?x=1#y", HttpOp(url="https://h/d/a.tar.gz?x=1#y", name="a.tar.gz")),
        ("HTTP://h/a%20b", HttpOp(url="HTTP://h/a%20b", name="a b")),
        ("http://h/d/", HttpOp(url="http://h/d/", name="d")),
        ("http://h/", HttpOp(url="http://h/", name="__unnamed__")),
        ("http://h", HttpOp(url="http://h", name="__unnamed__")),
        ("http://h/..%2f..%2fetc", HttpOp(url="http://h/..%2f..%2fetc", name="__unnamed__")),
        ("$URL/a", HttpOp(url="http://v/a", name="a")),
        (f"--checksum={SUM} http://h/a", HttpOp(url="http://h/a", name="a", checksum=SUM)),
        ("--checksum=$SUM http://h/a", HttpOp(url="http://h/a", name="a", checksum=SUM)),
        (GIT, GitOp(remote=GIT)),
        (f"{GIT}#v1:sub", GitOp(remote=GIT, ref="v1", subdir="sub")),
        (f"--keep-git-dir {GIT}", GitOp(remote=GIT, keep_git_dir=True)),
        (f"--keep-git-dir {GIT}?keep-git-dir=0", GitOp(remote=GIT)),
        (f"{GIT}?submodules=false&mtime=checkout", GitOp(remote=GIT, submodules=False, mtime="checkout")),
        (f"--checksum=abcdef0 {GIT}#v1", GitOp(remote=GIT, ref="v1", checksum="abcdef0")),
        (f"--checksum=abcdef0 {GIT}?ref=v&commit=abcdef01", GitOp(remote=GIT, ref="v", checksum="abcdef01")),
        ("git@h:app", GitOp(remote="git@h:app")),
    ],
)  # fmt: skip
def test_what_is_fetched(source: str, op: HttpOp | GitOp) -> None:
    assert _fetches(f"FROM scratch\nENV URL=http://v SUM={SUM}\nADD {source} /d/\n") == [op]


def test_sources_of_all_kinds_keep_their_order() -> None:
    (copy,) = copies(plan(f"FROM scratch\nADD a b http://h/c {GIT} d /x/\n"))
    assert [(part.patterns, part.input) for part in copy.parts] == [
        (("a", "b"), 0), (("c",), 1), ((".",), 2), (("d",), 0),
    ]  # fmt: skip
    assert copy.sources == ("a", "b", "http://h/c", GIT, "d")


def test_what_is_fetched_is_unpacked_only_where_the_dockerfile_says_so() -> None:
    graph = plan("FROM scratch\nADD http://h/a.tar b /x/\nADD --unpack http://h/a.tar /x/\n")
    assert [[part.unpack for part in copy.parts] for copy in copies(graph)] == [[False, True], [True]]


def test_a_name_with_wildcards_is_taken_as_it_stands() -> None:
    (copy,) = copies(plan("FROM scratch\nADD http://h/a%5B1%5D* /x/\n"))
    assert copy.parts[0].patterns == ("a\\[1]\\*",)


def test_the_same_source_is_fetched_once() -> None:
    assert len(_fetches("FROM scratch\nADD http://h/a /x\nADD http://h/a /y\n")) == 1


def test_no_secret_of_a_url_is_in_a_title() -> None:
    graph = plan("FROM scratch\nADD https://me:word@h/a?token=q /x\n")
    assert not [title for title in shown(graph) if "word" in title or "token" in title]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("ADD --checksum=sha512:00 http://h/a /", "sha512 is not known"),
        ("ADD --checksum=sha256:12 http://h/a /", "is no digest"),
        ("ADD --checksum=oops http://h/a /", "is no digest"),
        (f"ADD --checksum={SUM} a /", "is for what is fetched"),
        (f"ADD --checksum={SUM} http://h/a http://h/b /x/", "is of one source"),
        (f"ADD --checksum={SUM} {GIT} /", "not the hash of a commit"),
        (f"ADD --checksum=1234567 {GIT}?commit=abcdef0 /", "contradicts"),
        (f"ADD {GIT}?what=1 /", "unexpected query"),
        (f"ADD {GIT}#-x /", "no name of a branch"),
        ("ADD http:///a /", "names no host"),
        ("ADD http://h:x/a /", "is no URL"),
    ],
)
def test_what_cannot_be_fetched_is_refused_with_its_place(line: str, message: str) -> None:
    with pytest.raises(DockerfileError, match=message) as caught:
        plan(f"FROM scratch\n{line}\n")
    assert caught.value.line == 2


@pytest.mark.parametrize("source", ["http://h/f", "HTTPS://h/f", "git@h:a/b.git", "https://h/a.git#main"])
def test_copy_fetches_nothing(source: str) -> None:
    with pytest.raises(DockerfileError, match="COPY cannot fetch") as caught:
        plan(f"FROM scratch\nCOPY {source} /x\n")
    assert (caught.value.line, caught.value.column) == (2, 6)
    assert "ADD fetches" in caught.value.hint


def test_keep_git_dir_without_a_repository_is_told() -> None:
    (warning,) = plan("FROM scratch\nADD --keep-git-dir a /\n").warnings
    assert warning.startswith("Dockerfile:2: --keep-git-dir")


# ---- named contexts --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("alpine", "alpine"), ("docker.io/library/alpine:latest", "alpine"), ("alpine:3", "alpine:3"),
        ("library/alpine", "alpine"), ("r.example/a", "r.example/a"), ("Builder", "builder"), ("src", "src"),
    ],
)  # fmt: skip
def test_names_are_compared_as_docker_does(name: str, known: str) -> None:
    assert context_name(name) == known


def _image(**run: object) -> NamedContext:
    return NamedContext(kind="image", image=lambda platform: base(platform, **run))


@pytest.mark.parametrize("name", ["busybox", "docker.io/library/busybox:latest", "busybox:latest"])
def test_an_image_in_the_place_of_a_base(name: str) -> None:
    bases = Bases()
    graph = plan(f"FROM {name}\nRUN x\n", bases, contexts={"busybox": _image(Env=["A=1"])})
    assert bases.asked == []
    assert dict(graph.targets[0].config.env).items() >= {"A": "1"}.items()


def test_an_image_follows_the_platform_that_is_wanted() -> None:
    asked = []

    def image(platform):  # type: ignore[no-untyped-def]
        asked.append(platform)
        return base(platform)

    named = NamedContext(kind="image", image=image)
    text = "FROM --platform=linux/arm64 x AS a\nFROM x\nCOPY --from=a /f /f\nCOPY --from=x /g /g\n"
    plan(text, contexts={"x": named})
    assert sorted(asked, key=str) == [AMD64, ARM64]


def test_a_tree_in_the_place_of_a_base_gives_its_files() -> None:
    graph = plan("FROM src\nENV A=1\n", contexts={"src": NamedContext(kind="tree")})
    kinds = [type(node.op) for node in graph.nodes]
    assert SourceOp in kinds and TreeOp in kinds
    (copy,) = copies(graph)
    assert (copy.parts[0].patterns, copy.dest) == ((".",), "/")
    assert set(dict(graph.targets[0].config.env)) == {"PATH", "A"}


def test_a_tree_is_what_copy_from_reads() -> None:
    graph = plan(
        "FROM busybox\nCOPY --from=src a /a\nCOPY --from=src b /b\n",
        contexts={"src": NamedContext(kind="tree")},
    )
    assert len([node for node in graph.nodes if isinstance(node.op, TreeOp)]) == 1


def test_a_named_context_takes_the_place_of_a_stage() -> None:
    text = "FROM nowhere AS build\nRUN make\nFROM scratch\nCOPY --from=build /a /a\n"
    graph = plan(text, contexts={"build": NamedContext(kind="tree")})
    assert "RUN [/bin/sh -c make]" not in shown(graph)
    graph = plan("FROM nowhere AS build\nRUN make\nFROM build\n", contexts={"build": _image()})
    assert "RUN [/bin/sh -c make]" not in shown(graph)


def test_a_stage_in_the_place_of_an_image() -> None:
    text = "FROM busybox AS mine\nENV A=1\nFROM remote/base\nENV B=2\n"
    graph = plan(text, contexts={"remote/base": NamedContext(kind="stage", stage="mine")})
    assert dict(graph.targets[0].config.env)["A"] == "1"


def test_a_stage_that_stands_on_itself_is_refused() -> None:
    text = "FROM x AS a\nFROM a\n"
    with pytest.raises(DockerfileError, match="need each other: a -> 1 -> a"):
        plan(text, contexts={"x": NamedContext(kind="stage", stage="1")})


def test_overridden_bases_are_not_resolved_beforehand() -> None:
    copies = "".join(f"COPY --from={name} x x\n" for name in ("a", "four", "b"))
    text = f"FROM one AS a\nFROM two AS b\nFROM three\n{copies}"
    named = {"one": NamedContext(kind="tree"), "b": NamedContext(kind="tree"), "four": _image()}
    options = PlanOptions(platform=AMD64, build_platform=AMD64, contexts=named)
    assert [str(r.familiar) for r, _ in needed_bases(parse(text.encode()), options)] == ["three:latest"]
