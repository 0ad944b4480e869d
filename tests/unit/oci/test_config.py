"""`ImageConfig`: reads what others wrote, writes the same bytes for the same value."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from img.errors import InvalidDocument
from img.oci import History, ImageConfig, Platform, chain_id

HOST = Platform("linux", "amd64")
ids = st.binary(min_size=1, max_size=8).map(lambda b: "sha256:" + hashlib.sha256(b).hexdigest())
texts = st.text(st.characters(codec="utf-8"), max_size=20)
runs = st.fixed_dictionaries(
    {},
    optional={
        "Env": st.lists(texts.map(lambda t: f"A={t}"), max_size=4),
        "Cmd": st.lists(texts, max_size=3),
        "Labels": st.dictionaries(texts, texts, max_size=4),
        "User": texts,
        "WorkingDir": texts,
        "Healthcheck": st.fixed_dictionaries({"Interval": st.integers(0, 1 << 60)}),
    },
)
configs = st.builds(
    ImageConfig,
    platform=st.sampled_from([HOST, Platform("linux", "arm", "v7")]),
    created=st.sampled_from(["", "2024-01-02T03:04:05.123456789Z"]),
    author=texts,
    run=runs,
    diff_ids=st.lists(ids, max_size=4).map(tuple),
    history=st.lists(
        st.builds(History, created_by=texts, comment=texts, empty_layer=st.booleans()), max_size=3
    ).map(tuple),
    extra=st.dictionaries(st.sampled_from(["os.version", "docker_version", "x"]), texts, max_size=2),
)


def read(document: Any) -> ImageConfig:
    return ImageConfig.from_bytes(json.dumps(document).encode())


@given(configs)
def test_a_config_reads_back_as_itself_and_writes_the_same_bytes_again(config: ImageConfig) -> None:
    raw = config.to_bytes()
    assert ImageConfig.from_bytes(raw) == config
    assert ImageConfig.from_bytes(raw).to_bytes() == raw


def test_the_order_in_which_fields_were_set_does_not_change_the_bytes() -> None:
    one = ImageConfig(platform=HOST).with_run(User="a", Cmd=["b"])
    other = ImageConfig(platform=HOST).with_run(Cmd=["b"]).with_run(User="a")
    assert one.to_bytes() == other.to_bytes()


def test_a_field_that_img_does_not_know_is_kept() -> None:
    config = read({"os": "linux", "architecture": "amd64", "os.features": ["a"], "config": {"X": {"y": 1}}})
    again = json.loads(config.with_run(User="me").to_bytes())
    assert again["os.features"] == ["a"]
    assert again["config"] == {"User": "me", "X": {"y": 1}}


def test_a_changed_config_leaves_the_one_that_it_came_from_alone() -> None:
    config = ImageConfig(platform=HOST, run={"Labels": {"a": "1"}})
    changed = config.with_run(Labels={**config.labels, "b": "2"}, User="x")
    assert (config.labels, config.user) == ({"a": "1"}, "")
    assert changed.with_run(User=None).user == ""


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"rootfs": {"diff_ids": ["sha256:12"]}},
        {"rootfs": {"diff_ids": "sha256:" + "0" * 64}},
        {"rootfs": {"diff_ids": [1]}},
        {"config": []},
        {"config": {"Env": 5}},
        {"config": {"Env": ["A=1", None]}},
        {"config": {"Cmd": {"a": 1}}},
        {"config": {"Labels": ["a"]}},
        {"config": {"User": 0.5}},
        {"config": {"WorkingDir": ["/"]}},
    ],
)
def test_a_field_of_another_type_is_refused_when_it_is_read(document: Any) -> None:
    with pytest.raises(InvalidDocument):
        read(document)


def test_one_word_where_a_list_belongs_is_a_list_of_one() -> None:
    assert read({"config": {"Entrypoint": "/bin/app"}}).words("Entrypoint") == ("/bin/app",)


def test_null_is_as_good_as_nothing() -> None:
    config = read({"config": {"Env": None, "Labels": None, "Cmd": None}, "rootfs": None, "history": None})
    assert (config.env, config.labels, config.words("Cmd"), config.diff_ids) == ({}, {}, None, ())
    assert config.working_dir == "/"


def test_bytes_that_no_utf_8_can_hold_become_the_replacement_character() -> None:
    config = ImageConfig(platform=HOST).with_run(Labels={"a": "x\udcffy"})
    assert ImageConfig.from_bytes(config.to_bytes()).labels == {"a": "x\ufffdy"}


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"[" * 100_000, b" " * (5 << 20)])
def test_what_is_no_document_is_an_error_and_never_a_crash(raw: bytes) -> None:
    with pytest.raises(InvalidDocument):
        ImageConfig.from_bytes(raw)


def test_a_value_of_the_environment_may_hold_equals_signs_and_may_be_empty() -> None:
    assert read({"config": {"Env": ["A=b=c", "EMPTY=", "BARE"]}}).env == {"A": "b=c", "EMPTY": "", "BARE": ""}


def test_the_chain_id_of_one_layer_is_its_diff_id_and_of_two_hangs_on_their_order() -> None:
    a, b = (f"sha256:{letter * 64}" for letter in "ab")
    assert chain_id([a]) == a
    assert chain_id([a, b]) == "sha256:" + hashlib.sha256(f"{a} {b}".encode()).hexdigest()
    assert chain_id([a, b]) != chain_id([b, a])
