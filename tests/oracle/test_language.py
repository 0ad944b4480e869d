"""The language beside buildah's: what it knows of it (no SHELL, no ONBUILD in OCI images) gives the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import Context
from tests.oracle.test_peers import same_config, same_files
from tests.support import hosts
from tests.support.command import Img
from tests.support.peers import Peers

BOTH = {
    "variables and operators": (
        "ARG A=1\nARG B\nENV E=x/$A F=${B:-none} G=${A:+set} H='$A' I=\\$A\nENV J ${E} \"k\"\n"
        'LABEL a=$A e=${E} f="$F $G"\nWORKDIR /w/$A\nUSER $UNSET\n'
        "RUN echo $A $B $E $F $G $H $I $J > /o\n"
    ),
    "commands in every form": (
        'ENTRYPOINT ["/bin/echo", "a b"]\nCMD c "d"\n'
        'RUN ["/bin/sh", "-c", "echo \\"a  b\\" > /o"]\nRUN echo $0 >> /o\n'
    ),
    "what is exposed, stopped and kept": (
        "ARG P=80\nEXPOSE $P 53/udp\nSTOPSIGNAL SIGINT\nWORKDIR a\nRUN pwd > /one\n"
        'WORKDIR ../b/./c\nRUN pwd > /two\nUSER worker\nVOLUME /v /w\nVOLUME ["/c d"]\n'
    ),
    "an entrypoint that forgets the command of its base": 'ENTRYPOINT ["/bin/true"]\n',
    "a command that its own stage set": 'CMD ["x"]\nENTRYPOINT ["/bin/true"]\n',
    "continuations and comments": (
        'RUN echo a \\\n  # why\n  b \\\n    c > /o\nENV A=1 \\\n    B="two \\\n words"\nLABEL x=\\\ny\n'
    ),
    "stages": (
        "ENV IN=a\nLABEL l=1\nRUN echo one > /one\nFROM a AS b\nARG MORE=arg\nRUN echo $IN $MORE > /two\n"
        "FROM {base}\nCOPY --from=b /one /two /d/\nCOPY --from=0 /one /zero\nLABEL m=2\n"
    ),
}


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peers]:
    """buildah with storage of its own."""
    made = Peers(tmp_path_factory.mktemp("peers") / "p")
    yield made
    made.close()


@pytest.mark.parametrize("name", BOTH)
def test_buildah_reads_it_the_same(
    name: str, img: Img, make_context: Context, busybox_image: str, peers: Peers
) -> None:
    if not hosts.many_ids():
        pytest.skip("needs more than one user id: a range in /etc/subuid and uidmap")
    text = "FROM {base} AS a\n" + BOTH[name]
    context = make_context({"Dockerfile": text.replace("{base}", busybox_image)})
    img.build(context)
    theirs, ours = peers.bud(context, "t"), img.image()
    same_config(ours, theirs)
    same_files(ours, theirs)
