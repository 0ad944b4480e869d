"""Referrers: as a registry lists them, and as clients do under a tag where it does not."""

from __future__ import annotations

import io
import itertools
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from urllib.parse import parse_qs, urlencode

import pytest
from img.engine import referring
from img.engine.referring import Referrer, flat, referrers_of
from img.errors import InvalidDocument, RegistryError, UsageError
from img.oci import Descriptor, Index, Manifest, Reference, parse
from img.oci.descriptor import OCI_EMPTY, OCI_INDEX, sha256
from img.oci.manifest import dump
from img.registry import Registry
from img.registry.referrers import Referrers, tag_of

from tests.suites.registry.conftest import Connect
from tests.suites.registry.images import make_image
from tests.suites.registry.servers import Call, DockerRegistry, FaultyRegistry, Server, status

SBOM, SIGNATURE = "application/spdx+json", "application/vnd.example.signature"


def about(subject: Descriptor, kind: str, **annotations: str) -> Manifest:
    """An artifact without files."""
    empty = Descriptor(media_type=OCI_EMPTY, digest=sha256(b"{}"), size=2)
    return Manifest.make(empty, [empty], artifact_type=kind, subject=subject, annotations=annotations)


class Listing(Server):
    """A registry that knows of subjects: it takes manifests, and lists referrers in pages of one entry.

    Attributes:
        filters: Whether it filters by artifact type, or leaves that to the client.
    """

    def __init__(self) -> None:
        super().__init__()
        self.filters = True
        self.stored: dict[str, Manifest | Index] = {}

    def serve(self, call: Call) -> None:
        kind, name = call.path.split("/")[-2:]
        if call.method == "PUT":
            document = parse(call.body, call.headers["Content-Type"])
            self.stored[document.digest] = document
            subject = {"OCI-Subject": document.subject.digest} if document.subject else {}
            call.answer(201, b"", subject)
        elif kind == "referrers":
            self._list(call, name)
        else:
            call.answer(404, b"{}")

    def _list(self, call: Call, subject: str) -> None:
        query = parse_qs(call.query)
        wanted = query.get("artifactType", [""])[0] if self.filters else ""
        found = [d for d in self.stored.values() if d.subject and d.subject.digest == subject]
        kinds = {d.digest: d.kind if isinstance(d, Manifest) else d.artifact_type for d in found}
        entries = [
            replace(d.descriptor, artifact_type=kinds[d.digest], annotations=d.annotations)
            for d in found
            if wanted in ("", kinds[d.digest])
        ]
        start = int(query.get("start", ["0"])[0])
        headers = {"Content-Type": OCI_INDEX}
        if wanted:
            headers["OCI-Filters-Applied"] = "artifactType"
        if start + 1 < len(entries):
            rest = urlencode({"start": start + 1, "artifactType": wanted})
            headers["Link"] = f'<{call.path}?{rest}>; rel="next"'
        call.answer(200, Index.make(entries[start : start + 1]).raw, headers)


@pytest.mark.parametrize("filters", [True, False])
def test_a_registry_s_own_list_is_read_whole_and_filtered(connect: Connect, name: str, filters: bool) -> None:
    subject = make_image().manifest.descriptor
    documents = [about(subject, kind, number=str(n)) for n, kind in enumerate([SBOM, SIGNATURE, SBOM])]
    with Listing() as server:
        server.filters = filters
        ref = Reference.parse(f"{server.host}/{name}:1")
        registry = connect()
        for document in documents:
            registry.push_manifest(replace(ref, tag=""), document.raw, document.media_type)
        found = registry.referrers(ref, subject.digest)
        assert [entry.digest for entry in found] == [document.digest for document in documents]
        assert [entry.annotations["number"] for entry in found] == ["0", "1", "2"]
        some = registry.referrers(ref, subject.digest, artifact_type=SBOM)
        assert [entry.annotations["number"] for entry in some] == ["0", "2"]
        assert registry.referrers(ref, sha256(b"nothing")) == ()
        assert not any(tag_of(subject.digest) in call.path for call in server.calls), "no list of our own"


def shape(referrers: tuple[Referrer, ...] | None) -> object:
    """A tree as its annotations `number`: what nobody asked about is None."""
    if referrers is None:
        return None
    return {each.entry.annotations["number"]: shape(each.referrers) for each in referrers}


def test_what_is_about_what_is_about_an_image_is_a_tree(
    connect: Connect, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = make_image().manifest.descriptor
    sbom, other = about(subject, SBOM, number="1"), about(subject, SIGNATURE, number="2")
    signature = about(sbom.descriptor, SIGNATURE, number="1.1")
    proof = about(signature.descriptor, SBOM, number="1.1.1")
    with Listing() as server:
        ref, registry = Reference.parse(f"{server.host}/{name}@{subject.digest}"), connect()
        for document in (sbom, other, signature, proof):
            registry.push_manifest(replace(ref, digest=""), document.raw, document.media_type)
        whole: dict[str, object] = {"1": {"1.1": {"1.1.1": {}}}, "2": {}}
        assert shape(referrers_of(registry, ref, depth=10)) == whole
        assert shape(referrers_of(registry, ref, depth=10, artifact_type=SBOM)) == {"1": whole["1"]}
        assert shape(referrers_of(registry, ref, depth=2)) == {"1": {"1.1": None}, "2": {}}
        assert shape(referrers_of(registry, ref)) == {"1": None, "2": None}
        nested = [each.to_json() for each in referrers_of(registry, ref, depth=2)]
        assert nested[0]["referrers"][0]["digest"] == signature.digest  # type: ignore[index]
        with monkeypatch.context() as patch:
            patch.setattr(referring, "MOST_ASKED", 2)
            server.calls.clear()
            assert shape(referrers_of(registry, ref, depth=10)) == {"1": {"1.1": None}, "2": None}
            assert len([call for call in server.calls if "start=" not in call.query]) == 2
        # A registry may say that what is on top is about what is below it, for ever.
        server.stored[sbom.digest] = replace(sbom, subject=proof.descriptor)
        server.stored["again"] = sbom
        found = referrers_of(registry, ref, depth=10)
        assert shape(found) == {"2": {}, "1": {"1.1": {"1.1.1": {"1": None}}}}
        with monkeypatch.context() as patch:
            patch.setattr(referring, "MOST_LISTED", 4)
            with pytest.raises(InvalidDocument, match="more than 4 manifests"):
                referrers_of(registry, ref, depth=10)


def test_a_tree_is_no_deeper_than_it_was_asked_to_be(connect: Connect, name: str) -> None:
    """A registry names all at once on top, and each below the one before: a chain, to who follows it down."""
    subject = make_image().manifest.descriptor
    count = 200
    chain = [about(subject, SBOM, number=str(number)) for number in range(count)]
    lists = {d.digest: Index.make([e.descriptor]).raw for d, e in itertools.pairwise(chain)}
    lists[subject.digest] = Index.make([document.descriptor for document in chain]).raw

    class Chained(Server):
        def serve(self, call: Call) -> None:
            raw = lists.get(call.path.rpartition("/")[2], Index.make([]).raw)
            call.answer(200, raw, {"Content-Type": OCI_INDEX})

    with Chained() as server:
        ref = Reference.parse(f"{server.host}/{name}@{subject.digest}")
        found = referrers_of(connect(), ref, depth=2)
        assert len(found) == count and max(depth for _, _, depth in flat(found, subject.digest)) == 2
        assert all(each.referrers is not None for each in found)
        for depth in (0, referring.MOST_DEPTH + 1):
            with pytest.raises(UsageError, match="from 1 to 100"):
                referrers_of(connect(), ref, depth=depth)


def test_where_a_registry_keeps_no_list_clients_keep_one(
    connect: Connect, docker: DockerRegistry, name: str
) -> None:
    bits = make_image()
    ref = Reference.parse(f"{docker.host}/{name}:1")
    registry = connect()
    subject = bits.manifest.descriptor
    for descriptor in (*bits.layers, bits.manifest.config):
        registry.push_blob(ref, descriptor, lambda d=descriptor: bits.open(d))  # type: ignore[misc]
    registry.push_manifest(ref, bits.manifest.raw, bits.manifest.media_type)
    assert registry.referrers(ref, subject.digest) == ()
    first = about(subject, SBOM, who="first")
    listing = Index.make([], subject=subject, artifact_type=SIGNATURE, annotations={"who": "second"})
    registry.push_blob(ref, first.config, lambda: io.BytesIO(b"{}"))
    for document in (first, listing, first):
        registry.push_manifest(replace(ref, tag=""), document.raw, document.media_type)
    found = registry.referrers(ref, subject.digest)
    assert [(e.digest, e.artifact_type, e.annotations["who"]) for e in found] == [
        (first.digest, SBOM, "first"),
        (listing.digest, SIGNATURE, "second"),
    ]
    kept = registry.manifest(replace(ref, tag=tag_of(subject.digest)))
    assert isinstance(kept, Index) and kept.manifests == found
    assert [e.digest for e in registry.referrers(ref, subject.digest, artifact_type=SBOM)] == [first.digest]
    registry.forget_referrer(ref, subject.digest, first.digest)
    assert [e.digest for e in registry.referrers(ref, subject.digest)] == [listing.digest]


class Contended(FaultyRegistry):
    """A registry without lists, where somebody else writes the list right after each of our writings.

    Attributes:
        rivals: How often they do so.
    """

    def __init__(self, rivals: int) -> None:
        super().__init__()
        self.rivals = rivals
        self.theirs = about(make_image().manifest.descriptor, SIGNATURE, who="else")

    def serve(self, call: Call) -> None:
        target = call.path.rpartition("/")[2]
        if call.method != "PUT":
            super().serve(call)
            return
        document = parse(call.body)
        if target.startswith("sha256-") and self.rivals:
            self.rivals -= 1
            document = Index.make([self.theirs.descriptor])
        self.add(document, tag=target)
        call.answer(201)


def test_a_list_that_others_write_at_the_same_time_is_written_again(connect: Connect, name: str) -> None:
    subject = make_image().manifest.descriptor
    mine = about(subject, SBOM)
    with Contended(3) as server:
        ref = Reference.parse(f"{server.host}/{name}@{mine.digest}")
        registry = connect()
        registry.push_manifest(ref, mine.raw, mine.media_type)
        assert {e.digest for e in registry.referrers(ref, subject.digest)} == {
            mine.digest,
            server.theirs.digest,
        }
    with Contended(99) as server:
        ref = Reference.parse(f"{server.host}/{name}@{mine.digest}")
        with pytest.raises(RegistryError, match="changed by others"):
            connect().push_manifest(ref, mine.raw, mine.media_type)
        assert server.rivals >= 90, "it ends"


class Taking(FaultyRegistry):
    """A registry without lists that takes what it is sent, and has writers of a list meet as `order` says.

    Attributes:
        order: What writers (by their User-Agent) do with the tag, in the order in which it is answered.
    """

    def __init__(self, *order: tuple[str, str]) -> None:
        super().__init__()
        self.order = list(order)
        self.done: list[tuple[str, str]] = []
        self._turn = threading.Condition()

    def serve(self, call: Call) -> None:
        if not call.path.rpartition("/")[2].startswith("sha256-"):
            self._take(call)
            return
        step = (call.headers["User-Agent"], call.method)
        with self._turn:
            assert self._turn.wait_for(lambda: step not in self.order or self.order[0] == step, 60), self.done
            self.done.append(step)
            self._take(call)
            if step in self.order:
                self.order.pop(0)
            self._turn.notify_all()

    def _take(self, call: Call) -> None:
        if call.method == "PUT":
            self.add(parse(call.body), tag=call.path.rpartition("/")[2])
            call.answer(201)
        else:
            super().serve(call)


def attach(server: Taking, registry: Registry, name: str, *documents: Manifest) -> None:
    for document in documents:
        ref = Reference.parse(f"{server.host}/{name}@{document.digest}")
        registry.push_manifest(ref, document.raw, document.media_type)


def together(*works: Callable[[], None]) -> None:
    with ThreadPoolExecutor(len(works)) as pool:
        for future in [pool.submit(work) for work in works]:
            future.result(60)


def test_two_writers_that_read_the_same_list_both_end_in_it(connect: Connect, name: str) -> None:
    subject = make_image().manifest.descriptor
    ours, theirs = about(subject, SBOM), about(subject, SIGNATURE)
    # Both have read the empty list before either writes it, and the second takes away what the first wrote.
    order = [("a", "GET"), ("b", "GET"), ("a", "PUT"), ("b", "PUT"), ("a", "GET"), ("a", "PUT")]
    with Taking(*order) as server:
        a, b = connect(user_agent="a"), connect(user_agent="b")
        together(lambda: attach(server, a, name, ours), lambda: attach(server, b, name, theirs))
        found = a.referrers(Reference.parse(f"{server.host}/{name}:1"), subject.digest)
        assert {entry.digest for entry in found} == {ours.digest, theirs.digest}
        assert not server.order and server.done.count(("a", "PUT")) == 2


def test_a_writer_waits_for_others_before_it_believes_that_it_was_the_last(
    connect: Connect, name: str
) -> None:
    subject = make_image().manifest.descriptor
    ours, theirs = about(subject, SBOM), about(subject, SIGNATURE)
    late, waited = threading.Event(), list[float]()

    def wait(seconds: float) -> None:
        waited.append(seconds)
        late.wait(60)

    with Taking(("b", "GET"), ("a", "GET"), ("a", "PUT"), ("b", "PUT")) as server:
        a, b = connect(user_agent="a"), connect(user_agent="b")

        def theirs_late() -> None:
            attach(server, b, name, theirs)
            late.set()

        patient = Referrers(a, a._pages, writing=threading.Lock(), wait=wait)
        ref = Reference.parse(f"{server.host}/{name}:1")
        together(lambda: patient.add(ref, ours), theirs_late)
        assert {e.digest for e in a.referrers(ref, subject.digest)} == {ours.digest, theirs.digest}
        assert waited and all(0 < seconds <= 2 for seconds in waited)


def test_threads_of_one_client_take_turns(connect: Connect, name: str) -> None:
    subject = make_image().manifest.descriptor
    all_of_them = [about(subject, SBOM, number=str(number)) for number in range(6)]
    with Taking() as server:
        registry = connect(user_agent="a")
        works = [partial(attach, server, registry, name, document) for document in all_of_them]
        together(*works)
        found = registry.referrers(Reference.parse(f"{server.host}/{name}:1"), subject.digest)
        assert {entry.digest for entry in found} == {document.digest for document in all_of_them}
        assert server.done.count(("a", "PUT")) == 6, "nobody took anything away"


def test_what_stands_under_the_tag_of_a_list_and_is_none_is_not_overwritten(
    connect: Connect, faulty: FaultyRegistry, name: str
) -> None:
    image = make_image().manifest
    faulty.add(image, tag=tag_of(image.digest))
    ref = Reference.parse(f"{faulty.host}/{name}:1")
    with pytest.raises(InvalidDocument, match="is none"):
        connect().referrers(ref, image.digest)
    mine = about(image.descriptor, SBOM)
    faulty.fail(mine.digest, status(201))
    with pytest.raises(InvalidDocument, match="is none"):
        connect().push_manifest(replace(ref, tag=""), mine.raw, mine.media_type)
    assert len(faulty.seen("PUT")) == 1


@pytest.mark.parametrize(
    "answer",
    [
        status(404, b"{}"),
        status(400, b"{}", Content_Type="application/json"),
        status(200, b"<html>a page of the front end</html>", Content_Type="text/html"),
        status(200, json.dumps({"schemaVersion": 2, "layers": []}).encode(), Content_Type="text/plain"),
    ],
    ids=["404", "400", "html", "no-index"],
)
def test_an_answer_that_is_no_list_leads_to_the_tag(
    connect: Connect, faulty: FaultyRegistry, name: str, answer: object
) -> None:
    subject = make_image().manifest.descriptor
    entry = replace(about(subject, SBOM).descriptor, artifact_type=SBOM)
    # One entry twice, and a subject that would have the list itself listed.
    data = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry.to_json()] * 2}
    raw = dump({**data, "subject": subject.to_json()})
    document = parse(raw)
    assert isinstance(document, Index) and document.subject == subject
    faulty.add(document, tag=tag_of(subject.digest))
    faulty.fail(subject.digest, answer)  # type: ignore[arg-type]
    ref = Reference.parse(f"{faulty.host}/{name}:1")
    assert connect().referrers(ref, subject.digest) == (entry,)


def test_a_hostile_list_is_refused(connect: Connect, faulty: FaultyRegistry, name: str) -> None:
    subject = make_image().manifest.descriptor
    ref = Reference.parse(f"{faulty.host}/{name}:1")
    bad = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [{"digest": "../x"}]})
    faulty.fail(subject.digest, status(200, bad.encode(), Content_Type=OCI_INDEX))
    with pytest.raises(InvalidDocument):
        connect().referrers(ref, subject.digest)
    faulty.fail(subject.digest, status(200, b" " * (5 << 20), Content_Type=OCI_INDEX))
    with pytest.raises(InvalidDocument, match="longer than"):
        connect().referrers(ref, subject.digest)


def test_who_changes_the_list_reads_the_registrys_own_and_no_mirrors_copy(
    connect: Connect, docker: DockerRegistry, faulty: FaultyRegistry, name: str
) -> None:
    bits, ref = make_image(1000, 1), Reference.parse(f"{docker.host}/{name}:1")
    subject, first, second = (
        bits.manifest.descriptor,
        *(about(bits.manifest.descriptor, SIGNATURE, by=by) for by in ("me", "you")),
    )
    push = connect()
    push.push_blob(ref, first.config, lambda: io.BytesIO(b"{}"))
    push.push_manifest(replace(ref, tag="", digest=first.digest), first.raw, first.media_type)
    faulty.add(Index.make(()), tag=tag_of(subject.digest))  # the mirror's copy is older

    mirrored = connect(mirrors=(f"{docker.host}=http://{faulty.host}",))
    mirrored.push_manifest(replace(ref, tag="", digest=second.digest), second.raw, second.media_type)

    assert {entry.digest for entry in push.referrers(ref, subject.digest)} == {first.digest, second.digest}
