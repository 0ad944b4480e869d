"""What a cache in the service of GitHub's Actions does besides, and what becomes of it when that fails."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path

import pytest
from img import _core
from img.cache import Reach, parse_spec
from img.cache.gha import ActionsCache, open_backend
from img.cache.parts import PART_BYTES
from img.cache.patience import Limits
from img.errors import CacheError, DigestMismatch, SizeMismatch, UsageError

from tests.suites.cache.conftest import no_registry
from tests.suites.cache.test_backends import BLOB, Bucket, descriptor, document, fetched, put, write
from tests.support.actions import SIGNATURE, Actions, token
from tests.support.between import Between

QUICK = Limits(backoff_seconds=0.001, connect_seconds=5, read_seconds=20)


@pytest.fixture
def between(actions: Actions) -> Iterator[Between]:
    """What stands between the client and the service."""
    with Between(actions.port) as proxy:
        yield proxy


def cache(
    url: str,
    accepted: str,
    *,
    limits: Limits = QUICK,
    variables: Mapping[str, str] | None = None,
    **attributes: str,
) -> ActionsCache:
    """A cache in a service, which loses little time between attempts."""
    told = ",".join(f"{name}={value}" for name, value in attributes.items())
    spec = parse_spec(f"type=gha{',' if told else ''}{told}", "to")
    given = {
        "ACTIONS_RESULTS_URL": url,
        "ACTIONS_CACHE_URL": url,
        "ACTIONS_CACHE_SERVICE_V2": "True",
        "ACTIONS_RUNTIME_TOKEN": accepted,
        **(variables or {}),
    }
    return open_backend(spec, Reach(registry=no_registry, variables=given), limits)


# ---- entries -----------------------------------------------------------------------------------


def test_entries_have_names_of_our_own(actions: Actions) -> None:
    made = cache(actions.url, actions.token, scope="app")
    blob = put(made, BLOB)
    write(made, blob, word="one")
    write(made, blob, word="two")
    first, second, third = actions.found()
    assert first == f"img-1-blob-{blob.digest}"
    assert re.fullmatch(r"img-1-index-app-[0-9a-f]{8}#1", second)
    assert third == second[:-1] + "2"


def test_scopes_are_apart(actions: Actions) -> None:
    write(cache(actions.url, actions.token, scope="one"))
    assert cache(actions.url, actions.token, scope="two").read() is None
    assert cache(actions.url, actions.token).read() is None


def test_a_branch_reads_its_own_document_before_that_of_its_base(actions: Actions) -> None:
    main = write(cache(actions.url, actions.token), word="main")
    actions.token = token(("refs/heads/topic", 3), ("refs/heads/main", 1))
    topic = cache(actions.url, actions.token)
    assert topic.read() == main
    own = write(topic, word="topic")
    assert topic.read() == own
    actions.token = token(("refs/heads/main", 3))
    assert cache(actions.url, actions.token).read() == main


def test_a_token_that_names_no_branch_leaves_it_to_the_job(actions: Actions) -> None:
    actions.token = "opaque"
    main = write(cache(actions.url, "opaque", variables={"GITHUB_REF": "refs/heads/main"}))
    pull = {"GITHUB_REF": "refs/pull/1/merge", "GITHUB_BASE_REF": "main"}
    assert cache(actions.url, "opaque", variables=pull).read() == main
    assert cache(actions.url, "opaque", variables={"GITHUB_REF": "refs/heads/other"}).read() is None


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_large_blob_goes_in_parts(actions: Actions, between: Between, version: str) -> None:
    data = os.urandom(2 * PART_BYTES + 12345)
    blob = put(cache(between.url, actions.token, version=version), data)
    method = "PATCH" if version == "1" else "PUT"
    parts = [seen.body_bytes for seen in between.seen if seen.method == method and seen.body_bytes > 1000]
    assert sorted(parts) == [12345, PART_BYTES, PART_BYTES]
    assert fetched(cache(actions.url, actions.token, version=version), blob) == data


def test_a_document_that_somebody_else_began_gets_the_next_number(actions: Actions) -> None:
    made = cache(actions.url, actions.token)
    write(made, word="one")
    stored = next(iter(actions.entries.values()))
    actions.begin(stored.key[:-1] + "2", stored.version)  # and never ended: its writer died
    raw = write(made, word="two")
    assert made.read() == raw
    assert [key[-2:] for key in actions.found()] == ["#1", "#3"]


def test_a_blob_that_somebody_else_sends_just_now_is_left_to_him(actions: Actions) -> None:
    made = cache(actions.url, actions.token)
    write(made)
    version = next(iter(actions.entries.values())).version
    actions.begin(f"img-1-blob-{descriptor(BLOB).digest}", version)
    put(made, BLOB)
    assert descriptor(BLOB).digest not in "".join(actions.found())
    with pytest.raises(CacheError, match="there is no such entry"):
        fetched(made, descriptor(BLOB))


def test_what_is_only_like_a_key_is_no_blob(actions: Actions) -> None:
    """Version 1 takes every key for a beginning."""
    made = cache(actions.url, actions.token, version="1")
    blob = put(made, BLOB)
    entry = next(iter(actions.entries.values()))
    entry.key += "-more"
    assert not made.has(blob)


def test_a_document_keeps_every_blob_that_it_names(actions: Actions, between: Between) -> None:
    blob = put(cache(actions.url, actions.token), BLOB)
    write(cache(between.url, actions.token), blob)
    assert between.count("POST", "GetCacheEntryDownloadURL") == 2  # the blob, the last document


def test_a_list_of_entries_saves_lookups(actions: Actions, between: Between) -> None:
    blobs = [put(cache(actions.url, actions.token), f"blob {n}".encode()) for n in range(120)]
    made = cache(
        between.url,
        actions.token,
        variables={"GITHUB_API_URL": between.url},
        ghtoken=actions.token,
        repository="me/app",
    )
    assert all(made.has(blob) for blob in blobs)
    assert not made.has(descriptor(BLOB))
    assert [seen.path.partition("?")[0] for seen in between.seen] == ["/repos/me/app/actions/caches"] * 2
    put(made, BLOB)
    assert made.has(descriptor(BLOB))


# ---- faults ------------------------------------------------------------------------------------


def failing(made: ActionsCache) -> CacheError:
    """The error of reading the document."""
    with pytest.raises(CacheError) as caught:
        made.read()
    return caught.value


def test_a_busy_service_is_asked_again_when_it_says(actions: Actions, between: Between) -> None:
    raw = write(cache(actions.url, actions.token))
    between.spoil(method="POST", status=429, headers={"Retry-After": "0"}, times=2)
    between.spoil(method="GET", status=503, times=2)
    assert cache(between.url, actions.token).read() == raw
    assert (between.count("POST"), between.count("GET")) == (2 + 3, 3)


def test_a_service_that_asks_for_long_patience_is_not_waited_for(actions: Actions, between: Between) -> None:
    between.spoil(status=429, headers={"Retry-After": "86400"}, times=99)
    assert "429" in failing(cache(between.url, actions.token)).reason
    assert between.count("POST") == 1


def test_a_service_that_fails_for_good_is_not_asked_for_ever(actions: Actions, between: Between) -> None:
    between.spoil(status=500, times=99)
    assert "500" in failing(cache(between.url, actions.token)).reason
    assert between.count("POST") == QUICK.attempts


def test_the_time_for_all_attempts_is_bounded(actions: Actions, between: Between) -> None:
    between.spoil(hang=True, times=99)
    error = failing(cache(between.url, actions.token, timeout="200ms"))
    assert "not done within 0.2 seconds" in error.reason


def test_nobody_listens(actions: Actions) -> None:
    error = failing(cache("http://127.0.0.1:1", actions.token))
    assert "127.0.0.1:1" in error.reason and "connection refused" in error.reason


def test_a_refused_token_is_not_shown(actions: Actions, between: Between) -> None:
    body = f'{{"code": "unauthenticated", "msg": "bad {actions.token}"}}'.encode()
    between.spoil(status=401, body=body, headers={"Content-Type": "application/json"})
    error = failing(cache(between.url, actions.token))
    assert "401" in error.reason and "expired" in error.hint
    assert actions.token not in f"{error!s} {error!r} {error.__cause__!r} {error.__context__!r}"


def test_a_token_that_may_only_read_is_an_error_of_writing(actions: Actions) -> None:
    write(cache(actions.url, actions.token))
    actions.read_only = True
    made = cache(actions.url, actions.token)
    assert made.read() == document()
    with pytest.raises(CacheError, match="cache write denied"):
        put(made, BLOB)


def test_a_server_of_the_other_version_is_told_apart(actions: Actions) -> None:
    actions.modern = False
    error = failing(cache(actions.url, actions.token))
    assert "GetCacheEntryDownloadURL" in error.reason and "version=1" in error.hint


def test_a_body_that_breaks_off_is_resumed(actions: Actions, between: Between) -> None:
    data = os.urandom(3 << 20)
    blob = put(cache(actions.url, actions.token), data)
    between.spoil(method="GET", cut=(1 << 20) + 5)
    assert fetched(cache(between.url, actions.token), blob) == data
    ranges = [seen.headers.get("Range") for seen in between.seen if seen.method == "GET"]
    assert ranges[0] is None and re.fullmatch(r"bytes=\d+-", ranges[1] or "")


def test_a_server_without_ranges_is_read_over(actions: Actions, between: Between) -> None:
    data = os.urandom(3 << 20)
    blob = put(cache(actions.url, actions.token), data)
    between.spoil(method="GET", cut=(1 << 20) + 5)
    between.spoil(method="GET", status=200, body=data)
    assert fetched(cache(between.url, actions.token), blob) == data


def test_wrong_bytes_are_refused_by_the_sink(actions: Actions, between: Between, tmp_path: Path) -> None:
    blob = put(cache(actions.url, actions.token), BLOB)
    between.spoil(method="GET", flip=True)
    sink = _core.BlobSink(str(tmp_path / "blob"), digest=blob.digest, size=blob.size)
    cache(between.url, actions.token).fetch(blob, sink)
    with pytest.raises(DigestMismatch):
        sink.finish()
    assert list(tmp_path.iterdir()) == []


def test_a_longer_entry_is_refused_unread(actions: Actions) -> None:
    blob = put(cache(actions.url, actions.token), BLOB)
    next(iter(actions.entries.values())).data += b"x"
    sink = Bucket()
    with pytest.raises(SizeMismatch):
        cache(actions.url, actions.token).fetch(blob, sink)
    assert sink.data == b""


def test_a_signed_address_is_not_shown(actions: Actions, between: Between) -> None:
    blob = put(cache(actions.url, actions.token), BLOB)
    between.spoil(method="GET", status=403, headers={"x-ms-error-code": "AuthenticationFailed"})
    with pytest.raises(CacheError) as caught:
        fetched(cache(between.url, actions.token), blob)
    assert "AuthenticationFailed" in caught.value.reason
    assert SIGNATURE not in f"{caught.value!s} {caught.value!r} {caught.value.__context__!r}"


@pytest.mark.parametrize(
    "address",
    ["file:///etc/passwd", "//", "http://[", "gopher://x/"],
    ids=["file", "none", "broken", "other"],
)
def test_a_hostile_service_names_no_file(actions: Actions, between: Between, address: str) -> None:
    body = f'{{"ok": true, "signed_download_url": "{address}", "matched_key": ""}}'.encode()
    between.spoil(status=200, body=body, times=99)
    with pytest.raises(CacheError, match="no web address"):
        fetched(cache(between.url, actions.token), descriptor(BLOB))


@pytest.mark.parametrize("body", [b"[]", b"{", b"[" * 100000, b"\xff"])
def test_an_answer_that_is_no_object_is_an_error(actions: Actions, between: Between, body: bytes) -> None:
    between.spoil(status=200, body=body, times=99)
    assert "no JSON object" in failing(cache(between.url, actions.token)).reason


@pytest.mark.parametrize("body", [b"", b"{}", b'{"ok": 1, "matched_key": 5, "signed_download_url": []}'])
def test_an_answer_without_what_it_should_have_is_no_entry(
    actions: Actions, between: Between, body: bytes
) -> None:
    between.spoil(status=200, body=body, times=99)
    assert cache(between.url, actions.token).read() is None


def test_redirects_end(actions: Actions, between: Between) -> None:
    blob = put(cache(actions.url, actions.token), BLOB)
    between.spoil(method="GET", status=302, headers={"Location": "/storage/1?again"}, times=99)
    with pytest.raises(CacheError, match="redirects"):
        fetched(cache(between.url, actions.token), blob)


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_a_stop_ends_what_waits_for_the_network(actions: Actions, between: Between, fault: str) -> None:
    blob = put(cache(actions.url, actions.token), BLOB)
    between.spoil(method="GET", times=99, **{fault: True})
    made = cache(between.url, actions.token)
    errors: list[str] = []

    def run() -> None:
        try:
            made.fetch(blob, Bucket())
        except CacheError as error:
            errors.append(error.reason)

    thread = threading.Thread(target=run)
    thread.start()
    assert between.waiting.wait(60)
    made.stop()
    thread.join(60)
    assert not thread.is_alive()
    assert [reason.endswith("the build was stopped") for reason in errors] == [True]
    made.close()


def test_a_stop_ends_an_upload(actions: Actions, between: Between) -> None:
    between.spoil(method="PUT", hang=True, times=99)
    made = cache(between.url, actions.token)
    errors: list[str] = []

    def run() -> None:
        try:
            made.put(descriptor(BLOB), lambda: BytesIO(BLOB))
        except CacheError as error:
            errors.append(error.reason)

    thread = threading.Thread(target=run)
    thread.start()
    assert between.waiting.wait(60)
    made.stop()
    thread.join(60)
    assert not thread.is_alive() and len(errors) == 1


# ---- configuration -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "variables", "said"),
    [
        ("", {}, "ACTIONS_RUNTIME_TOKEN"),
        ("", {"ACTIONS_RUNTIME_TOKEN": "t"}, "ACTIONS_RESULTS_URL"),
        (",token=t,version=1", {}, "ACTIONS_CACHE_URL"),
        (",token=t,url_v2=ftp://x", {}, "no http"),
        (",token=t,url_v2=http://x,version=3", {}, "version is 1 or 2"),
        (",token=t,url_v2=http://x,timeout=soon", {}, "timeout is a duration"),
        (",token=t,url_v2=http://x,scope=a#b", {}, "a scope"),
        (",token=t,url_v2=http://x,ghtoken=g", {}, "ghtoken needs repository"),
    ],
)
def test_what_is_missing_is_named(attributes: str, variables: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        open_backend(
            parse_spec(f"type=gha{attributes}", "from"), Reach(registry=no_registry, variables=variables)
        )
    assert caught.value.hint


@pytest.mark.parametrize(
    ("attributes", "variables", "version"),
    [
        ("", {"ACTIONS_RESULTS_URL": "URL", "ACTIONS_CACHE_SERVICE_V2": "true"}, 2),
        ("", {"ACTIONS_RESULTS_URL": "URL"}, 2),
        ("", {"ACTIONS_CACHE_URL": "URL", "ACTIONS_RESULTS_URL": "URL"}, 1),
        (",version=2", {"ACTIONS_CACHE_URL": "URL", "ACTIONS_RESULTS_URL": "URL"}, 2),
        (",url=URL", {}, 1),
        (",url=URL,version=2,url_v2=URL", {}, 2),
        (",version=1", {"ACTIONS_RESULTS_URL": "URL"}, 1),
    ],
)
def test_the_version_is_told_or_found_out(
    actions: Actions, between: Between, attributes: str, variables: dict[str, str], version: int
) -> None:
    spec = parse_spec(f"type=gha,token={actions.token}" + attributes.replace("URL", between.url), "from")
    given = {name: value.replace("URL", between.url) for name, value in variables.items()}
    made = open_backend(spec, Reach(registry=no_registry, variables=given), QUICK)
    assert made.read() is None
    assert ("twirp" in between.seen[0].path) == (version == 2)


def test_the_proxy_is_that_of_the_caller(
    actions: Actions, between: Between, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert cache(actions.url, actions.token).read() is None
    between.spoil(status=200, body=b"{}")
    spec = parse_spec("type=gha,token=t,url_v2=http://cache.example/", "from")
    made = open_backend(spec, Reach(registry=no_registry, proxies={"http": between.url}))
    assert made.read() is None
    assert between.seen[0].path.startswith("http://cache.example/twirp/")


def test_tokens_are_never_shown() -> None:
    reach = Reach(registry=no_registry, variables={"ACTIONS_RUNTIME_TOKEN": "t0ken"})
    spec = parse_spec("type=gha,token=t0ken,ghtoken=gh0token", "to")
    assert "t0ken" not in repr(spec) + str(spec) + repr(reach)
