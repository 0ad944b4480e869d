"""What a cache in a bucket does besides, and what becomes of it when the store or the network fails."""

from __future__ import annotations

import dataclasses
import os
import re
import threading
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from img import _core
from img.cache import Reach, open_backend, parse_spec
from img.cache.parts import PART_BYTES
from img.cache.patience import Limits
from img.cache.s3 import S3Cache
from img.errors import CacheError, DigestMismatch, SizeMismatch, UsageError

from tests.suites.cache.conftest import no_registry, s3_spec
from tests.suites.cache.test_backends import BLOB, Bucket, descriptor, fetched, put, write
from tests.support.between import Between
from tests.support.s3 import ACCESS_KEY, S3, SECRET_KEY

QUICK = Limits(backoff_seconds=0.001, connect_seconds=5, read_seconds=20)


@pytest.fixture
def between(s3: S3) -> Iterator[Between]:
    """What stands between the client and the store."""
    with Between(s3.port) as proxy:
        yield proxy


def cache(
    bucket: str,
    url: str,
    *,
    limits: Limits = QUICK,
    variables: Mapping[str, str] | None = None,
    ca_file: str = "",
    **attributes: str,
) -> S3Cache:
    """A cache in a bucket, which loses little time between attempts."""
    from img.cache import s3 as kind

    spec = parse_spec(s3_spec(bucket, url, **attributes), "to")
    reach = Reach(registry=no_registry, variables=variables or {}, ca_file=ca_file)
    return kind.open_backend(spec, reach, limits)


# ---- objects -----------------------------------------------------------------------------------


def test_objects_have_buildkits_names(s3: S3, bucket: str) -> None:
    made = cache(bucket, s3.url, name="one;two")
    blob = put(made, BLOB)
    write(made, blob)
    assert s3.keys(bucket) == [f"blobs/{blob.digest}", "manifests/one", "manifests/two"]


def test_every_prefix_is_kept(s3: S3, bucket: str) -> None:
    made = cache(bucket, s3.url, prefix="team/", blobs_prefix="b-", manifests_prefix="m-", name="app")
    blob = put(made, BLOB)
    write(made, blob)
    assert s3.keys(bucket) == [f"team/b-{blob.digest}", "team/m-app"]


def test_names_are_read_in_their_order(s3: S3, bucket: str) -> None:
    main = write(cache(bucket, s3.url, name="main"), word="main")
    assert cache(bucket, s3.url, name="branch;main").read() == main
    branch = write(cache(bucket, s3.url, name="branch"), word="branch")
    assert cache(bucket, s3.url, name="branch;main").read() == branch


def test_a_large_blob_goes_in_parts(s3: S3, bucket: str, between: Between) -> None:
    data = os.urandom(2 * PART_BYTES + 12345)
    blob = put(cache(bucket, between.url), data)
    parts = [seen.body_bytes for seen in between.seen if "partNumber" in seen.path]
    assert sorted(parts) == [12345, PART_BYTES, PART_BYTES]
    assert fetched(cache(bucket, s3.url), blob) == data


def test_a_blob_of_exactly_two_parts_comes_back(s3: S3, bucket: str) -> None:
    data = os.urandom(PART_BYTES) * 2
    assert fetched(cache(bucket, s3.url), put(cache(bucket, s3.url), data)) == data


def test_no_more_is_read_ahead_than_is_being_sent(bucket: str, between: Between) -> None:
    """Memory does not grow with a blob."""
    read: list[int] = []

    class Watched(BytesIO):
        def read(self, count: int | None = -1) -> bytes:
            data = super().read(count)
            if data:
                read.append(between.count("PUT", "partNumber"))
            return data

    data = os.urandom(3 * PART_BYTES)
    cache(bucket, between.url, upload_parallelism="1").put(descriptor(data), lambda: Watched(data))
    assert read == [0, 1, 2]


def test_a_blob_that_is_there_is_not_sent_again(s3: S3, bucket: str, between: Between) -> None:
    put(cache(bucket, s3.url), BLOB)

    def never() -> BinaryIO:
        raise AssertionError("opened")

    cache(bucket, between.url).put(descriptor(BLOB), never)
    assert between.count("PUT") == 0


def test_an_old_object_is_made_young_when_it_is_asked_for(s3: S3, bucket: str, between: Between) -> None:
    blob = put(cache(bucket, s3.url), BLOB)
    assert cache(bucket, between.url).has(blob)
    assert between.count("PUT") == 0
    before = s3.client().head_object(Bucket=bucket, Key=f"blobs/{blob.digest}")
    assert "refreshed" not in before["Metadata"]
    assert cache(bucket, between.url, touch_refresh="0s").has(blob)
    after = s3.client().head_object(Bucket=bucket, Key=f"blobs/{blob.digest}")
    assert "refreshed" in after["Metadata"]
    assert fetched(cache(bucket, s3.url), blob) == BLOB


def test_a_document_keeps_every_blob_that_it_names(s3: S3, bucket: str, between: Between) -> None:
    blob = put(cache(bucket, s3.url), BLOB)
    write(cache(bucket, between.url, touch_refresh="0s"), blob)
    assert between.count("HEAD", blob.hex) == 1
    assert between.count("PUT", blob.hex) == 1


def test_a_leftover_of_another_size_is_written_anew(s3: S3, bucket: str) -> None:
    blob = descriptor(BLOB)
    s3.client().put_object(Bucket=bucket, Key=f"blobs/{blob.digest}", Body=b"half")
    made = cache(bucket, s3.url)
    assert not made.has(blob)
    put(made, BLOB)
    assert fetched(made, blob) == BLOB


# ---- faults ------------------------------------------------------------------------------------


def failing(made: S3Cache) -> CacheError:
    """The error of reading the document."""
    with pytest.raises(CacheError) as caught:
        made.read()
    return caught.value


def test_no_such_bucket(s3: S3) -> None:
    error = failing(cache("nobody-made-this", s3.url))
    assert "NoSuchBucket" in error.reason and "manifests/img" in error.reason
    assert error.cache == "type=s3,bucket=nobody-made-this"
    assert "create the bucket" in error.hint


def test_wrong_credentials_are_not_shown(bucket: str, between: Between) -> None:
    body = (
        "<Error><Code>SignatureDoesNotMatch</Code>"
        f"<Message>{ACCESS_KEY} signed with {SECRET_KEY}\x1b[31m</Message></Error>"
    )
    between.spoil(status=403, body=body.encode(), headers={"Content-Type": "application/xml"}, times=99)
    error = failing(cache(bucket, between.url))
    assert "403" in error.reason and "check the credentials" in error.hint
    for text in (str(error), repr(error), repr(error.__cause__), repr(error.__context__)):
        assert SECRET_KEY not in text and ACCESS_KEY not in text and "\x1b" not in text


def test_a_server_that_fails_for_a_moment_is_asked_again(s3: S3, bucket: str, between: Between) -> None:
    raw = write(cache(bucket, s3.url))
    between.spoil(status=503, times=1)
    assert cache(bucket, between.url).read() == raw
    assert between.count("GET") == 2


def test_a_server_that_fails_for_good_is_not_asked_for_ever(bucket: str, between: Between) -> None:
    between.spoil(status=500, times=99)
    assert "500" in failing(cache(bucket, between.url, retry_max_attempts="2")).reason
    assert between.count("GET") == 2


def test_nobody_listens(bucket: str) -> None:
    error = failing(cache(bucket, "http://127.0.0.1:1", retry_max_attempts="1"))
    assert "127.0.0.1:1" in error.reason and "no connection" in error.reason
    assert error.hint


def test_a_silent_server_is_not_waited_for(bucket: str, between: Between) -> None:
    between.spoil(hang=True, times=99)
    limits = dataclasses.replace(QUICK, read_seconds=0.2)
    error = failing(cache(bucket, between.url, limits=limits, retry_max_attempts="1"))
    assert "silent for 0.2 seconds" in error.reason


def test_a_body_that_breaks_off_is_resumed(s3: S3, bucket: str, between: Between) -> None:
    data = os.urandom(3 << 20)
    blob = put(cache(bucket, s3.url), data)
    between.spoil(method="GET", cut=(1 << 20) + 5)
    assert fetched(cache(bucket, between.url), blob) == data
    ranges = [seen.headers.get("Range") for seen in between.seen if seen.method == "GET"]
    assert ranges[0] is None and re.fullmatch(rf"bytes=\d+-{len(data) - 1}", ranges[1] or "")


def test_a_body_that_breaks_off_each_time_is_given_up(s3: S3, bucket: str, between: Between) -> None:
    blob = put(cache(bucket, s3.url), BLOB)
    between.spoil(method="GET", cut=0, times=99)
    with pytest.raises(CacheError):
        fetched(cache(bucket, between.url, retry_max_attempts="3"), blob)
    assert between.count("GET") == 3


def test_wrong_bytes_are_refused_by_the_sink(s3: S3, bucket: str, between: Between, tmp_path: Path) -> None:
    blob = put(cache(bucket, s3.url), BLOB)
    between.spoil(method="GET", flip=True)
    sink = _core.BlobSink(str(tmp_path / "blob"), digest=blob.digest, size=blob.size)
    cache(bucket, between.url).fetch(blob, sink)
    with pytest.raises(DigestMismatch):
        sink.finish()
    assert list(tmp_path.iterdir()) == []


def test_a_longer_object_is_refused_unread(s3: S3, bucket: str) -> None:
    blob = descriptor(BLOB)
    s3.client().put_object(Bucket=bucket, Key=f"blobs/{blob.digest}", Body=BLOB + b"x")
    sink = Bucket()
    with pytest.raises(SizeMismatch):
        cache(bucket, s3.url).fetch(blob, sink)
    assert sink.data == b""


def test_a_document_without_end_is_not_read(s3: S3, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(cache(bucket, s3.url), word="x" * 2000)
    monkeypatch.setattr("img.cache.s3.MAX_INDEX_BYTES", 10)
    assert "longer than 10 bytes" in failing(cache(bucket, s3.url)).reason


def test_an_upload_that_fails_leaves_no_parts(s3: S3, bucket: str, between: Between) -> None:
    between.spoil(method="PUT", path="partNumber=2", status=403, times=99)
    with pytest.raises(CacheError):
        put(cache(bucket, between.url), os.urandom(2 * PART_BYTES))
    between.wait_for("DELETE")
    assert not s3.client().list_multipart_uploads(Bucket=bucket).get("Uploads")
    assert s3.keys(bucket) == []


def test_a_source_that_cannot_be_read_is_no_error_of_the_cache(s3: S3, bucket: str) -> None:
    made = cache(bucket, s3.url)
    with pytest.raises(SizeMismatch):
        made.put(descriptor(BLOB), lambda: BytesIO(BLOB[:-1]))
    assert s3.keys(bucket) == []


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_a_stop_ends_what_waits_for_the_network(s3: S3, bucket: str, between: Between, fault: str) -> None:
    blob = put(cache(bucket, s3.url), BLOB)
    between.spoil(method="GET", times=99, **{fault: True})
    made = cache(bucket, between.url)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            made.fetch(blob, Bucket())
        except CacheError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert between.waiting.wait(60)
    made.stop()
    thread.join(60)
    assert not thread.is_alive()
    assert [error.reason.endswith("the build was stopped") for error in errors] == [True]  # type: ignore[attr-defined]
    made.close()


# ---- configuration -----------------------------------------------------------------------------


def test_variables_give_credentials_region_and_endpoint(
    s3: S3, bucket: str, between: Between, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOFTHEPROCESS0000")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    variables = {
        "AWS_ACCESS_KEY_ID": "AKIAOFTHECALLER00000",
        "AWS_SECRET_ACCESS_KEY": "y",
        "AWS_REGION": "eu-central-1",
        "AWS_ENDPOINT_URL": between.url,
    }
    reach = Reach(registry=no_registry, variables=variables)
    made = open_backend(parse_spec(f"type=s3,bucket={bucket}", "from"), reach)
    assert made.read() is None
    signed = between.seen[0].headers["Authorization"]
    assert "AKIAOFTHECALLER00000" in signed and "eu-central-1" in signed
    assert "AKIAOFTHECALLER" not in repr(reach)


def test_the_process_is_not_asked_for_credentials(
    bucket: str, between: Between, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOFTHEPROCESS0000")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    variables = {
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
    }
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    made = cache(bucket, between.url, variables=variables, access_key_id="", secret_access_key="")
    error = failing(made)
    assert "there are no credentials" in error.reason and "AWS_ACCESS_KEY_ID" in error.hint
    assert between.seen == []


def test_a_profile_is_found_in_the_file_that_variables_name(
    bucket: str, between: Between, tmp_path: Path
) -> None:
    file = tmp_path / "credentials"
    file.write_text("[team]\naws_access_key_id = AKIAOFTHEFILE0000000\naws_secret_access_key = z\n")
    variables = {"AWS_SHARED_CREDENTIALS_FILE": str(file), "AWS_PROFILE": "team"}
    made = cache(bucket, between.url, variables=variables, access_key_id="", secret_access_key="")
    assert made.read() is None
    assert "AKIAOFTHEFILE0000000" in between.seen[0].headers["Authorization"]


def test_credentials_that_cannot_be_fetched_are_an_error_of_the_cache(bucket: str, s3: S3) -> None:
    variables = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:1/",
        "AWS_METADATA_SERVICE_TIMEOUT": "1",
    }
    made = cache(bucket, s3.url, variables=variables, access_key_id="", secret_access_key="")
    assert "credentials could not be fetched" in failing(made).reason


def test_the_proxy_is_that_of_the_caller(
    bucket: str, s3: S3, between: Between, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert cache(bucket, s3.url).read() is None
    between.spoil(status=404, times=99)
    spec = parse_spec(s3_spec(bucket, "http://store.example", use_path_style="true"), "from")
    made = open_backend(spec, Reach(registry=no_registry, proxies={"http": between.url}))
    assert made.read() is None
    assert between.seen[0].path == f"http://store.example/{bucket}/manifests/img"


def test_a_profile_that_is_not_there_is_named(bucket: str, s3: S3) -> None:
    made = cache(bucket, s3.url, variables={"AWS_PROFILE": "nobody"}, access_key_id="", secret_access_key="")
    assert "nobody" in failing(made).reason


def test_path_style_puts_the_bucket_in_the_path(bucket: str, between: Between) -> None:
    cache(bucket, between.url, use_path_style="true").read()
    assert between.seen[0].path.startswith(f"/{bucket}/")


def test_accept_encoding_can_be_left_out(bucket: str, between: Between) -> None:
    cache(bucket, between.url).read()
    cache(bucket, between.url, disable_accept_encoding="true").read()
    first, second = ("Accept-Encoding" in seen.headers for seen in between.seen)
    assert first and not second


def test_a_further_authority_is_believed(s3: S3, bucket: str, tmp_path: Path) -> None:
    import trustme

    authority = trustme.CA()
    pem = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(pem))
    made = cache(bucket, s3.url, ca_file=str(pem))
    assert made.read() is None
    leftovers = _bundles()
    made.close()
    assert len(_bundles()) == len(leftovers) - 1
    assert "CA file" in failing(cache(bucket, s3.url, ca_file=str(tmp_path / "none"))).reason


def _bundles() -> list[str]:
    import tempfile

    return [name for name in os.listdir(tempfile.gettempdir()) if name.startswith("img-ca-")]


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"touch_refresh": "a day"}, "touch_refresh is a duration"),
        ({"touch_refresh": "-1h"}, "touch_refresh is a duration"),
        ({"upload_parallelism": "0"}, "upload_parallelism is a number of at least 1"),
        ({"retry_mode": "never"}, "retry_mode is standard or adaptive or legacy"),
        ({"retry_max_attempts": "many"}, "retry_max_attempts is a number"),
        ({"use_path_style": "maybe"}, "use_path_style is true or false"),
        ({"secret_access_key": ""}, "has access_key_id alone"),
    ],
)
def test_an_attribute_that_makes_no_sense_is_refused(attributes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        cache("bucket", "http://127.0.0.1:1", **attributes)


def test_credentials_are_never_shown(bucket: str) -> None:
    spec = parse_spec(s3_spec(bucket, "http://127.0.0.1:1", session_token="t0ken"), "to")
    for text in (repr(spec), str(spec)):
        assert SECRET_KEY not in text and ACCESS_KEY not in text and "t0ken" not in text
