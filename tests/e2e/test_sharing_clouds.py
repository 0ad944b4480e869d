"""Shared caches in object stores: two stores stand for two machines, loopback for the cloud."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import Context, MakeImg
from tests.support.actions import Actions, token
from tests.support.azure import ACCOUNT, KEY, Azure
from tests.support.between import Between
from tests.support.command import steps_run
from tests.support.s3 import ACCESS_KEY, S3, SECRET_KEY

pytestmark = pytest.mark.once

STAMP = "head -c 16 /dev/urandom | md5sum"


@dataclass(kw_only=True)
class Cloud:
    """One object store.

    Attributes:
        spec: The cache in it, as both flags have it.
        env: What the job's environment has.
        between: What stands before the store.
        secrets: What must be shown nowhere.
        blobs: Parts of the paths of all blobs that the store has.
    """

    spec: str
    env: Mapping[str, str]
    between: Between
    secrets: tuple[str, ...]
    blobs: Callable[[], list[str]]


@pytest.fixture
def s3_cloud() -> Iterator[Cloud]:
    with S3() as s3, Between(s3.port) as between:
        s3.make_bucket("caches")
        yield Cloud(
            spec="type=s3,bucket=caches,name=app",
            env={
                "AWS_ACCESS_KEY_ID": ACCESS_KEY,
                "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
                "AWS_REGION": "eu-central-1",
                "AWS_ENDPOINT_URL": between.url,
                "AWS_MAX_ATTEMPTS": "1",
            },
            between=between,
            secrets=(SECRET_KEY, ACCESS_KEY),
            blobs=lambda: ["/blobs/"],
        )


@pytest.fixture
def gha_cloud() -> Iterator[Cloud]:
    accepted = token(("refs/heads/main", 3))
    with Actions(accepts=accepted) as actions, Between(actions.port) as between:
        yield Cloud(
            spec="type=gha,scope=app",
            env={
                "ACTIONS_RUNTIME_TOKEN": accepted,
                "ACTIONS_RESULTS_URL": f"{between.url}/",
                "ACTIONS_CACHE_SERVICE_V2": "True",
            },
            between=between,
            secrets=(accepted,),
            blobs=lambda: [f"/storage/{n}?" for n, entry in actions.entries.items() if "blob" in entry.key],
        )


@pytest.fixture
def azblob_cloud() -> Iterator[Cloud]:
    with Azure() as azure, Between(azure.port) as between:
        yield Cloud(
            spec="type=azblob,name=app",
            env={
                "BUILDKIT_AZURE_STORAGE_ACCOUNT_URL": f"{between.url}/{ACCOUNT}",
                "AZURE_STORAGE_KEY": KEY,
            },
            between=between,
            secrets=(KEY,),
            blobs=lambda: ["/blobs/"],
        )


@pytest.fixture(params=["s3", "gha", "azblob"])
def cloud(request: pytest.FixtureRequest) -> Cloud:
    """Each store."""
    found: Cloud = request.getfixturevalue(f"{request.param}_cloud")
    return found


@pytest.fixture
def stages(make_context: Context, busybox_image: str) -> Path:
    """Two stages; every RUN would give something else if it ran again."""
    return make_context(
        {
            "Dockerfile": (
                f"FROM {busybox_image} AS one\nCOPY a /a\nRUN {STAMP} > /one\n"
                f"FROM {busybox_image}\nRUN {STAMP} > /own\nCOPY --from=one /one /one\n"
            ),
            "a": "a",
        }
    )


def test_nothing_runs_where_another_machine_ran_it(cloud: Cloud, stages: Path, make_img: MakeImg) -> None:
    a, b = make_img(), make_img()
    written = a.ok("build", "-t", "app", "--cache-to", f"{cloud.spec},mode=max", stages, env=cloud.env)
    read = b.ok("build", "-t", "app", "--cache-from", cloud.spec, stages, env=cloud.env)
    assert steps_run(read) == []
    assert b.image("app").document == a.image("app").document
    for secret in cloud.secrets:
        assert secret not in written.text + read.text


def test_a_cache_in_a_bucket_stays_young_though_nothing_changed(
    s3_cloud: Cloud, stages: Path, make_img: MakeImg
) -> None:
    """Else a rule that removes what is old would remove what every build needs."""
    img = make_img()
    spec = f"{s3_cloud.spec},touch_refresh=0s"
    img.ok("build", "--cache-to", spec, stages, env=s3_cloud.env)
    before = len(s3_cloud.between.seen)
    img.ok("build", "--cache-to", spec, stages, env=s3_cloud.env)
    seen = [one for one in s3_cloud.between.seen[before:] if one.method == "PUT"]
    assert sum("manifests/app" in one.path for one in seen) == 1
    assert sum("blobs/" in one.path for one in seen) == 2


def test_a_store_that_fails_fails_no_build_that_reads(cloud: Cloud, stages: Path, make_img: MakeImg) -> None:
    cloud.between.spoil(status=403, times=999)
    outcome = make_img().ok("build", "-t", "app", "--cache-from", cloud.spec, stages, env=cloud.env)
    assert len(steps_run(outcome)) == 4
    assert "403" in outcome.text
    for secret in cloud.secrets:
        assert secret not in outcome.text


def test_a_store_that_fails_fails_a_build_that_writes_unless_it_may(
    cloud: Cloud, stages: Path, make_img: MakeImg
) -> None:
    cloud.between.spoil(status=403, times=999)
    img = make_img()
    outcome = img.fails(3, "build", "-t", "app", "--cache-to", cloud.spec, stages, env=cloud.env)
    assert "403" in outcome.text
    img.ok("build", "-t", "app", "--cache-to", f"{cloud.spec},ignore-error=true", stages, env=cloud.env)


def test_a_layer_of_wrong_bytes_is_run_again(cloud: Cloud, stages: Path, make_img: MakeImg) -> None:
    a, b = make_img(), make_img()
    a.ok("build", "-t", "app", "--cache-to", f"{cloud.spec},mode=max", stages, env=cloud.env)
    for path in cloud.blobs():
        cloud.between.spoil(method="GET", path=path, flip=True, times=99)
    outcome = b.ok("build", "-t", "app", "--cache-from", cloud.spec, stages, env=cloud.env)
    assert len(steps_run(outcome)) == 4
    assert "left out" in outcome.text


def test_an_interrupt_waits_for_no_upload(s3_cloud: Cloud, stages: Path, make_img: MakeImg) -> None:
    s3_cloud.between.spoil(method="PUT", hang=True, times=99)
    spec = f"{s3_cloud.spec},endpoint_url={s3_cloud.between.url},region=eu-central-1"
    keys = f"access_key_id={ACCESS_KEY},secret_access_key={SECRET_KEY}"
    process = make_img().start("build", "-t", "app", "--cache-to", f"{spec},{keys}", stages)
    try:
        assert s3_cloud.between.waiting.wait(60)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, output
    assert b"Traceback" not in output


def test_without_a_token_it_is_said_where_one_comes_from(make_img: MakeImg, stages: Path) -> None:
    outcome = make_img().fails(2, "build", "--cache-to", "type=gha", stages)
    assert "ACTIONS_RUNTIME_TOKEN" in outcome.text and "actions/github-script" in outcome.text
