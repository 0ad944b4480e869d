"""What a cache in Azure's blob storage does besides, and what becomes of it when that fails."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping

import pytest
from img.cache import Reach, parse_spec
from img.cache.azblob import AzureCache, open_backend
from img.cache.parts import PART_BYTES
from img.cache.patience import Limits
from img.errors import CacheError, UsageError

from tests.suites.cache.conftest import no_registry
from tests.suites.cache.test_backends import BLOB, Bucket, fetched, put, write
from tests.support.azure import ACCOUNT, KEY, SIGNATURE, Azure
from tests.support.between import Between

QUICK = Limits(backoff_seconds=0.001, connect_seconds=5, read_seconds=20)


@pytest.fixture
def between(azure: Azure) -> Iterator[Between]:
    """What stands between the client and the storage."""
    with Between(azure.port) as proxy:
        yield proxy


def cache(url: str, *, variables: Mapping[str, str] | None = None, **attributes: str) -> AzureCache:
    """A cache in an account, which loses little time between attempts."""
    told = {"account_url": url, "secret_access_key": KEY, **attributes}
    words = [f"{name}={value}" for name, value in told.items() if value]
    spec = parse_spec(",".join(["type=azblob", *words]), "to")
    return open_backend(spec, Reach(registry=no_registry, variables=variables or {}), QUICK)


def through(between: Between) -> str:
    """The account's URL at the proxy."""
    return f"{between.url}/{ACCOUNT}"


def test_blobs_have_buildkits_names(azure: Azure) -> None:
    made = cache(azure.url, prefix="team/", name="one;two", container="builds")
    blob = put(made, BLOB)
    write(made, blob)
    assert azure.names() == [
        f"builds/team/blobs/{blob.digest}",
        "builds/team/manifests/one",
        "builds/team/manifests/two",
    ]


def test_a_signature_is_as_good_as_a_key(azure: Azure) -> None:
    written = cache(f"{azure.url}?{SIGNATURE}", secret_access_key="")
    blob = put(written, BLOB)
    raw = write(written, blob)
    variables = {"AZURE_STORAGE_SAS_TOKEN": f"?{SIGNATURE}"}
    read = cache(azure.url, secret_access_key="", variables=variables)
    assert read.read() == raw
    assert fetched(read, blob) == BLOB


def test_variables_name_account_and_key(azure: Azure) -> None:
    variables = {
        "BUILDKIT_AZURE_STORAGE_ACCOUNT_URL": azure.url,
        "BUILDKIT_AZURE_STORAGE_CONTAINER": "builds",
        "AZURE_STORAGE_KEY": KEY,
    }
    write(cache("", secret_access_key="", variables=variables))
    assert azure.names() == ["builds/manifests/img"]


def test_a_large_blob_goes_in_blocks(azure: Azure, between: Between) -> None:
    data = os.urandom(2 * PART_BYTES + 12345)
    blob = put(cache(through(between)), data)
    assert between.count("PUT", "comp=block&") == 3
    assert fetched(cache(azure.url), blob) == data


def test_an_old_blob_is_made_young_when_it_is_asked_for(azure: Azure, between: Between) -> None:
    blob = put(cache(azure.url), BLOB)
    stored = next(iter(azure.blobs.values()))
    assert cache(through(between)).has(blob)
    assert between.count("PUT") == 0
    stored.modified = time.time() - 2 * 24 * 3600
    assert cache(through(between)).has(blob)
    assert time.time() - stored.modified < 3600
    assert list(stored.metadata) == ["x-ms-meta-refreshed"]


def test_a_body_that_breaks_off_is_resumed(azure: Azure, between: Between) -> None:
    data = os.urandom(3 << 20)
    blob = put(cache(azure.url), data)
    between.spoil(method="GET", cut=(1 << 20) + 5)
    assert fetched(cache(through(between)), blob) == data
    assert [bool(seen.headers.get("Range")) for seen in between.seen] == [False, True]


def test_a_busy_storage_is_asked_again(azure: Azure, between: Between) -> None:
    between.spoil(method="PUT", status=503, headers={"Retry-After": "0"}, times=2)
    put(cache(through(between)), BLOB)
    assert azure.names()


def test_a_wrong_key_is_not_shown(azure: Azure) -> None:
    wrong = "d3Jvbmcga2V5"
    with pytest.raises(CacheError) as caught:
        cache(azure.url, secret_access_key=wrong).read()
    assert "403" in caught.value.reason and "manifests/img" in caught.value.reason
    assert wrong not in f"{caught.value!s} {caught.value!r} {caught.value.__context__!r}"


def test_a_stop_ends_what_waits_for_the_network(azure: Azure, between: Between) -> None:
    blob = put(cache(azure.url), BLOB)
    between.spoil(method="GET", hang=True, times=99)
    made = cache(through(between))
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
    assert not thread.is_alive() and len(errors) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "needs the account's URL"),
        (",account_url=ftp://x", "no http"),
        (",account_name=me", "has no key"),
        (",account_name=me,secret_access_key=???", "no base64"),
    ],
)
def test_what_is_missing_is_named(words: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        open_backend(parse_spec(f"type=azblob{words}", "from"), Reach(registry=no_registry))
    assert caught.value.hint and "???" not in str(caught.value)


def test_keys_and_signatures_are_never_shown() -> None:
    spec = parse_spec(f"type=azblob,account_url=https://x?{SIGNATURE},secret_access_key={KEY}", "to")
    assert KEY not in repr(spec) + str(spec) and "s1gned" not in repr(spec) + str(spec)
