"""One user id only: no range in /etc/subuid, or no uidmap. The build works; what is lost is said."""

from __future__ import annotations

import pytest

from tests.conftest import Context, MakeImg
from tests.support import hosts
from tests.support.command import Img


@pytest.fixture
def single(make_img: MakeImg) -> Img:
    """`img` with one user id, whatever this user has."""
    return make_img("--single-id")


def test_run_copy_and_stages_work(single: Img, make_context: Context, busybox_image: str) -> None:
    dockerfile = (
        f"FROM {busybox_image} AS a\nRUN mkdir /o && id -u > /o/uid && rm /etc/group\n"
        f"FROM {busybox_image}\nCOPY --from=a /o/uid /uid\nCOPY f /f\nRUN cat /f /uid > /both\n"
    )
    single.build(make_context({"Dockerfile": dockerfile, "f": "f\n"}))
    image = single.image()
    assert image.text("both") == "f\n0\n"
    assert image.tree["both"].owner == "0:0"


def test_an_owner_that_cannot_be_is_kept_or_said_and_never_silently_lost(
    single: Img, make_context: Context, busybox_image: str
) -> None:
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nCOPY --chown=12:34 f /f\n", "f": "f\n"})
    outcome = single("build", "-t", "t", context)
    assert outcome.code == 0, str(outcome)
    kept = single.image().tree["f"].owner == "12:34"
    assert kept or "12:34" in outcome.text or "owner" in outcome.text.lower(), str(outcome)


def test_chown_inside_a_run_does_not_fail_the_build(
    single: Img, make_context: Context, busybox_image: str
) -> None:
    context = make_context(
        {"Dockerfile": f"FROM {busybox_image}\nRUN touch /f && chown 12:34 /f && ls -l /f\n"}
    )
    outcome = single("build", "-t", "t", context)
    assert outcome.code == 0, str(outcome)
    kept = single.image().tree["f"].owner == "12:34"
    assert kept or "owner" in outcome.text.lower(), str(outcome)


def test_apt_get_install_works_in_a_debian_base(
    single: Img, make_context: Context, debian_image: str
) -> None:
    dockerfile = (
        f"FROM {debian_image}\nRUN apt-get update && apt-get install -y --no-install-recommends hello\n"
    )
    single.build(make_context({"Dockerfile": dockerfile}))
    assert "usr/bin/hello" in single.image().tree


def test_a_store_made_with_a_range_is_never_mixed_with_one_id(
    make_img: MakeImg, make_context: Context, busybox_image: str
) -> None:
    if not hosts.has_range():
        pytest.skip("needs an ordinary user with a range in /etc/subuid")
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nRUN touch /f && chown worker /f\n"})
    full = make_img()
    full.build(context)
    single = make_img("--single-id", state=full.state)
    outcome = single("build", "-t", "u", "--no-cache", context)
    assert outcome.code in (0, 5), str(outcome)
    assert "Traceback" not in outcome.text
    assert full.image("t").tree["f"].owner == "1000:0"
