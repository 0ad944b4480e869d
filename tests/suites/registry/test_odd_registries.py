"""Registries of the field, each with the oddity that it is known for: a pull and a push come to their end.

`Field` is a whole registry in memory; a test gives it the oddity. What a registry says of what went wrong is
told, and where to look.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
from collections.abc import Callable, Iterator

import pytest
from img.errors import InvalidDocument, NotFound, RegistryError, TooManyRequests, Unauthorized
from img.oci import Reference, sha256
from img.progress import Note
from img.registry import Credentials, Place, Upload, push

from tests.suites.registry.conftest import Connect, Known
from tests.suites.registry.images import Bits, Folder, make_image
from tests.suites.registry.servers import Call, FaultyRegistry, Server, status

pytestmark = pytest.mark.once

PART = 1 << 20
Oddity = Callable[["Field", Call], bool]
"""Answers a request in its own way; False where it leaves it to the registry."""


class Field(Server):
    """A registry that can be read and written, with oddities that come before it."""

    def __init__(self) -> None:
        super().__init__()
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.uploads: dict[str, bytes] = {}
        self.oddities: list[Oddity] = []
        self.headers: dict[str, str] = {}
        self._numbers = itertools.count(1)

    @property
    def ref(self) -> Reference:
        return Reference.parse(f"{self.host}/team/app:v1")

    def serve(self, call: Call) -> None:
        if not any(oddity(self, call) for oddity in self.oddities):
            kind, _, name = call.path.removeprefix("/v2/team/app/").partition("/")
            {"blobs": self._blob, "manifests": self._manifest, "tags": self._tags}[kind](call, name)

    def _manifest(self, call: Call, name: str) -> None:
        if call.method == "PUT":
            digest = sha256(call.body)
            for key in (name, digest):
                self.manifests[key] = (call.headers["Content-Type"], call.body)
            call.answer(201, b"", {"Docker-Content-Digest": digest, **self.headers})
        elif name in self.manifests:
            kind, raw = self.manifests[name]
            described = {"Content-Type": kind, "Docker-Content-Digest": sha256(raw), **self.headers}
            call.answer(200, raw, {"Content-Length": str(len(raw)), **described})
        else:
            refuse(call, 404, "MANIFEST_UNKNOWN", "manifest unknown")

    def _tags(self, call: Call, name: str) -> None:
        tags = [name for name in self.manifests if ":" not in name]
        call.answer(200, json.dumps({"tags": tags}).encode(), self.headers)

    def _blob(self, call: Call, name: str) -> None:
        upload = name.removeprefix("uploads/")
        if call.method in ("GET", "HEAD") and upload == name:
            found = self.blobs.get(name)
            call.answer(404 if found is None else 200, found or b"")
        elif call.method == "POST":
            number = str(next(self._numbers))
            self.uploads[number] = b""
            call.answer(202, b"", self.stand(number))
        elif upload not in self.uploads:
            call.answer(404)
        elif call.method == "PATCH":
            self.uploads[upload] += call.body
            call.answer(202, b"", self.stand(upload))
        elif call.method == "GET":
            call.answer(204, b"", self.stand(upload))
        elif call.method == "DELETE":
            del self.uploads[upload]
            call.answer(204)
        else:
            self.close(call, upload)

    def close(self, call: Call, upload: str) -> None:
        content, digest = self.uploads.pop(upload) + call.body, call.fields["digest"][0]
        if sha256(content) != digest:
            refuse(call, 400, "DIGEST_INVALID", "the blob is not its digest")
            return
        self.blobs[digest] = content
        call.answer(201, b"", {"Docker-Content-Digest": digest})

    def stand(self, number: str) -> dict[str, str]:
        last = max(0, len(self.uploads[number]) - 1)
        return {"Location": f"/v2/team/app/blobs/uploads/{number}", "Range": f"0-{last}"}


def refuse(call: Call, code: int, name: str, message: str, **headers: str) -> bool:
    """Answers as the specification has errors."""
    paper = {"errors": [{"code": name, "message": message}]}
    given = {key.replace("_", "-"): value for key, value in headers.items()}
    call.answer(code, json.dumps(paper).encode(), {"Content-Type": "application/json", **given})
    return True


def page(call: Call, code: int) -> bool:
    """Answers as a proxy does, for people."""
    call.answer(code, b"<html><h1>nginx</h1></html>", {"Content-Type": "text/html"})
    return True


@pytest.fixture
def field() -> Iterator[Field]:
    with Field() as running:
        yield running


# ---- uploads ------------------------------------------------------------------------------------------


def stuck_range(field: Field, call: Call) -> bool:
    """ECR: 201, a Range that stands at the first part for good, and nobody to ask where an upload stands."""
    if call.method == "GET" and "/uploads/" in call.path:
        return refuse(call, 405, "UNSUPPORTED", "The operation is unsupported.")
    if call.method != "PATCH":
        return False
    number = call.path.rpartition("/")[2]
    first = len(field.uploads[number]) or len(call.body)
    field.uploads[number] += call.body
    call.answer(201, b"", {**field.stand(number), "Range": f"0-{min(first, PART) - 1}"})
    return True


def last_part_alone(field: Field, call: Call) -> bool:
    """A Range that is of the last part, and not of the upload."""
    if call.method != "PATCH":
        return False
    number = call.path.rpartition("/")[2]
    field.uploads[number] += call.body
    call.answer(202, b"", {**field.stand(number), "Range": f"0-{len(call.body) - 1}"})
    return True


def short_requests(field: Field, call: Call) -> bool:
    """GHCR: 416 for a part that is longer than it likes."""
    if call.method == "PATCH" and call.headers["Content-Range"] and len(call.body) > PART // 2:
        return refuse(call, 416, "REQUESTED_RANGE_NOT_SATISFIABLE", "the request body is too large")
    return False


def one_part(field: Field, call: Call) -> bool:
    """One PATCH for an upload, as docker sends it; the second is out of its range."""
    if call.method == "PATCH" and field.uploads.get(call.path.rpartition("/")[2]):
        return refuse(call, 416, "RANGE_INVALID", "invalid content range")
    return False


def no_parts(field: Field, call: Call) -> bool:
    return call.method == "PATCH" and refuse(call, 405, "UNSUPPORTED", "no parts")


def no_empty_end(field: Field, call: Call) -> bool:
    """Fails at an end that brings no bytes."""
    return call.method == "PUT" and not call.body and refuse(call, 500, "UNKNOWN", "internal error")


def long_parts(field: Field, call: Call) -> bool:
    """ECR: parts too short for the storage are found out at the end."""
    return call.method == "PUT" and not call.body and refuse(call, 400, "BLOB_UPLOAD_INVALID", "too small")


ODDITIES = (stuck_range, last_part_alone, short_requests, one_part, no_parts, no_empty_end, long_parts)


@pytest.mark.parametrize("oddity", ODDITIES)
def test_a_registry_that_is_used_to_one_part_gets_a_long_blob_whole(
    connect: Connect, field: Field, oddity: Oddity
) -> None:
    field.oddities = [oddity]
    bits = make_image(5 * PART, 4 * PART)
    registry = connect(part_bytes=PART, backoff_seconds=0.0001)
    for layer in bits.layers:
        asked = len(field.seen("PATCH"))
        made = registry.push_blob(field.ref, layer, lambda layer=layer: bits.open(layer))  # type: ignore[misc]
        assert made is Upload.SENT and field.blobs[layer.digest] == bits.blobs[layer.digest]
    assert len(field.seen("PATCH")) == asked <= 15, "what it takes was learned from the first blob"


@pytest.mark.parametrize(
    "location", ["{n}?_state=a%2Bb", "http://{here}/{path}/{n}?q=", "http://{away}/{path}/{n}?sig=s"]
)
def test_an_upload_goes_where_it_is_sent_and_credentials_stay(
    connect: Connect, field: Field, location: str
) -> None:
    with Field() as storage:
        target = storage if "{away}" in location else field
        path = "v2/team/app/blobs/uploads"

        def sent_on(field: Field, call: Call) -> bool:
            if call.method != "POST":
                return False
            target.uploads[number := str(next(field._numbers))] = b""
            to = location.format(n=number, here=field.host, away=storage.host, path=path)
            call.answer(202, b"", {"Location": to})
            return True

        field.oddities = [guard('Basic realm="r"', takes=BASIC), sent_on]
        bits = make_image(3 * PART, 10)
        for layer in bits.layers:
            connect(ROBOT, part_bytes=PART).push_blob(field.ref, layer, lambda layer=layer: bits.open(layer))  # type: ignore[misc]
            assert target.blobs[layer.digest] == bits.blobs[layer.digest]
        assert not any(call.authorization for call in storage.calls)


def test_a_digest_of_another_kind_in_a_header_is_no_contradiction(connect: Connect, field: Field) -> None:
    field.headers["Docker-Content-Digest"] = "sha512:" + "a" * 128
    bits = make_image(10)
    assert push(connect(), field.ref, bits.manifest, bits.open) == bits.manifest.digest
    assert connect().head(field.ref) == bits.manifest.descriptor


def test_a_registry_that_wants_parts_gets_a_short_blob_in_one(connect: Connect, field: Field) -> None:
    def no_bodies(field: Field, call: Call) -> bool:
        return call.method == "PUT" and bool(call.body) and refuse(call, 405, "UNSUPPORTED", "PATCH it")

    field.oddities = [no_bodies]
    layer = (bits := make_image(1000)).layers[0]
    connect().push_blob(field.ref, layer, lambda: bits.open(layer))
    assert field.blobs == {layer.digest: bits.blobs[layer.digest]}
    assert len(field.seen("PATCH")) == 1


def test_a_registry_that_knows_no_head_is_asked_by_get(connect: Connect, field: Field) -> None:
    def no_head(field: Field, call: Call) -> bool:
        return call.method == "HEAD" and refuse(call, 405, "UNSUPPORTED", "")

    field.oddities = [no_head]
    registry, bits = connect(), make_image(1000, 2000)
    assert registry.head(field.ref) is None
    push(registry, field.ref, bits.manifest, bits.open)
    assert registry.head(field.ref) == bits.manifest.descriptor


def test_what_the_registry_says_of_a_refused_push_is_told_with_what_to_do(
    connect: Connect, field: Field
) -> None:
    said: list[tuple[str, int, str, str]] = []

    def refusing(field: Field, call: Call) -> bool:
        method, code, name, message = said[0]
        return call.method == method and refuse(call, code, name, message)

    def told(method: str, code: int, name: str, message: str) -> RegistryError:
        said[:] = [(method, code, name, message)]
        bits = make_image(100, seed=code)
        with pytest.raises(RegistryError) as caught:
            push(connect(attempts=1), field.ref, bits.manifest, bits.open, jobs=1)
        assert message in str(caught.value) and name in str(caught.value)
        return caught.value

    field.oddities = [refusing]
    # ECR: no repository is made by a push, and tags may not move.
    absent = told("POST", 404, "NAME_UNKNOWN", "The repository with name 'team/app' does not exist")
    assert "no place for" in str(absent) and "created there" in absent.hint
    told("PUT", 400, "TAG_INVALID", "The image tag 'v1' already exists and cannot be overwritten")
    # Harbor: a project that is full.
    told("PUT", 412, "DENIED", "adding 1.2 MiB of storage resource will exceed the configured upper limit")
    # nginx before a registry: a page for people, and no error of the specification.
    field.oddities = [lambda field, call: call.method == "PUT" and page(call, 413)]
    layer = (bits := make_image(100, seed=9)).layers[0]
    with pytest.raises(RegistryError, match="too long") as caught:
        connect().push_blob(field.ref, layer, lambda: bits.open(layer))
    assert "client_max_body_size" in caught.value.hint and "html" not in str(caught.value)


# ---- what is read -------------------------------------------------------------------------------------


def test_what_a_registry_warns_of_is_told_once(connect: Connect, field: Field) -> None:
    field.headers["Warning"] = (
        '299 - "Quota, at 9\\"1 %", 299 other "not for people", 110 - "old", 299 - "Moves\x1b[2J on Monday"'
    )
    events: list[object] = []
    registry, bits = connect(progress=events.append), make_image(10)
    push(registry, field.ref, bits.manifest, bits.open)
    registry.manifest(field.ref)
    registry.tags(field.ref)
    told = [e.text for e in events if isinstance(e, Note) and e.level == "warning"]
    assert told == [f'{field.host} says: Quota, at 9"1 %', f"{field.host} says: Moves [2J on Monday"]


def test_a_warning_that_repeats_the_password_is_not_told(connect: Connect, field: Field) -> None:
    def guarded(field: Field, call: Call) -> bool:
        if call.authorization:
            return False
        call.answer(401, b"", {"WWW-Authenticate": 'Basic realm="r"'})
        return True

    field.oddities, field.headers["Warning"] = [guarded], '299 - "your hunter2 is weak"'
    events: list[object] = []
    with pytest.raises(NotFound):
        connect(Known("ali", "hunter2"), progress=events.append).manifest(field.ref)
    connect(Known("ali", "hunter2"), progress=events.append).tags(field.ref)
    assert not [e for e in events if isinstance(e, Note) and e.level == "warning"]


def test_tags_of_a_registry_that_refuses_long_pages_come_all_the_same(connect: Connect, field: Field) -> None:
    def short_pages(field: Field, call: Call) -> bool:
        asked = int(call.fields.get("n", ["10"])[0])
        return asked > 100 and refuse(call, 400, "PAGINATION_NUMBER_INVALID", "invalid number of results")

    field.oddities, field.manifests["v1"] = [short_pages], ("any", b"{}")
    assert connect().tags(field.ref) == ["v1"]


def test_a_next_page_under_an_address_of_the_inside_is_asked_for_here(connect: Connect, field: Field) -> None:
    def pages(field: Field, call: Call) -> bool:
        if not call.path.endswith("/list") or "last" in call.query:
            return False
        link = '<http://nexus.internal:8081/repository/docker/v2/team/app/tags/list?n=1&last=a>; rel="next"'
        call.answer(200, b'{"tags": ["a"]}', {"Link": link})
        return True

    field.oddities, field.manifests["v1"] = [pages], ("any", b"{}")
    assert connect().tags(field.ref) == ["a", "v1"]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("application/xml", b"<Error><Code>AccessDenied</Code></Error>"),
        ("text/plain", b"token=s3cr+t/of-ours is too old"),
        ("application/json", b'{"message": "s3cr%2Bt%2Fof-ours is too old"}'),
    ],
)
def test_storage_that_refuses_is_not_taken_for_the_registry(
    connect: Connect, field: Field, folder: Folder, kind: str, said: bytes
) -> None:
    with FaultyRegistry() as storage:
        layer = make_image(100).layers[0]
        storage.fail("sig", status(403, said, Content_Type=kind))

        def moved(field: Field, call: Call) -> bool:
            call.answer(307, b"", {"Location": f"http://{storage.host}/sig?token=s3cr%2Bt%2Fof-ours"})
            return True

        field.oddities = [moved]
        with pytest.raises(Unauthorized) as caught:
            connect(Known("ali", "pw")).blob(field.ref, layer, folder.open(layer))
    text = f"{caught.value} {caught.value.hint}"
    assert f"{storage.host}, where {field.host} sends to, refuses access to blob" in text
    assert "log in" not in text and "s3cr" not in text


def test_a_host_that_is_sent_to_and_cannot_be_reached_is_told_with_who_sends(
    connect: Connect, field: Field
) -> None:
    def moved(field: Field, call: Call) -> bool:
        call.answer(307, b"", {"Location": "http://127.0.0.1:1/portal"})
        return True

    field.oddities = [moved]
    with pytest.raises(RegistryError, match=f"127.0.0.1:1: connection refused; {field.host} sends there"):
        connect(attempts=1).manifest(field.ref)


def test_a_page_in_the_place_of_an_answer_is_told_as_one(connect: Connect, field: Field) -> None:
    field.oddities = [lambda field, call: page(call, 200)]
    for ask in (connect().manifest, connect().tags):
        with pytest.raises(InvalidDocument, match="answers with a web page"):
            ask(field.ref)


def test_a_kind_of_manifest_that_nobody_knows_is_named(connect: Connect, field: Field) -> None:
    kind = "application/vnd.oci.artifact.manifest.v1+json"
    field.manifests["v1"] = (kind, json.dumps({"mediaType": kind, "blobs": []}).encode())
    with pytest.raises(InvalidDocument, match=re.escape(f"{kind!r}, unknown here")):
        connect().manifest(field.ref)


def test_a_refusal_in_plain_words_is_not_taken_for_a_wish_for_tls(connect: Connect, field: Field) -> None:
    def plainly(field: Field, call: Call) -> bool:
        call.answer(400, b"Not Authorized\nto do so\n", {"Content-Type": "text/plain; charset=utf-8"})
        return True

    field.oddities = [plainly]
    with pytest.raises(RegistryError, match=r"it says: Not Authorized \(GET http://.*HTTP 400"):
        connect().manifest(field.ref)


def test_docker_hubs_limit_is_told_in_its_own_words(connect: Connect, field: Field) -> None:
    said = "You have reached your unauthenticated pull rate limit. https://www.docker.com/increase-rate-limit"
    field.oddities = [lambda field, call: refuse(call, 429, "TOOMANYREQUESTS", said)]
    with pytest.raises(TooManyRequests, match=re.escape(said)) as caught:
        connect(attempts=2).manifest(field.ref)
    assert "log in" in caught.value.hint


# ---- ways in ------------------------------------------------------------------------------------------


def guard(*challenges: str, takes: str) -> Oddity:
    """Wants an Authorization, and asks for it in these words."""

    def oddity(field: Field, call: Call) -> bool:
        if call.path == "/token":
            return False
        if call.authorization == takes:
            return False
        call.begin(401, {"Content-Length": "0", **dict(zip(_VARIANTS, challenges, strict=False))})
        return True

    return oddity


_VARIANTS = ("WWW-Authenticate", "www-authenticate", "Www-Authenticate")
"""One header that comes several times, for a test's mapping of names."""
BASIC = "Basic " + base64.b64encode(b"robot$team+ci:p\xc3\xa4ss:word").decode()
ROBOT = Known("robot$team+ci", "päss:word")


@pytest.mark.parametrize(
    "challenges",
    [
        (),  # a proxy that lost it
        ("basic realm=Harbor",),
        ("Negotiate", 'Basic realm="a \\"quoted\\", realm", charset="UTF-8"'),
        ("NTLM TlRMTVNTUAABAAAAt4II4gA==", 'Digest qop="auth",nonce=abc', "BASIC realm='x'"),
    ],
)
def test_whatever_words_ask_for_a_password_get_it(
    connect: Connect, field: Field, challenges: tuple[str, ...]
) -> None:
    field.oddities = [guard(*challenges, takes=BASIC)]
    bits = make_image(10)
    push(connect(ROBOT), field.ref, bits.manifest, bits.open)
    assert connect(ROBOT).manifest(field.ref) == bits.manifest
    with pytest.raises(Unauthorized):
        connect().manifest(field.ref)
    with pytest.raises(Unauthorized):
        connect(Known("robot$team+ci", "wrong")).manifest(field.ref)


@pytest.mark.parametrize("code", [401, 403, 404])
def test_what_is_hidden_from_nobody_is_asked_for_as_the_base_says(
    connect: Connect, field: Field, code: int
) -> None:
    """Artifactory hides what there is; others speak of a way in at their base alone, which docker asks."""

    def hide(field: Field, call: Call) -> bool:
        if call.path == "/v2/":
            call.answer(401, b"", {"WWW-Authenticate": 'Basic realm="r"'})
        elif call.authorization != BASIC:
            call.answer(code)
        return call.path == "/v2/" or call.authorization != BASIC

    field.oddities = [hide]
    registry, bits = connect(ROBOT), make_image(10, 20, 30)
    push(registry, field.ref, bits.manifest, bits.open)
    assert connect(ROBOT).head(field.ref) == bits.manifest.descriptor
    assert len(field.seen("GET", "/v2/")) == 2, "each client asks once"
    with pytest.raises((NotFound, Unauthorized)):
        connect().manifest(field.ref)
    assert len(field.seen("GET", "/v2/")) == 2, "who has nothing to show asks for no way in"


class TestTokens:
    @pytest.fixture
    def papers(self) -> list[tuple[int, bytes]]:
        """What the token server answers, the last of them for good."""
        return [(200, b'{"token":"t"}')]

    @pytest.fixture
    def bearer(self, field: Field, papers: list[tuple[int, bytes]]) -> Field:
        """A registry whose base names a scope of its own, as GHCR's does, and a token server beside it."""

        def sell(field: Field, call: Call) -> bool:
            if call.path == "/token":
                code, body = papers[0] if len(papers) == 1 else papers.pop(0)
                call.answer(code, body)
            elif call.path == "/v2/":
                call.answer(200, b"{}")
            return call.path in ("/token", "/v2/")

        asks = f'Bearer realm="http://{field.host}/token",service=field,scope="repository:user/image:pull"'
        field.oddities = [guard(asks, takes="Bearer t"), sell]
        return field

    def test_a_login_asks_for_no_scope_whatever_the_base_names(self, connect: Connect, bearer: Field) -> None:
        done = connect().login(Place.parse(bearer.host), Credentials(username="ali", password="ghp_x"))
        assert done.checked
        (asked,) = bearer.seen("GET", "/token")
        assert "scope" not in asked.fields and asked.fields["service"] == ["field"]

    @pytest.mark.parametrize(
        ("paper", "words"),
        [
            (b'{"details":"incorrect username or password"}', "incorrect username or password"),
            (b'{"error":"invalid_grant","error_description":"token expired"}', "token expired"),
            (b'{"errors":[{"code":"DENIED","message":"denied"}]}', "denied"),
            (b'{"message":{"text":"?"},"error":7}', ""),
            (b"<html>", ""),
        ],
    )
    def test_what_a_token_server_says_is_told(
        self, connect: Connect, bearer: Field, papers: list[tuple[int, bytes]], paper: bytes, words: str
    ) -> None:
        papers[:] = [(401, paper)]
        with pytest.raises(Unauthorized) as caught:
            connect(Known("ali", "pw-4711")).manifest(bearer.ref)
        assert (f"it says: {words}" in str(caught.value)) is bool(words)
        assert "log in again" in caught.value.hint and "pw-4711" not in f"{caught.value!r}"

    def test_a_challenge_without_a_place_is_told_as_such(self, connect: Connect, field: Field) -> None:
        field.oddities = [guard('Bearer service="x"', takes="never")]
        with pytest.raises(RegistryError, match="does not say where one is to be had"):
            connect().manifest(field.ref)


def test_an_image_goes_through_every_oddity_at_once(connect: Connect, field: Field, folder: Folder) -> None:
    field.oddities = [guard(takes=BASIC), stuck_range, short_requests]
    bits: Bits = make_image(3 * PART, 0, 10, repeat=True)
    registry = connect(ROBOT, part_bytes=PART)
    push(registry, field.ref, bits.manifest, bits.open)
    from img.registry import fetch

    fetch(registry, field.ref, list(bits.layers), folder.open)
    assert folder.holds(bits)
