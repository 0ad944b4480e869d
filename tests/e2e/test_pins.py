"""What a name means, and when it is asked: pull policies, and the lock file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from img import Client, LockError, StoreError

from tests.conftest import Context
from tests.support.command import Img, Outcome
from tests.support.gits import GitWeb, Repository
from tests.support.layout import Item, digest_of, tar_of, write_index, write_layout
from tests.support.registry import Registry

pytestmark = pytest.mark.once

OTHER = {"amd64": "arm64", "arm64": "amd64"}


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Registry]:
    """A registry that the test may end."""
    with Registry(tmp_path / "registry") as running:
        yield running


@pytest.fixture
def web(tmp_path: Path) -> Iterator[GitWeb]:
    """A web server, with git."""
    with GitWeb(tmp_path / "git") as running:
        yield running


def push(registry: Registry, folder: Path, version: str, name: str = "base:1") -> str:
    """Makes a tag mean an image of one file, with its version as a label; gives the reference."""
    repository, _, tag = name.partition(":")
    layout = folder / f"layout-{repository}-{tag}-{version}"
    layer = tar_of([Item(path="version", data=version.encode())])
    write_layout(layout, [layer], {"Labels": {"version": version}}, tag=tag)
    return registry.push_layout(layout, repository, tag=tag)


def push_index(registry: Registry, folder: Path, version: str) -> tuple[str, str]:
    """Likewise, an index of two platforms; gives the reference and the digest of the index."""
    layout = folder / f"layout-index-{version}"
    manifests = {}
    for architecture in OTHER:
        layer = tar_of([Item(path="version", data=f"{version} {architecture}".encode())])
        labels = {"Labels": {"version": f"{version} {architecture}"}}
        manifests[architecture] = write_layout(layout, [layer], labels, architecture=architecture)
    digest = write_index(layout, manifests, tag="1")
    return registry.push_layout(layout, "both", tag="1"), digest


def config(img: Img, name: str = "t") -> Any:
    return img.ok("inspect", name).json()


def version(img: Img, name: str = "t") -> str:
    """The version of the base that an image was built on."""
    return str(config(img, name)["config"]["Labels"]["version"])


def lock_of(context: Path) -> Any:
    return json.loads((context / "img.lock").read_text())


# ---- pull policies -----------------------------------------------------------------------------------


def test_each_policy_gives_the_image_that_it_promises(
    img: Img, make_context: Context, registry: Registry, tmp_path: Path
) -> None:
    base = push(registry, tmp_path, "one", "policies:1")
    context = make_context({"Dockerfile": f"FROM {base}\n"})
    refused = img.fails(5, "build", "--pull=never", "-t", "t", context)
    assert "is not in the store, and pulling is off" in refused.stderr
    assert f"hint: img pull {base} fetches it" in refused.stderr
    img.build(context)
    push(registry, tmp_path, "two", "policies:1")
    img.build(context, "--pull=missing")
    assert version(img) == "one"
    img.build(context, "--pull=never")
    assert version(img) == "one"
    img.build(context, "--pull=newer")
    assert version(img) == "two"
    push(registry, tmp_path, "three", "policies:1")
    img.build(context, "--pull")
    assert version(img) == "three"
    assert version(img, base) == "three"


def test_newer_and_missing_take_what_is_here_where_the_registry_is_down(
    img: Img, make_context: Context, tmp_path: Path
) -> None:
    with Registry(tmp_path / "registry") as registry:
        base = push(registry, tmp_path, "one")
        context = make_context({"Dockerfile": f"FROM {base}\n"})
        img.build(context)
    outcome = img.build(context, "--pull=newer")
    assert f"{base} is used as it is here, since its registry does not give it" in outcome.stderr
    assert version(img) == "one"
    assert "does not give it" not in img.build(context).text
    refused = img.fails(3, "build", "--pull", "-t", "t", context)
    assert "Dockerfile:1" in refused.stderr


def test_newer_takes_an_image_that_only_exists_here(img: Img, make_context: Context, own: Registry) -> None:
    img.build(make_context({"Dockerfile": "FROM scratch\nLABEL version=here\n"}), tag=f"{own.host}/local")
    outcome = img.build(make_context({"Dockerfile": f"FROM {own.host}/local\n"}), "--pull=newer")
    assert "has no image" in outcome.stderr
    assert version(img) == "here"


def test_a_digest_that_is_here_asks_nobody_under_any_policy(
    img: Img, make_context: Context, tmp_path: Path
) -> None:
    with Registry(tmp_path / "registry") as registry:
        base, digest = push_index(registry, tmp_path, "one")
        pinned = f"{base.rpartition(':')[0]}@{digest}"
        context = make_context({"Dockerfile": f"FROM {pinned}\nFROM {base}@{digest}\n"})
        img.ok("pull", pinned)
    for policy in ("always", "newer", "missing", "never"):
        assert "does not give it" not in img.build(context, f"--pull={policy}").text


def test_the_images_of_an_index_stay_side_by_side(img: Img, make_context: Context, tmp_path: Path) -> None:
    with Registry(tmp_path / "registry") as registry:
        base, _ = push_index(registry, tmp_path, "one")
        for architecture in OTHER:
            img.ok("pull", "--platform", f"linux/{architecture}", base)
    img.ok("prune", "--all")
    for architecture in OTHER:
        context = make_context({"Dockerfile": f"FROM --platform=linux/{architecture} {base}\n"})
        img.build(context, "--offline")
        assert version(img) == f"one {architecture}"


def test_never_says_for_which_platform_the_store_has_an_image(
    img: Img, make_context: Context, registry: Registry, tmp_path: Path
) -> None:
    base, _ = push_index(registry, tmp_path, "platforms")
    img.ok("pull", "--platform", "linux/arm64", base)
    context = make_context({"Dockerfile": f"FROM --platform=linux/amd64 {base}\n"})
    refused = img.fails(5, "build", "--pull=never", context)
    assert f"{base} is not in the store for linux/amd64, and pulling is off" in refused.stderr
    assert f"the store has {base} for linux/arm64" in refused.stderr


def test_pull_knows_the_policies(img: Img, registry: Registry, tmp_path: Path) -> None:
    base = push(registry, tmp_path, "one", "pulled:1")
    img.fails(5, "pull", "--policy=never", base)
    img.ok("pull", base)
    push(registry, tmp_path, "two", "pulled:1")
    for policy, expected in {"missing": "one", "never": "one", "newer": "two"}.items():
        img.ok("pull", f"--policy={policy}", base)
        assert version(img, base) == expected


# ---- the lock file -----------------------------------------------------------------------------------


def test_a_locked_build_keeps_what_a_tag_meant(
    img: Img, make_context: Context, registry: Registry, tmp_path: Path
) -> None:
    base, digest = push_index(registry, tmp_path, "locked-one")
    context = make_context({"Dockerfile": f"FROM {base} AS a\nFROM scratch\nCOPY --from=a / /\n"})
    assert f"added    {base} {digest}" in img.ok("lock", context).stdout
    text = f'{{\n  "version": 1,\n  "images": {{\n    "{base}": "{digest}"\n  }}\n}}\n'
    assert (context / "img.lock").read_text() == text
    _, new = push_index(registry, tmp_path, "locked-two")
    result = img.ok("build", "--locked", "--pull", "--json", "-t", "t", context).json()
    assert result["bases"] == {base: digest}
    assert "locked-one" in img.image().text("version")
    for architecture in OTHER:
        platform = f"linux/{architecture}"
        img.ok("build", "--locked", "--platform", platform, "-t", "t", context)
        assert img.image().text("version") == f"locked-one {architecture}"

    assert "up to date" in img.ok("lock", context).stdout
    moved = img.fails(1, "lock", "--check", context)
    assert f"moved    {base} {digest} -> {new}" in moved.stdout
    assert lock_of(context)["images"] == {base: digest}
    assert f"renewed  {base} {digest} -> {new}" in img.ok("lock", "--update", context).stdout
    img.ok("lock", "--check", context)
    img.build(context, "--locked")
    assert "locked-two" in img.image().text("version")


def test_drift_is_an_error_with_its_place(
    img: Img, make_context: Context, registry: Registry, tmp_path: Path
) -> None:
    one, two = (push(registry, tmp_path, v, f"drift-{v}:1") for v in ("one", "two"))
    context = make_context({"Dockerfile": f"FROM {one}\n"})
    missing = img.fails(2, "build", "--locked", context)
    assert "img.lock: there is no lock file, and the build is to be locked" in missing.stderr
    assert "hint: img lock PATH writes it" in missing.stderr
    img.ok("lock", context)

    (context / "Dockerfile").write_text(f"FROM {one}\nCOPY --from={two} /version /two\n")
    told = img.build(context)
    assert f"Dockerfile:2: img.lock does not pin {two}: img lock adds it" in told.stderr
    refused = img.fails(2, "build", "--locked", context).stderr
    assert f"Dockerfile:2: img.lock does not pin {two}" in refused
    line = f"    2 | COPY --from={two} /version /two"
    assert f"{line}\n      | {' ' * 12}^" in refused
    assert "img lock --update" in refused
    assert f"missing  {two}" in img.fails(1, "lock", "--check", context).stdout
    img.ok("lock", context)
    img.build(context, "--locked")

    (context / "Dockerfile").write_text(f"FROM {two}\n")
    stale = img.fails(2, "build", "--locked", context).stderr
    assert "img.lock:4: nothing in Dockerfile asks for this any more" in stale
    assert f'    4 |     "{one}": "sha256:' in stale
    assert "hint: img lock drops it" in stale
    assert f"stale    {one}" in img.fails(1, "lock", "--check", context).stdout
    img.build(context)
    assert f"dropped  {one}" in img.ok("lock", context).stdout
    img.build(context, "--locked")


def test_a_stage_that_the_target_does_not_need_is_no_drift(
    img: Img, make_context: Context, registry: Registry, tmp_path: Path
) -> None:
    one, two = (push(registry, tmp_path, v, f"stage-{v}:1") for v in ("one", "two"))
    context = make_context({"Dockerfile": f"FROM {one} AS one\nFROM {two} AS two\n"})
    img.ok("lock", context)
    assert sorted(lock_of(context)["images"]) == sorted([one, two])
    img.build(context, "--locked", "--target=one")
    img.ok("lock", "--target=two", context)
    assert sorted(lock_of(context)["images"]) == sorted([one, two])


def test_update_of_a_name_leaves_the_others(
    img: Img, make_context: Context, registry: Registry, tmp_path: Path
) -> None:
    names = [push(registry, tmp_path, "one", f"update-{n}:1") for n in "ab"]
    context = make_context({"Dockerfile": "".join(f"FROM {name}\n" for name in names)})
    img.ok("lock", context)
    before = lock_of(context)["images"]
    for letter in "ab":
        push(registry, tmp_path, "two", f"update-{letter}:1")
    img.ok("lock", f"--update={names[0]}", context)
    after = lock_of(context)["images"]
    assert after[names[0]] != before[names[0]]
    assert after[names[1]] == before[names[1]]
    unknown = img.fails(2, "lock", "--update=nothing", context)
    assert "img.lock has no entry nothing" in unknown.stderr


def test_a_pin_that_the_registry_has_no_longer_is_said_to_be_gone(
    img: Img, make_context: Context, registry: Registry, tmp_path: Path
) -> None:
    base = push(registry, tmp_path, "one", "gone:1")
    context = make_context({"Dockerfile": f"FROM {base}\n"})
    digest = digest_of(b"nothing")
    (context / "img.lock").write_text(json.dumps({"version": 1, "images": {base: digest}}))
    refused = img.fails(3, "build", "--locked", context).stderr
    assert f"Dockerfile:1: img.lock pins {base} to {digest}, which its registry has no longer" in refused
    assert f"hint: img lock --update={base}" in refused
    assert "has no longer" in img.fails(3, "lock", context).stderr
    img.ok("lock", f"--update={base}", context)
    img.build(context, "--locked")


def test_what_add_fetches_is_pinned(img: Img, make_context: Context, web: GitWeb, tmp_path: Path) -> None:
    repository = Repository(tmp_path / "git", "app")
    first = repository.commit({"a": "one"})
    url = web.put("/file", "one")
    remote = web.repository("app")
    context = make_context({"Dockerfile": f"FROM scratch\nADD {url}?token=x /file\nADD {remote}#main /app\n"})
    unpinned = make_context(
        {"Dockerfile": (context / "Dockerfile").read_text(), "img.lock": '{"version": 1}'}
    )
    refused = img.fails(2, "build", "--locked", unpinned)
    assert "Dockerfile:2: img.lock does not pin" in refused.stderr
    img.ok("lock", context)
    lock = lock_of(context)
    assert lock["git"] == {f"{remote}#main": first}
    (name,) = lock["http"]
    assert name.startswith(f"{url}?")
    assert "token" not in name
    assert lock["http"][name] == digest_of(b"one")
    second = repository.commit({"a": "two"})
    img.build(context, "--locked")
    assert img.image().text("app/a") == "one"
    assert f"moved    {remote}#main {first} -> {second}" in img.fails(1, "lock", "--check", context).stdout

    web.put("/file", "two")
    fresh = img.build(context, "--locked")
    assert "Using cache" in fresh.text
    changed = Img(tmp_path / "other", img.home)
    refused = changed.fails(3, "build", "--locked", context)
    assert f"img.lock pins it to {digest_of(b'one')}" in refused.stderr
    assert f"img lock --update={url}" in refused.stderr
    img.ok("lock", f"--update={name}", context)
    assert lock_of(context)["http"][name] == digest_of(b"two")
    img.build(context, "--locked")
    assert img.image().text("file") == "two"
    assert img.image().text("app/a") == "one"


def test_images_of_triggers_and_named_contexts_are_pinned(
    img: Img, make_context: Context, registry: Registry, tmp_path: Path
) -> None:
    other = push(registry, tmp_path, "one", "trigger-other:1")
    layout = tmp_path / "onbuild"
    write_layout(layout, [], {"OnBuild": [f"COPY --from={other} /version /v"]}, tag="1")
    base = registry.push_layout(layout, "onbuild", tag="1")
    context = make_context({"Dockerfile": f"FROM {base} AS unused\nFROM extra\n"})
    named = f"--build-context=extra=docker-image://{other.replace('trigger-other', 'named')}"
    push(registry, tmp_path, "named", "named:1")
    img.ok("lock", named, context)
    lock = lock_of(context)
    assert list(lock["triggers"]) == [other]
    assert sorted(lock["images"]) == sorted([base, other.replace("trigger-other", "named")])
    img.build(context, "--locked", named)
    img.build(context, "--locked", named, "--target=unused")
    refused = img.fails(2, "build", "--locked", "--build-context=extra=docker-image://" + other, context)
    assert "asks for this any more" in refused.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{\n<<<<<<< HEAD\n}", "img.lock:2: a merge conflict was left in it"),
        ('{\n  "version": 1,\n  "images": {"a" "b"}\n}', "img.lock:3: it is no JSON"),
        ('{\n  "version": 7\n}', "img.lock:2: it has the version 7; this img knows 1"),
        (
            '{\n  "version": 1,\n  "git": {\n    "u#main": "sha256:1"\n  }\n}',
            "img.lock:4: u#main is pinned to",
        ),
        ('{\n  "version": 1,\n  "imagse": {}\n}', "img.lock:3: 'imagse' is no section"),
    ],
)
def test_a_file_that_is_no_lock_file_is_refused_with_its_line(
    img: Img, make_context: Context, text: str, expected: str
) -> None:
    context = make_context({"Dockerfile": "FROM scratch\n", "img.lock": text})
    for command in (("build",), ("lock",)):
        refused = img.fails(2, *command, context)
        assert expected in refused.stderr
    assert (context / "img.lock").read_text() == text


def test_the_lock_file_may_be_elsewhere_and_a_context_may_bring_its_own(
    img: Img, make_context: Context, registry: Registry, web: GitWeb, tmp_path: Path
) -> None:
    base = push(registry, tmp_path, "one", "elsewhere:1")
    context = make_context({"docker/Dockerfile": f"FROM {base}\n"})
    flags = ("-f", "docker/Dockerfile")
    img.ok("lock", *flags, ".", cwd=context)
    assert (context / "docker" / "img.lock").is_file()
    img.ok("build", "--locked", *flags, ".", cwd=context)
    img.ok("lock", *flags, "--lock-file=other.lock", ".", cwd=context)
    assert (context / "other.lock").read_text() == (context / "docker" / "img.lock").read_text()
    (context / "docker" / "img.lock").unlink()
    img.ok("build", "--locked", *flags, "--lock-file=other.lock", ".", cwd=context)

    repository = Repository(tmp_path / "git", "locked")
    repository.commit({"Dockerfile": f"FROM {base}\n", "img.lock": (context / "other.lock").read_text()})
    push(registry, tmp_path, "two", "elsewhere:1")
    img.ok("build", "--locked", "--pull", "-t", "t", web.repository("locked"))
    assert version(img) == "one"
    refused = img.fails(2, "lock", web.repository("locked"))
    assert "--lock-file FILE" in refused.stderr


def test_a_lock_file_that_was_named_has_to_be_there(img: Img, make_context: Context) -> None:
    context = make_context({"Dockerfile": "FROM scratch\n"})
    refused = img.fails(2, "build", "--lock-file=no.lock", context)
    assert "no.lock: there is no such lock file" in refused.stderr
    img.ok("lock", "--lock-file=no.lock", context)
    img.ok("build", "--lock-file=no.lock", "--locked", context)


def test_the_library_locks_and_tells_what_names_meant(
    img: Img, make_context: Context, registry: Registry, tmp_path: Path
) -> None:
    base = push(registry, tmp_path, "one", "library:1")
    context = make_context({"Dockerfile": f"FROM {base}\n"})
    with Client(img.state) as client:
        with pytest.raises(LockError, match="there is no lock file"):
            client.build(context, locked=True)
        result = client.lock(context)
        assert [(e.name, e.state) for e in result.entries] == [(base, "missing")]
        assert result.written
        (pin,) = (entry.pin for entry in result.entries)
        push(registry, tmp_path, "two", "library:1")
        built = client.build(context, tag="t", locked=True, pull="always")
        assert built.bases == {base: pin}
        assert client.lock(context, mode="check").drifted
        assert client.lock(context, mode="update", names=base).entries[0].was == pin
    with Client(img.state) as client, pytest.raises(StoreError, match="pulling is off"):
        client.build(context, pull="never")


def test_lock_prints_its_entries_as_json(
    img: Img, make_context: Context, registry: Registry, tmp_path: Path
) -> None:
    base = push(registry, tmp_path, "one", "json:1")
    context = make_context({"Dockerfile": f"FROM {base}\nFROM scratch\n"})
    result: Outcome = img("lock", "--check", "--json", context)
    assert result.code == 1
    (entry,) = result.json()["entries"]
    assert (entry["kind"], entry["name"], entry["state"], entry["was"]) == ("images", base, "missing", "")
    assert not (context / "img.lock").exists()
    assert img.ok("lock", "--json", context).json()["written"] is True
