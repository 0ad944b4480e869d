"""`Platform`: what it is called, and which image is one for it."""

from __future__ import annotations

import pytest
from img.errors import UsageError
from img.oci import Platform


@pytest.mark.parametrize(
    ("written", "full"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("Linux/AMD64", "linux/amd64"),
        ("arm64", "linux/arm64"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("armhf", "linux/arm/v7"),
    ],
)
def test_a_platform_has_one_name_whatever_it_was_called(written: str, full: str) -> None:
    assert str(Platform.parse(written)) == full


@pytest.mark.parametrize("text", ["", "/", "linux/", "/amd64", "a/b/c/d"])
def test_half_a_platform_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="bad platform"):
        Platform.parse(text)


def test_local_is_this_machine() -> None:
    assert Platform.parse("local") == Platform.host()
    assert Platform.parse("linux").architecture == Platform.host().architecture


def test_an_image_without_a_variant_fits_every_variant_and_another_one_does_not() -> None:
    wanted = Platform("linux", "arm", "v7")
    assert wanted.accepts(Platform("linux", "arm"))
    assert wanted.accepts(Platform("linux", "arm", "v7"))
    assert not wanted.accepts(Platform("linux", "arm", "v6"))
    assert not wanted.accepts(Platform("linux", "arm64"))
    assert not wanted.accepts(Platform("windows", "arm", "v7"))


def test_lesser_variants_run_on_a_greater_one_and_the_nearest_comes_first() -> None:
    assert [str(p) for p in Platform("linux", "arm", "v7").below] == ["linux/arm/v6", "linux/arm/v5"]
    assert [str(p) for p in Platform("linux", "amd64", "v2").below] == ["linux/amd64/v1"]
    assert not Platform("linux", "amd64").below and not Platform("linux", "riscv64", "v9").below


def test_v8_is_no_variant_of_arm64_but_its_other_name() -> None:
    assert Platform("linux", "arm64").accepts(Platform("linux", "arm64", "v8"))
    assert Platform("linux", "arm64", "v8").accepts(Platform("linux", "arm64"))
