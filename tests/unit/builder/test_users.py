"""Who a process is, and whom a copied file belongs to. Source: Dockerfile reference, USER and --chown."""

from __future__ import annotations

import pytest
from img.builder.users import Identity, UnknownUser, identity, named_owner, owner

FILES = {
    "/etc/passwd": b"# people\nroot:x:0:0:root:/root:/bin/sh\n"
    b"me:x:1000:1001:Me,\xff:/home/me:/bin/sh\nbare:x:7\n\n",
    "/etc/group": b"root:x:0:\nstaff:x:50:me,other\nwheel:x:10:me\nme:x:1001:\n",
}
read = FILES.get


def nothing(path: str) -> bytes | None:
    """An image without any file."""
    return None


@pytest.mark.parametrize(
    ("user", "who"),
    [
        ("", Identity(uid=0, gid=0, groups=(0,), home="/root")),
        ("root", Identity(uid=0, gid=0, groups=(0,), home="/root")),
        ("me", Identity(uid=1000, gid=1001, groups=(1001, 50, 10), home="/home/me")),
        ("1000", Identity(uid=1000, gid=1001, groups=(1001, 50, 10), home="/home/me")),
        ("me:staff", Identity(uid=1000, gid=50, groups=(50,), home="/home/me")),
        ("me:77", Identity(uid=1000, gid=77, groups=(77,), home="/home/me")),
        ("1234", Identity(uid=1234, gid=0, groups=(0,))),
        ("1234:staff", Identity(uid=1234, gid=50, groups=(50,))),
        ("bare", Identity(uid=7, gid=0, groups=(0,))),
    ],
)
def test_a_run_has_the_numbers_the_groups_and_the_home_that_the_image_says(user: str, who: Identity) -> None:
    assert identity(user, read) == who


def test_numbers_need_no_file() -> None:
    assert identity("5:6", nothing) == Identity(uid=5, gid=6, groups=(6,))
    assert identity("", nothing) == Identity(uid=0, gid=0, groups=(0,))


@pytest.mark.parametrize(
    ("chown", "ids"),
    [
        ("me", (1000, 1001)),
        ("me:staff", (1000, 50)),
        ("5", (5, 5)),
        ("5:0", (5, 0)),
        (":staff", (0, 50)),
        ("5:", (5, 5)),
        ("me:7", (1000, 7)),
        ("7:staff", (7, 50)),
        ("bare", (7, 7)),
        ("root", (0, 0)),
    ],
)
def test_a_copied_file_belongs_to_whom_the_flag_says(chown: str, ids: tuple[int, int]) -> None:
    unknown: list[UnknownUser] = []
    assert owner(chown, read, unknown.append) == ids
    assert unknown == []


@pytest.mark.parametrize(
    ("chown", "ids", "names"),
    [
        ("nobody", (0, 0), ["nobody"]),
        ("me:nobody", (1000, 1001), ["nobody"]),
        ("5:nobody", (5, 5), ["nobody"]),
        ("who:what", (0, 0), ["who", "what"]),
        ("who:7", (0, 7), ["who"]),
    ],
)
def test_a_copied_file_of_a_name_that_nobody_has_is_root_s_and_that_is_told(
    chown: str, ids: tuple[int, int], names: list[str]
) -> None:
    unknown: list[UnknownUser] = []
    assert owner(chown, read, unknown.append) == ids
    assert [error.name for error in unknown] == names


def test_an_owner_by_number_reads_no_file_of_the_image() -> None:
    def forbidden(path: str) -> bytes | None:
        raise AssertionError(path)

    for chown in ("5", "5:6", ":7", "root", "root:root", "5:"):
        assert not named_owner(chown)
        owner(chown, forbidden, lambda unknown: forbidden(str(unknown)))
    assert named_owner("me") and named_owner("5:staff")


@pytest.mark.parametrize(
    ("name", "file"), [("nobody", "/etc/passwd"), ("me:nobody", "/etc/group"), ("5:nobody", "/etc/group")]
)
def test_a_name_that_the_image_does_not_know_is_an_error_that_names_the_file(name: str, file: str) -> None:
    with pytest.raises(UnknownUser, match="'nobody'") as caught:
        identity(name, read)
    assert caught.value.file == file
