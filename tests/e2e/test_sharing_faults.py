"""Caches that break, lie, or are hostile: the build passes, its result is what it is without one, and the
store has recorded nothing but what is true."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from img.oci import Manifest, parse

from tests.conftest import MakeImg
from tests.suites.registry.servers import Fault, FaultyRegistry, cut, status
from tests.support import hosts
from tests.support.between import Between
from tests.support.caches import CacheFolder, Document, records
from tests.support.command import Img, steps_run
from tests.support.layout import Item, digest_of, tar_of
from tests.support.registry import SECRET_HASH, Registry

pytestmark = pytest.mark.once

EPOCH = {"SOURCE_DATE_EPOCH": "1700000000"}
LEFT_OUT = "this cache is left out"


@dataclass(frozen=True, kw_only=True)
class Plain:
    """What a build without a cache gives.

    Attributes:
        digest: Of the image.
        records: What the store has recorded.
    """

    digest: str
    records: set[tuple[str, str, str]]


class Elsewhere:
    """Another machine: it wrote the cache, and knows what builds give."""

    def __init__(self, folder: Path, base: str) -> None:
        self.folder = folder
        self.context = folder / "context"
        self.context.mkdir()
        (folder / "home").mkdir()
        (self.context / "Dockerfile").write_text(
            f"FROM {base} AS one\nRUN echo one > /one; echo 1 > /only\n"
            f"FROM {base}\nRUN echo first > /first\nRUN true\nRUN echo second > /second\n"
            "COPY --from=one /one /one\nARG LAST=1\nRUN echo $LAST > /last; cat /one /second >> /last\n"
        )
        self.img = Img(folder / "state", folder / "home")
        self.img.build(self.context, "--cache-to", f"type=local,dest={folder / 'cache'},mode=max", env=EPOCH)
        self._known: dict[tuple[str, ...], Plain] = {}

    def plain(self, *args: str) -> Plain:
        """Builds without a cache, once."""
        if args not in self._known:
            self.img.build(self.context, "--no-cache", *args, env=EPOCH)
            self._known[args] = Plain(digest=self.img.image().digest, records=records(self.img.state))
        return self._known[args]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory, busybox_image: str) -> Iterator[Elsewhere]:
    machine = Elsewhere(tmp_path_factory.mktemp("elsewhere"), busybox_image)
    yield machine
    hosts.remove_tree(machine.img.state)


@pytest.fixture
def stages(elsewhere: Elsewhere) -> Path:
    """A build that always comes out the same."""
    return elsewhere.context


@pytest.fixture
def cache(elsewhere: Elsewhere, tmp_path: Path) -> CacheFolder:
    """What another machine wrote of that build."""
    return CacheFolder(elsewhere.folder / "cache").copy(tmp_path / "cache")


@pytest.fixture
def server() -> Iterator[FaultyRegistry]:
    with FaultyRegistry() as running:
        yield running


def serve(server: FaultyRegistry, cache: CacheFolder) -> str:
    """Has a registry serve a cache; gives its reference."""
    document = parse(json.dumps(cache.manifest).encode(), "", where="cache")
    assert isinstance(document, Manifest)
    server.add(document, cache.blobs(), tag="latest")
    return f"{server.host}/cache"


def same_as_without(img: Img, elsewhere: Elsewhere, source: str, *args: str) -> None:
    """Builds with a cache that is no good: all must be as it is without one, in the store too."""
    outcome = img.build(elsewhere.context, "--cache-from", source, *args, env=EPOCH)
    plain = elsewhere.plain(*args)
    assert outcome.stderr.count(LEFT_OUT) == 1, str(outcome)
    assert img.image().digest == plain.digest
    assert records(img.state) <= plain.records
    img.build(elsewhere.context, *args, env=EPOCH)
    assert img.image().digest == plain.digest


# ---- lies --------------------------------------------------------------------------------------


def of_second(document: Document) -> Document:
    return next(r for r in document["records"] if "/second" in r["title"] and "$LAST" not in r["title"])


def lie_about_content(cache: CacheFolder) -> None:
    cache.rewrite(lambda document: of_second(document).update(content="blake3:" + "0" * 64))


def lie_with_the_content_of_another(cache: CacheFolder) -> None:
    content = cache.record("/first")["content"]
    cache.rewrite(lambda document: of_second(document).update(content=content))


def lie_about_the_diff_id(cache: CacheFolder) -> None:
    cache.rewrite(lambda document: of_second(document).update(diff_id=digest_of(b"something else")))


def lie_about_the_size(cache: CacheFolder) -> None:
    cache.rewrite(lambda document: of_second(document).update(tar_bytes=1 << 40))


def give_another_layer(cache: CacheFolder) -> None:
    layer = cache.record("/first")["layer"]
    cache.rewrite(lambda document: of_second(document).update(layer=layer))


def break_the_blob(cache: CacheFolder) -> None:
    path = cache.path(cache.record("/second")["layer"]["digest"])
    data = path.read_bytes()
    path.write_bytes(data[:-9] + bytes(byte ^ 1 for byte in data[-9:]))


def cut_the_blob(cache: CacheFolder) -> None:
    path = cache.path(cache.record("/second")["layer"]["digest"])
    path.write_bytes(path.read_bytes()[:-10])


def lengthen_the_blob(cache: CacheFolder) -> None:
    path = cache.path(cache.record("/second")["layer"]["digest"])
    path.write_bytes(path.read_bytes() + bytes(1 << 20))


def lose_the_blob(cache: CacheFolder) -> None:
    cache.path(cache.record("/second")["layer"]["digest"]).unlink()


def put_a_folder_in_its_place(cache: CacheFolder) -> None:
    lose_the_blob(cache)
    cache.path(cache.record("/second")["layer"]["digest"]).mkdir()


def _replace_layer(cache: CacheFolder, tar: bytes, media_type: str = "") -> None:
    """Puts another tar in the place of a layer; every digest over it is right."""
    blob = gzip.compress(tar, mtime=0)
    digest = cache.put(blob)

    def change(document: Document) -> None:
        record = of_second(document)
        record["diff_id"] = digest_of(tar)
        record["tar_bytes"] = len(tar)
        record["layer"] |= {"digest": digest, "size": len(blob)}
        if media_type:
            record["layer"]["mediaType"] = media_type

    cache.rewrite(change)


def put_another_file_in(cache: CacheFolder) -> None:
    _replace_layer(cache, tar_of([Item(path="second", data=b"evil\n")]))


def climb_out(cache: CacheFolder) -> None:
    _replace_layer(cache, tar_of([Item(path="../../../../../evil", data=b"evil\n")]))


def hide_a_hard_link_to_what_is_below(cache: CacheFolder) -> None:
    """A layer that can only be unpacked over the layers below: no step makes one."""
    _replace_layer(cache, tar_of([Item(path="second", kind=b"1", link="bin/busybox")]))


def give_no_tar(cache: CacheFolder) -> None:
    _replace_layer(cache, b"this is no tar" * 100)


def name_a_kind_of_layer_that_nobody_knows(cache: CacheFolder) -> None:
    cache.rewrite(lambda document: of_second(document)["layer"].update(mediaType="text/html"))


LIES: list[Callable[[CacheFolder], None]] = [
    lie_about_content,
    lie_with_the_content_of_another,
    lie_about_the_diff_id,
    lie_about_the_size,
    give_another_layer,
    break_the_blob,
    cut_the_blob,
    lengthen_the_blob,
    lose_the_blob,
    put_a_folder_in_its_place,
    put_another_file_in,
    climb_out,
    hide_a_hard_link_to_what_is_below,
    give_no_tar,
    name_a_kind_of_layer_that_nobody_knows,
]


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
def test_a_cache_that_lies_changes_nothing(
    lie: Callable[[CacheFolder], None], cache: CacheFolder, elsewhere: Elsewhere, img: Img
) -> None:
    """Found out while a step needs the files, and the solve is begun again."""
    lie(cache)
    source = f"type=local,src={cache.folder}"
    same_as_without(img, elsewhere, source, "--build-arg", "LAST=2")


@pytest.mark.parametrize("lie", [lie_with_the_content_of_another, break_the_blob, put_another_file_in])
def test_a_lie_that_no_step_needs_is_found_before_the_image_has_a_name(
    lie: Callable[[CacheFolder], None], cache: CacheFolder, elsewhere: Elsewhere, img: Img
) -> None:
    lie(cache)
    same_as_without(img, elsewhere, f"type=local,src={cache.folder}")


def test_a_lie_counts_where_the_caller_says_so(cache: CacheFolder, stages: Path, make_img: MakeImg) -> None:
    lie_about_content(cache)
    source = f"type=local,src={cache.folder},ignore-error=false"
    outcome = make_img().fails(3, "build", "--cache-from", source, stages, env=EPOCH)
    assert "is not what" in outcome.stderr


def test_an_honest_cache_helps_where_another_lies(
    cache: CacheFolder, stages: Path, make_img: MakeImg, tmp_path: Path
) -> None:
    honest = cache.copy(tmp_path / "honest")
    lie_about_content(cache)
    b = make_img()
    both = [f"type=local,src={folder}" for folder in (cache.folder, honest.folder)]
    outcome = b.build(stages, *(word for place in both for word in ("--cache-from", place)), env=EPOCH)
    assert LEFT_OUT in outcome.stderr
    again = b.build(stages, "--cache-from", both[1], env=EPOCH)
    assert steps_run(again) == []


def test_a_record_is_written_only_where_all_that_it_names_was_seen(
    cache: CacheFolder, stages: Path, make_img: MakeImg
) -> None:
    """The COPY names stage `one` by a content that nobody here looked at: it is known here by no record."""
    b = make_img()
    b.build(stages, "--cache-from", f"type=local,src={cache.folder}", env=EPOCH)
    known = {key for key, _, _ in records(b.state)}
    titles = {r["title"] for r in cache.document["records"] if r["key"] not in known}
    assert any("one" in title and "copy" in title.lower() for title in titles)
    assert not any("/first" in title for title in titles)


# ---- documents ---------------------------------------------------------------------------------

DOCUMENTS = {
    "nothing": b"",
    "a web page": b"<!DOCTYPE html><html><body>502 Bad Gateway</body></html>",
    "another version": b'{"version":2,"records":[],"mounts":[]}',
    "no list": b'{"version":1,"records":{"a":1}}',
    "numbers for words": b'{"version":1,"records":[{"key":7}]}',
    "a key that is none": b'{"version":1,"records":[{"key":"../../etc/passwd"}]}',
    "a path for a diff ID": json.dumps(
        {
            "version": 1,
            "records": [{"key": "a" * 64, "diff_id": "sha256:../../x", "content": "blake3:" + "0" * 64}],
        }
    ).encode(),
    "deep": b'{"version":1,"records":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a huge number": b'{"version":1,"records":[{"key":"'
    + b"a" * 64
    + b'","tar_bytes":'
    + b"9" * 5000
    + b"}]}",
    "half a character": b'{"version":1,"records":[{"key":"' + b"a" * 64 + b'","title":"\xff"}]}',
    "fifty megabytes": b'{"version":1,"records":[],"x":"' + b"x" * (50 << 20) + b'"}',
}


@pytest.mark.parametrize("raw", DOCUMENTS.values(), ids=DOCUMENTS.keys())
def test_a_document_that_is_none_changes_nothing(
    raw: bytes, cache: CacheFolder, elsewhere: Elsewhere, img: Img
) -> None:
    cache.replace(raw)
    same_as_without(img, elsewhere, f"type=local,src={cache.folder}")


def test_a_folder_that_is_no_layout_changes_nothing(elsewhere: Elsewhere, img: Img, tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text("[]")
    same_as_without(img, elsewhere, f"type=local,src={tmp_path}")


# ---- registries --------------------------------------------------------------------------------


def answer_everything(server: FaultyRegistry, cache: CacheFolder, code: int, body: bytes) -> None:
    server.fail("latest", *[status(code, body)] * 20)


@pytest.mark.parametrize(
    ("code", "body"),
    [
        (200, b"<html>sign in to the wireless network</html>"),
        (500, b"oh"),
        (401, b"{}"),
        (403, b"{}"),
        (302, b""),
    ],
)
def test_a_registry_that_answers_otherwise_changes_nothing(
    code: int, body: bytes, server: FaultyRegistry, cache: CacheFolder, elsewhere: Elsewhere, img: Img
) -> None:
    ref = serve(server, cache)
    answer_everything(server, cache, code, body)
    same_as_without(img, elsewhere, ref)


def test_a_registry_that_is_not_there_changes_nothing(elsewhere: Elsewhere, img: Img) -> None:
    with FaultyRegistry() as gone:
        ref = f"{gone.host}/cache"
    same_as_without(img, elsewhere, ref)


def test_a_registry_that_always_stops_in_the_middle_of_a_blob_changes_nothing(
    server: FaultyRegistry, cache: CacheFolder, elsewhere: Elsewhere, img: Img
) -> None:
    ref = serve(server, cache)
    for record in cache.document["records"]:
        if "layer" in record:
            server.fail(record["layer"]["digest"], *[cut(after=10)] * 50)
    server.ranges = False
    same_as_without(img, elsewhere, ref, "--build-arg", "LAST=2")


def test_a_registry_that_stops_once_is_taken_up_again(
    server: FaultyRegistry, cache: CacheFolder, stages: Path, make_img: MakeImg
) -> None:
    ref = serve(server, cache)
    for record in cache.document["records"]:
        if "layer" in record:
            server.fail(record["layer"]["digest"], cut(after=10))
    outcome = make_img().build(stages, "--cache-from", ref, env=EPOCH)
    assert steps_run(outcome) == []
    assert LEFT_OUT not in outcome.stderr


@pytest.mark.parametrize(
    "answer", [status(404), status(500), status(200, b"<html>")], ids=["404", "500", "html"]
)
def test_a_registry_that_lost_its_blobs_changes_nothing(
    answer: Fault, server: FaultyRegistry, cache: CacheFolder, elsewhere: Elsewhere, img: Img
) -> None:
    ref = serve(server, cache)
    for record in cache.document["records"]:
        if "layer" in record:
            server.fail(record["layer"]["digest"], *[answer] * 50)
    same_as_without(img, elsewhere, ref, "--build-arg", "LAST=2")


def test_an_import_that_fails_fails_the_build_where_that_is_wanted(
    server: FaultyRegistry, cache: CacheFolder, stages: Path, make_img: MakeImg
) -> None:
    ref = serve(server, cache)
    answer_everything(server, cache, 500, b"")
    source = f"type=registry,ref={ref},ignore-error=false"
    outcome = make_img().fails(3, "build", "--cache-from", source, stages)
    assert ref in outcome.stderr


# ---- writing -----------------------------------------------------------------------------------


def test_an_export_that_fails_fails_the_build_once_it_has_a_name(
    stages: Path, make_img: MakeImg, registry: Registry
) -> None:
    img = make_img()
    with Between(int(registry.host.rpartition(":")[2])) as between:
        # An upload may be begun, which is all that can be asked beforehand.
        between.spoil(method="PUT", path="/manifests/", status=403, times=99)
        cache = f"127.0.0.1:{between.port}/failing/cache"
        outcome = img.fails(3, "build", "-t", "t", "--cache-to", cache, stages, env=EPOCH)
    assert cache in outcome.stderr
    assert img.image().text("first") == "first\n"


def test_an_export_that_fails_may_be_ignored(stages: Path, make_img: MakeImg, server: FaultyRegistry) -> None:
    to = f"type=registry,ref={server.host}/cache,ignore-error=true"
    outcome = make_img().build(stages, "--cache-to", to, env=EPOCH)
    assert outcome.stderr.count("this cache is not written") == 1


def test_an_export_without_credentials_is_refused_and_says_so(
    stages: Path, make_img: MakeImg, tmp_path: Path
) -> None:
    with Registry(tmp_path / "registry", htpasswd=f"me:{SECRET_HASH}\n") as guarded:
        to = f"type=registry,ref={guarded.host}/cache"
        outcome = make_img().fails(3, "build", "--cache-to", to, stages, env=EPOCH)
        assert "log in" in outcome.stderr
        imported = make_img().build(stages, "--cache-from", to, env=EPOCH)
        assert LEFT_OUT in imported.stderr


def test_credentials_of_the_registry_are_those_of_the_cache(
    stages: Path, make_img: MakeImg, tmp_path: Path
) -> None:
    with Registry(tmp_path / "registry", htpasswd=f"me:{SECRET_HASH}\n") as guarded:
        ref = f"{guarded.host}/cache"
        a, b = make_img(), make_img()
        for img in (a, b):
            (img.home / ".docker").mkdir()
            auths = {guarded.host: {"auth": base64.b64encode(b"me:secret").decode()}}
            (img.home / ".docker" / "config.json").write_text(json.dumps({"auths": auths}))
        a.build(stages, "--cache-to", f"type=registry,ref={ref},mode=max", env=EPOCH)
        outcome = b.build(stages, "--cache-from", ref, env=EPOCH)
        assert steps_run(outcome) == []
        assert "secret" not in outcome.text


def test_a_folder_that_cannot_be_written_fails_the_export(
    stages: Path, make_img: MakeImg, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    to = f"type=local,dest={tmp_path / 'file'}"
    outcome = make_img().fails(3, "build", "--cache-to", to, stages, env=EPOCH)
    assert "Not a directory" in outcome.stderr
