"""Where a build gets its files from: a folder, a tar, a Dockerfile alone, and what .dockerignore hides."""

from __future__ import annotations

import gzip
import io
import tarfile

import pytest

from tests.conftest import Context
from tests.support.command import Img

pytestmark = pytest.mark.once


def _tar(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def _files(img: Img, below: str) -> set[str]:
    tree = img.image().tree
    return {p.removeprefix(below) for p, e in tree.items() if e.kind != "dir" and p.startswith(below)}


def test_the_dockerfile_may_have_another_name_and_lie_elsewhere(img: Img, make_context: Context) -> None:
    context = make_context({"sub/Other": "FROM scratch\nCOPY a /from-other\n", "a": ""})
    img.ok("build", "-t", "t", "-f", context / "sub/Other", context)
    assert "from-other" in img.image().tree


def test_dockerignore_hides_by_the_reference_rules(img: Img, make_context: Context) -> None:
    files = {
        ".dockerignore": "# a comment\n\n*.log\n!keep.log\n**/*.tmp\n/build\nsub/*/x\nDockerfile\n",
        "Dockerfile": "FROM scratch\nCOPY . /c/\n",
        "a.log": "", "keep.log": "", "deep/a.log": "", "deep/b.tmp": "", "b.tmp": "",
        "build/out": "", "deep/build/in": "", "sub/one/x": "", "sub/one/y": "", "sub/x": "",
    }  # fmt: skip
    img.build(make_context(files))
    assert _files(img, "c/") == {
        ".dockerignore", "keep.log", "deep/a.log", "deep/build/in", "sub/one/y", "sub/x",
    }  # fmt: skip


def test_dockerignore_can_exclude_all_and_bring_some_back(img: Img, make_context: Context) -> None:
    files = {".dockerignore": "*\n!src\nsrc/skip\n", "Dockerfile": "FROM scratch\nCOPY . /c/\n"}
    img.build(make_context({**files, "a": "", "src/b": "", "src/skip": "", "src/deep/c": ""}))
    assert _files(img, "c/") == {"src/b", "src/deep/c"}


def test_an_ignore_file_beside_a_named_dockerfile_goes_first(img: Img, make_context: Context) -> None:
    files = {"Other": "FROM scratch\nCOPY . /c/\n", "Other.dockerignore": "a\n", ".dockerignore": "b\n"}
    context = make_context({**files, "a": "", "b": ""})
    img.ok("build", "-t", "t", "-f", context / "Other", context)
    assert "b" in _files(img, "c/")
    assert "a" not in _files(img, "c/")


def test_a_source_that_dockerignore_hides_is_named_with_the_reason(img: Img, make_context: Context) -> None:
    context = make_context({"Dockerfile": "FROM scratch\nCOPY a /a\n", "a": "", ".dockerignore": "a\n"})
    outcome = img("build", "-t", "t", context)
    assert outcome.code != 0
    assert ".dockerignore" in outcome.text


def test_a_tar_on_standard_input_is_a_context(img: Img) -> None:
    data = _tar({"Dockerfile": "FROM scratch\nCOPY a /a\n", "a": "from the tar"})
    img.ok("build", "-t", "t", "-", stdin=data)
    assert img.image().text("a") == "from the tar"


def test_a_compressed_tar_on_standard_input_is_a_context(img: Img) -> None:
    data = gzip.compress(_tar({"Dockerfile": "FROM scratch\nCOPY a /a\n", "a": "zipped"}))
    img.ok("build", "-t", "t", "-", stdin=data)
    assert img.image().text("a") == "zipped"


def test_a_dockerfile_on_standard_input_has_an_empty_context(img: Img, busybox_image: str) -> None:
    img.ok("build", "-t", "t", "-", stdin=f"FROM {busybox_image}\nRUN echo in > /x\n".encode())
    assert img.image().text("x") == "in\n"


def test_a_dockerfile_on_standard_input_can_use_a_folder(img: Img, make_context: Context) -> None:
    context = make_context({"a": "folder"})
    img.ok("build", "-t", "t", "-f", "-", context, stdin=b"FROM scratch\nCOPY a /a\n")
    assert img.image().text("a") == "folder"


def test_a_context_that_is_relative_starts_at_the_working_folder(img: Img, make_context: Context) -> None:
    context = make_context({"Dockerfile": "FROM scratch\nCOPY a /a\n", "a": ""})
    img.ok("build", "-t", "t", ".", cwd=context)
    assert set(img.image().tree) == {"a"}
