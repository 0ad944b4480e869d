"""Logging in: the registry says whether credentials are right; an identity token is kept in their place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from img.errors import NotFound, Unauthorized
from img.oci import Reference
from img.registry import ConfigFile, Credentials, Place, push
from img.registry.login_file import LoginFile

from tests.suites.registry.conftest import Connect, Known
from tests.suites.registry.images import make_image
from tests.suites.registry.servers import HTPASSWD, PASSWORD, USER, DockerRegistry, FaultyRegistry, status
from tests.support.registry import Registry as Running
from tests.support.tokens import TokenServer

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("needs_docker_registry")]

GOOD = Credentials(username=USER, password=PASSWORD)
WRONG = Credentials(username=USER, password="guessed-it")


@pytest.fixture(scope="module")
def basic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running(tmp_path_factory.mktemp("basic"), htpasswd=HTPASSWD) as running:
        yield running


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[TokenServer]:
    with TokenServer(tmp_path / "tokens", users={USER: PASSWORD}) as running:
        yield running


@pytest.fixture
def bearer(tmp_path: Path, tokens: TokenServer) -> Iterator[Running]:
    with Running(tmp_path / "bearer", auth=tokens.auth) as running:
        yield running


def test_basic_credentials_are_tried_at_the_registry(connect: Connect, basic: Running) -> None:
    done = connect().login(Place.parse(f"{basic.host}/team"), GOOD)
    assert done.checked and done.credentials == GOOD
    with pytest.raises(Unauthorized, match="does not take this user name and password") as caught:
        connect().login(Place.parse(basic.host), WRONG)
    assert caught.value.status == 401 and "access token" in caught.value.hint
    assert "guessed-it" not in f"{caught.value!r}{caught.value.hint}{caught.value.__cause__!r}"


def test_a_token_server_is_asked_for_a_token_to_keep(
    connect: Connect, bearer: Running, tokens: TokenServer
) -> None:
    done = connect().login(Place.parse(bearer.host), GOOD)
    assert done.checked and done.credentials == GOOD
    (asked,) = tokens.requests
    assert (asked.user, asked.account, asked.offline, asked.scopes) == (USER, USER, True, ())
    with pytest.raises(Unauthorized, match="does not take this user name"):
        connect().login(Place.parse(bearer.host), WRONG)
    tokens.fail(503)
    assert connect().login(Place.parse(bearer.host), GOOD).checked


def test_an_identity_token_is_kept_in_the_place_of_the_password_and_opens_the_registry(
    connect: Connect, bearer: Running, tokens: TokenServer, tmp_path: Path
) -> None:
    tokens.gives_refresh = True
    place = Place.parse(bearer.host)
    done = connect().login(place, GOOD)
    assert done.credentials == Credentials(username=USER, identity_token=f"refresh-{USER}-0")
    LoginFile(str(tmp_path / "config.json")).store(place, done.credentials)
    kept = ConfigFile(str(tmp_path / "config.json"))
    ref, bits = Reference.parse(f"{bearer.host}/team/app:1"), make_image(1000)
    push(connect(kept), ref, bits.manifest, bits.open)
    assert {request.grant for request in tokens.requests[1:]} == {"refresh_token"}
    assert not any(request.offline for request in tokens.requests[1:])
    assert connect().login(place, done.credentials).credentials == done.credentials
    tokens.refresh_tokens.clear()
    with pytest.raises(Unauthorized, match="does not take the identity token"):
        connect().login(place, done.credentials)


def test_a_registry_that_asks_for_nothing_has_checked_nothing(
    connect: Connect, docker: DockerRegistry, faulty: FaultyRegistry
) -> None:
    assert not connect().login(Place.parse(docker.host), GOOD).checked
    with pytest.raises(NotFound, match="has no registry at /v2/") as caught:
        connect().login(Place.parse(faulty.host), GOOD)
    assert "name" in caught.value.hint


def test_a_registry_that_repeats_the_password_is_not_quoted(connect: Connect, faulty: FaultyRegistry) -> None:
    said = json.dumps({"errors": [{"code": "DENIED", "message": f"not {PASSWORD}, ever"}]}).encode()
    faulty.fail("", status(401, WWW_Authenticate='Basic realm="r"'), status(401, said))
    with pytest.raises(Unauthorized) as caught:
        connect().login(Place.parse(faulty.host), GOOD)
    assert PASSWORD not in f"{caught.value}" and "ever" not in f"{caught.value}"
    said = json.dumps({"errors": [{"code": "DENIED", "message": "not from this network"}]}).encode()
    faulty.fail("", status(401, WWW_Authenticate='Basic realm="r"'), status(403, said))
    with pytest.raises(Unauthorized, match="not from this network"):
        connect().login(Place.parse(faulty.host), GOOD)
    told = json.dumps({"errors": [{"code": "DENIED", "message": "no more of t0k3n-of-old here"}]}).encode()
    realm = f'Bearer realm="http://{faulty.host}/token"'
    faulty.fail("", status(401, WWW_Authenticate=realm))
    faulty.fail("token", status(401, told))
    with pytest.raises(Unauthorized) as caught:
        connect().login(Place.parse(faulty.host), Credentials(identity_token="t0k3n-of-old"))
    assert "t0k3n-of-old" not in f"{caught.value}{caught.value.__cause__}"


def test_a_token_is_good_for_what_its_user_may_do(
    connect: Connect, bearer: Running, tokens: TokenServer
) -> None:
    tokens.rights = {"ali": {"team/*": ("pull", "push")}, "": {"open/*": ("pull",)}}
    bits, (mine, other) = (
        make_image(1000),
        (Reference.parse(f"{bearer.host}/{name}/app:1") for name in ("team", "other")),
    )
    known = Known(USER, PASSWORD)
    push(connect(known), mine, bits.manifest, bits.open)
    with pytest.raises(Unauthorized):
        push(connect(known), other, bits.manifest, bits.open)
    with pytest.raises(Unauthorized):
        connect().manifest(mine)
    tokens.lifetime = -3600
    with pytest.raises(Unauthorized):
        connect(known).manifest(mine)
    tokens.lifetime, tokens.lenient = None, True
    assert (
        connect().login(Place.parse(bearer.host), WRONG).checked
    )  # as docker has it: the registry is believed
