"""How registries are reached: what flags, files of the user and the environment say, for every verb alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from img import Client

from tests.conftest import Context
from tests.support.command import Img
from tests.support.registry import Registry

pytestmark = pytest.mark.once


@pytest.fixture
def secure(tmp_path: Path, busybox_layout: Path) -> Iterator[Registry]:
    """A registry with TLS; its authority is `ca.crt` in a folder beside it."""
    authority = trustme.CA()
    own = authority.issue_cert("127.0.0.1")
    (tmp_path / "certs").mkdir()
    authority.cert_pem.write_to_path(str(tmp_path / "certs/ca.crt"))
    own.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    tls = tmp_path / "server.pem", tmp_path / "server.pem"
    with Registry(tmp_path / "secure", tls=tls) as running:
        running.push_layout(busybox_layout, "busybox")
        yield running


def test_a_certificate_is_trusted_where_that_was_said(
    img: Img, secure: Registry, make_context: Context, tmp_path: Path
) -> None:
    name, port = f"{secure.host}/busybox", secure.host.partition(":")[2]
    certs = tmp_path / "certs"
    refused = img.fails(3, "pull", name)
    assert "was refused" in refused.stderr
    img.ok("pull", "--tls-ca", certs / "ca.crt", name)
    img.ok("pull", "--cert-dir", certs, name)
    img.ok("pull", "--insecure-registry", name)
    img.ok("pull", "--insecure-registry=127.0.0.0/8", name)
    img.ok("push", "-tls-verify=false", name)
    img.ok("manifest", "inspect", "--insecure", name)
    img.fails(3, "pull", "--tls-verify", "--insecure-registry=false", name)
    img.fails(2, "pull", "--tls-verify=perhaps", name)
    far = make_context({"Dockerfile": f"FROM 0.0.0.0:{port}/busybox\n"})  # leads here, but is not loopback
    img.fails(3, "build", far)
    img.ok("build", "--insecure-registry", f"0.0.0.0:{port}", far)
    own = img.home / ".config/containers/certs.d" / secure.host
    own.parent.mkdir(parents=True)
    own.symlink_to(certs)
    img.ok("pull", name)
    (certs / "client.cert").touch()
    assert "client.cert has no key" in img.fails(2, "pull", name).stderr


def test_mirrors_and_rules_come_from_flags_files_and_the_environment(
    img: Img, registry: Registry, busybox_image: str, make_context: Context, tmp_path: Path
) -> None:
    far, mirror = "far.invalid/busybox", f"far.invalid={registry.host}"
    assert "no such host" in img.fails(3, "pull", far).stderr
    debug = img.ok("--debug", "pull", "--registry-mirror", mirror, far).stderr
    assert f"from mirror {registry.host}" in debug

    conf = tmp_path / "mine.conf"
    conf.write_text(f'[[registry]]\nprefix = "far.invalid"\nlocation = "{registry.host}"\n')
    files = make_context({"Dockerfile": f"FROM {far}\n"})
    img.ok("build", "--pull", "--registries-conf", conf, "-t", "far.invalid/rewritten", files)
    img.ok("push", "far.invalid/rewritten", env={"CONTAINERS_REGISTRIES_CONF": str(conf)})
    img.ok("pull", f"{registry.host}/rewritten")
    assert "there is no file" in img.fails(2, "pull", "--registries-conf", "none", far).stderr

    own = img.home / ".config/containers"
    (own / "registries.conf.d").mkdir(parents=True)
    (own / "registries.conf").write_text('[[registry]]\nlocation = "127.0.0.1"\nblocked = true\n')
    (own / "registries.conf.d/b.conf").write_text(
        f'[[registry]]\nlocation = "{registry.host}"\nblocked = true\n'
    )
    for verb in ("pull", "push"):
        outcome = img.fails(3, verb, f"{registry.host}/rewritten")
        assert f"{own}/registries.conf.d/b.conf:1 blocks {registry.host}" in outcome.stderr
    (own / "registries.conf.d/c.conf").write_text("[[registry]]\nlocation = 5\n")
    assert f"{own}/registries.conf.d/c.conf:1: 'location' is no text" in img.fails(2, "pull", far).stderr
    img.ok("images")  # who asks nobody reads no rules
    img.ok("build", files)


def test_the_library_takes_them_as_arguments(registry: Registry, busybox_image: str, tmp_path: Path) -> None:
    with Client(tmp_path / "state", mirrors=[f"far.invalid={registry.host}"]) as client:
        assert client.pull("far.invalid/busybox").size > 0
