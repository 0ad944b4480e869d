"""`--cache-to` and `--cache-from`: what they take, and what they say of what they do not."""

from __future__ import annotations

import pytest
from img.cache import parse_spec
from img.cache.spec import Use
from img.errors import UsageError


def test_a_bare_word_is_a_registry() -> None:
    spec = parse_spec("example.com/app:cache", "from")
    assert (spec.kind, spec.attributes) == ("registry", {"ref": "example.com/app:cache"})


def test_what_is_not_said_has_the_defaults_of_buildkit() -> None:
    written, read = parse_spec("type=registry,ref=a", "to"), parse_spec("type=registry,ref=a", "from")
    assert (written.max_mode, written.compression, written.level) == (False, "gzip", None)
    assert (written.ignore_error, read.ignore_error) == (False, True)
    assert not written.force_compression


def test_attributes_are_read() -> None:
    text = "type=local,dest=/c,mode=max,compression=zstd,compression-level=19,force-compression=1,reset=TRUE"
    spec = parse_spec(f"{text},ignore-error=true,image-manifest=true,oci-mediatypes=1,mounts=a;b", "to")
    assert (spec.max_mode, spec.compression, spec.level) == (True, "zstd", 19)
    assert (spec.force_compression, spec.reset, spec.ignore_error) == (True, True, True)
    assert spec.mounts == ("a", "b")


def test_a_value_in_quotes_may_hold_a_comma() -> None:
    assert parse_spec('type=local,"dest=/a,b"', "to").attributes["dest"] == "/a,b"


@pytest.mark.parametrize(
    ("text", "use", "words"),
    [
        ("type=regestry,ref=a", "to", "there is no type"),
        ("type=inline", "from", "there is no type"),
        ("type=registry", "to", "needs ref"),
        ("type=local,src=x", "to", "does not know 'src'"),
        ("type=registry,ref=a,mod=max", "to", "mode"),
        ("type=registry,ref=a,mode=all", "to", "min or max"),
        ("type=registry,ref=a,max", "to", "no NAME=VALUE"),
        ("type=registry,ref=a,compression=estargz", "to", "estargz"),
        ("type=registry,ref=a,compression=xz", "to", "gzip"),
        ("type=registry,ref=a,compression-level=10", "to", "from 1 to 9"),
        ("type=registry,ref=a,compression=zstd,compression-level=23", "to", "from 1 to 22"),
        ("type=registry,ref=a,compression=uncompressed,compression-level=1", "to", "levels"),
        ("type=registry,ref=a,compression-level=high", "to", "from 1 to 9"),
        ("type=registry,ref=a,image-manifest=false", "to", "not an index"),
        ("type=registry,ref=a,oci-mediatypes=false", "to", "OCI media types"),
        ("type=registry,ref=a,ignore-error=maybe", "from", "true or false"),
        ("type=inline,mode=max", "to", "type=registry"),
        ("", "to", "there is no type"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_does(text: str, use: Use, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_spec(text, use)
    assert f"--cache-{use}" in str(caught.value)
    assert words in f"{caught.value} {caught.value.hint}"


def test_credentials_are_never_shown() -> None:
    spec = parse_spec("type=s3,bucket=b,region=r,access_key_id=me,secret_access_key=hush", "to")
    assert "hush" not in f"{spec} {spec!r}"
    assert str(spec) == "type=s3,bucket=b"
