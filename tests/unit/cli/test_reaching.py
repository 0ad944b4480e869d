"""The flags of verbs that speak to registries: every spelling that docker, podman and skopeo have."""

from __future__ import annotations

from typing import Any

import pytest
from img.cli import clicks as click
from img.cli import network
from img.cli.common import Globals, verb
from img.cli.reaching import build_registry_options, registry_options


@verb("fetch", short="Fetch.", example="img fetch")
@click.argument("names", nargs=-1)
@registry_options
def fetch_command(names: tuple[str, ...]) -> tuple[str, ...]:
    """Fetches."""
    return names


@verb("make", short="Make.", example="img make")
@click.argument("path")
@build_registry_options
def make_command(path: str) -> str:
    """Makes."""
    return path


def read(command: click.Command, line: str) -> tuple[Globals, Any]:
    kept = Globals()
    return kept, command.main(line.split(), standalone_mode=False, obj=kept)


@pytest.mark.parametrize(
    ("line", "insecure", "names"),
    [
        ("app", (), ("app",)),
        ("--insecure-registry app", ("*",), ("app",)),
        ("app --insecure-registry", ("*",), ("app",)),
        ("-insecure-registry localhost:5000/app", ("*",), ("localhost:5000/app",)),
        ("--insecure-registry localhost:5000 app", ("localhost:5000",), ("app",)),
        ("--insecure-registry registry:5000 app", ("registry:5000",), ("app",)),
        ("--insecure-registry [::1]:5000 app", ("[::1]:5000",), ("app",)),
        ("--insecure-registry 10.0.0.0/8 app", ("10.0.0.0/8",), ("app",)),
        ("--insecure-registry app:3", ("*",), ("app:3",)),
        ("--insecure-registry one app:3.1 x.lan/5", ("*",), ("one", "app:3.1", "x.lan/5")),
        ("--insecure-registry=a.lan,b.lan --insecure-registry=c.lan x", ("a.lan", "b.lan", "c.lan"), ("x",)),
        ("--insecure-registry=true x", ("*",), ("x",)),
        ("--insecure-registry=false x", (), ("x",)),
        ("--tls-verify=false x", ("*",), ("x",)),
        ("--tls-verify x", (), ("x",)),
        ("-tls-verify=true x", (), ("x",)),
    ],
)
def test_insecure_registries(line: str, insecure: tuple[str, ...], names: tuple[str, ...]) -> None:
    kept, given = read(fetch_command, line)
    assert (kept.insecure, given) == (insecure, names)


def test_a_build_names_them_always() -> None:
    kept, path = read(make_command, "--insecure-registry registry --tls-verify=false .")
    assert kept.insecure == ("registry", "*") and path == "."


def test_mirrors_and_files() -> None:
    line = "--registry-mirror one.lan,quay.io=two.lan --registry-mirror=http://three.lan --cert-dir=c x"
    kept, _ = read(fetch_command, f"{line} --registries-conf /dev/null --tls-ca ca.pem")
    assert kept.mirrors == ("docker.io=one.lan", "quay.io=two.lan", "docker.io=http://three.lan")
    assert (kept.cert_dir, kept.ca_file, kept.registries_conf) == ("c", "ca.pem", "/dev/null")


class TestSurroundings:
    def test_proxies_in_either_case(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)
        assert network.proxies() == {} and network.no_proxy() == ()
        monkeypatch.setenv("HTTPS_PROXY", "http://a")
        monkeypatch.setenv("ALL_PROXY", "http://b")
        monkeypatch.setenv("no_proxy", ".x.lan, 10.0.0.0/8\tlocal")
        assert network.proxies() == {"http": "http://b", "https": "http://a"}
        assert network.no_proxy() == (".x.lan", "10.0.0.0/8", "local")

    def test_a_file_of_ones_own_holds_instead_of_the_systems(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        home = tmp_path_factory.mktemp("config")
        monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
        monkeypatch.delenv("CONTAINERS_REGISTRIES_CONF", raising=False)
        own, common = f"{home}/containers/registries.conf", "/etc/containers/registries.conf"
        assert network.registries_conf("") == (common, f"{common}.d", f"{own}.d")
        (home / "containers").mkdir()
        (home / "containers/registries.conf").touch()
        assert network.registries_conf("") == (own, f"{own}.d")
        assert network.registries_conf(own) == (own,)
        monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", "/dev/null")
        assert network.registries_conf("") == ("/dev/null",)
        assert network.cert_dirs()[:2] == (f"{home}/containers/certs.d", "/etc/containers/certs.d")
