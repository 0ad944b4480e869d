"""RUN --mount beside buildah's: the same Dockerfile, the same files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Context
from tests.support import hosts
from tests.support.command import Img
from tests.support.peers import Peers

from .test_peers import same_files

FILES = {"src/f": "f\n", "src/d/g": "g\n", "one": "1\n", ".dockerignore": "src/hidden\n", "src/hidden": "h\n"}

# This buildah leaves some mount points behind and takes others away that the image had, so all of them are
# where `same_files` does not look. It knows no .dockerignore here, and lets a mount with rw change the
# context itself.
CASES = {
    "the context, whole and in part": (
        "RUN --mount=type=bind,target=/run/c cp /run/c/src/f /got && ls -A /run/c/src/d > /list\n"
        "RUN --mount=type=bind,source=src/d,target=/run/in/deep cat /run/in/deep/g > /part\n"
    ),
    "a stage": (
        "RUN --mount=type=bind,from=made,source=/made,target=/run/m cp -a /run/m /copy\n"
        "RUN --mount=from=made,source=/made,target=/run/m stat -c '%a %u:%g' /run/m/* > /got\n"
    ),
    "a cache from step to step": (
        "RUN --mount=type=cache,target=/run/c echo one >> /run/c/log\n"
        "RUN --mount=type=cache,target=/run/c echo two >> /run/c/log && cp /run/c/log /got\n"
        "RUN --mount=type=cache,id=other,target=/run/c,mode=0700 stat -c %a /run/c > /mode; ls /run/c > /no\n"
    ),
    "a tmpfs": "RUN --mount=type=tmpfs,target=/run/t echo x > /run/t/f && cat /run/t/f > /got\n",
    "a secret": (
        "RUN --mount=type=secret,id=k cat /run/secrets/k > /got; stat -c '%a %u:%g' /run/secrets/k > /mode\n"
        "RUN --mount=type=secret,id=k,target=/run/k,mode=0444,uid=5,gid=6 stat -c '%a %u:%g' /run/k > /own\n"
        "RUN --mount=type=secret,id=none ls /run/secrets/none 2> /dev/null || echo missing > /none\n"
    ),
}


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peers]:
    """buildah with storage of its own."""
    made = Peers(tmp_path_factory.mktemp("peers") / "p")
    yield made
    made.close()


@pytest.mark.parametrize("name", CASES)
def test_buildah_makes_the_same_files(
    name: str, img: Img, make_context: Context, busybox_image: str, peers: Peers, tmp_path: Path
) -> None:
    if not hosts.many_ids():
        pytest.skip("needs more than one user id: a range in /etc/subuid and uidmap")
    (tmp_path / "k").write_text("a secret\n")
    made = "RUN mkdir /made && echo m > /made/m && chmod 640 /made/m && chown 7:8 /made/m\n"
    dockerfile = f"FROM {busybox_image} AS made\n{made}FROM {busybox_image}\n{CASES[name]}"
    context = make_context({"Dockerfile": dockerfile, **FILES})
    flags = ("--secret", f"id=k,src={tmp_path / 'k'}")
    img.build(context, *flags)
    same_files(img.image(), peers.bud(context, "mounts", "--no-cache", *flags))
