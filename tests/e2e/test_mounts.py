"""RUN --mount: what is bound, kept, hidden and lost. Secrets and agents have a file of their own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.conftest import Context, MakeImg
from tests.support import hosts
from tests.support.command import Img, Outcome, steps_run
from tests.support.trees import ReadImage

DEADLINE = 60

Built = Callable[..., ReadImage]


@pytest.fixture
def built(img: Img, make_context: Context, busybox_image: str) -> Built:
    """Builds a Dockerfile over busybox and reads the image: `FROM` goes without saying."""

    def build(steps: str, files: Mapping[str, str | bytes] = {}, *flags: str | Path) -> ReadImage:
        img.build(make_context({"Dockerfile": f"FROM {busybox_image}\n{steps}", **files}), *flags)
        return img.image()

    return build


@pytest.fixture
def refused(img: Img, make_context: Context, busybox_image: str) -> Callable[..., Outcome]:
    """Builds what must fail as the Dockerfile's mistake."""

    def build(steps: str, files: Mapping[str, str | bytes] = {}, *flags: str | Path) -> Outcome:
        context = make_context({"Dockerfile": f"FROM {busybox_image}\n{steps}", **files})
        return img.fails(2, "build", "-t", "t", *flags, context)

    return build


@pytest.fixture(params=["overlayfs", "native", "single"])
def each_way(request: pytest.FixtureRequest, make_img: MakeImg) -> Img:
    """`img` with overlay mounts, with copies, and with one id."""
    return make_img("--single-id") if request.param == "single" else make_img("-b", str(request.param))


# ---- bind ----------------------------------------------------------------------------------------


def test_the_context_is_there_to_read_and_leaves_nothing_in_the_layer(built: Built) -> None:
    image = built(
        "RUN --mount=target=/ctx cat /ctx/d/f > /got; ! touch /ctx/new 2>/dev/null && echo kept > /ro\n",
        {"d/f": "f\n"},
    )
    assert (image.text("got"), image.text("ro")) == ("f\n", "kept\n")
    assert set(image.layers[-1]) == {"got", "ro"}


def test_what_is_written_to_a_bind_mount_is_seen_by_the_step_and_lost(
    each_way: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = (
        f"FROM {busybox_image} AS s\nRUN mkdir /d && echo stage > /d/f\n"
        f"FROM {busybox_image}\n"
        "RUN --mount=target=/ctx,rw echo new > /ctx/a && rm /ctx/b && cat /ctx/a > /one && ls /ctx > /list\n"
        "RUN --mount=target=/ctx,rw --mount=from=s,source=/d,target=/d,readwrite"
        " cat /ctx/a > /two && echo new > /d/f && cat /d/f > /three\n"
        "RUN --mount=from=s,source=/d,target=/d cat /d/f > /four\n"
    )
    context = make_context({"Dockerfile": dockerfile, "a": "old\n", "b": ""})
    each_way.build(context)
    image = each_way.image()
    assert [image.text(n) for n in ("one", "two", "three", "four")] == ["new\n", "old\n", "new\n", "stage\n"]
    assert image.text("list") == "Dockerfile\na\n"
    assert ((context / "a").read_text(), (context / "b").exists()) == ("old\n", True)
    assert not {"ctx", "d"} & set(image.tree)


def test_a_source_is_a_folder_or_a_file(built: Built) -> None:
    image = built(
        "RUN --mount=source=d/sub,target=/x --mount=src=/d/f,dst=/etc/one"
        " cat /x/g /etc/one > /got; echo y > /etc/one 2>/dev/null || echo no >> /got\n"
        "RUN --mount=source=d/f,target=/y/f,rw echo z > /y/f && cat /y/f >> /got\n",
        {"d/f": "f\n", "d/sub/g": "g\n"},
    )
    assert image.text("got") == "g\nf\nno\nz\n"
    assert "etc/one" not in image.tree and "y" not in image.tree


def test_a_target_starts_at_the_working_folder_and_is_that_where_there_is_none(built: Built) -> None:
    image = built(
        "WORKDIR /w\nRUN --mount=target=in cat in/f /w/in/f > got\nRUN --mount=source=d cat /w/g > /got2\n",
        {"f": "f\n", "d/g": "g\n"},
    )
    assert (image.text("w/got"), image.text("got2")) == ("f\nf\n", "g\n")
    assert "w/in" not in image.tree


def test_stages_and_images_are_bound_whole_or_in_part(
    each_way: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = (
        f"FROM {busybox_image} AS tools\nRUN mkdir -p /opt/t && echo tool > /opt/t/f\n"
        f"FROM {busybox_image}\n"
        "RUN --mount=from=tools,target=/all --mount=from=0,source=opt/t,target=/part"
        f" --mount=from={busybox_image},target=/img cat /all/opt/t/f /part/f > /got; ls /img/bin/sh >> /got\n"
        "RUN --mount=from=scratch,target=/none ls -A /none > /empty\n"
    )
    each_way.build(make_context({"Dockerfile": dockerfile}))
    image = each_way.image()
    assert image.text("got") == "tool\ntool\n/img/bin/sh\n"
    assert image.text("empty") == ""
    assert not {"all", "part", "img", "none"} & set(image.tree)


@pytest.mark.parametrize("mode", ["", ",rw"])
def test_a_bind_mount_does_not_show_what_dockerignore_hides(
    mode: str, each_way: Img, make_context: Context, busybox_image: str
) -> None:
    files = {
        ".dockerignore": "secret*\nd/*\n!d/kept\ndeep/**/no\n",
        "secret.txt": "S3CRET", "d/gone": "x", "d/kept": "k\n", "deep/a/no": "n", "deep/a/yes": "y", "f": "f",
    }  # fmt: skip
    dockerfile = (
        f"FROM {busybox_image}\nRUN --mount=target=/c{mode} cd /c && find . -type f | sort > /list\n"
        f"RUN --mount=source=deep,target=/c{mode} cd /c && find . -type f | sort > /deep\n"
    )
    each_way.build(make_context({"Dockerfile": dockerfile, **files}))
    image = each_way.image()
    assert image.text("list").split() == [
        "./.dockerignore", "./Dockerfile", "./d/kept", "./deep/a/yes", "./f",
    ]  # fmt: skip
    assert image.text("deep") == "./a/yes\n"


def test_folders_that_hide_something_keep_their_mode_and_time(built: Built, make_context: Context) -> None:
    image = built(
        "RUN --mount=target=/c stat -c '%a %n' /c/d /c/d/e > /got; ls -lnd /c/d >> /got\n",
        {".dockerignore": "d/e/no\n", "d/e/no": "", "d/e/yes": ""},
    )
    assert "0        0" in image.text("got")
    assert len(image.text("got").splitlines()) == 3


def test_files_of_a_context_belong_to_root_whoever_owns_them_outside(
    built: Built, img: Img, make_context: Context, busybox_image: str
) -> None:
    context = make_context(
        {
            "Dockerfile": f"FROM {busybox_image}\nRUN --mount=target=/c ls -ln /c > /got && cp -a /c /copy\n",
            "d/f": "f",
        }
    )
    if hosts.is_root():
        for path in (context, *context.rglob("*")):
            os.chown(path, 1234, 1234)
    img.build(context)
    image = img.image()
    assert "1234" not in image.text("got")
    assert {image.tree[n].owner for n in ("copy", "copy/d", "copy/d/f")} == {"0:0"}


def test_a_missing_source_is_told_at_its_place_with_the_near_name(refused: Callable[..., Outcome]) -> None:
    outcome = refused("RUN true\nRUN --mount=source=srv/app,target=/x true\n", {"srv/apps/f": ""})
    assert "Dockerfile:3" in outcome.stderr
    assert "did you mean /srv/apps?" in outcome.stderr
    assert "^" in outcome.stderr


def test_a_missing_source_in_a_stage_and_a_hidden_one_say_where_they_were_looked_up(
    refused: Callable[..., Outcome],
) -> None:
    outcome = refused("RUN --mount=from=scratch,source=/nowhere,target=/x true\n")
    assert "Dockerfile:2" in outcome.stderr and "what from names" in outcome.stderr
    outcome = refused("RUN --mount=source=f,target=/x true\n", {"f": "", ".dockerignore": "f\n"})
    assert ".dockerignore:1 takes it out" in outcome.stderr


def test_a_symlink_of_a_hostile_image_leads_no_bind_source_outside(
    each_way: Img, make_context: Context, busybox_image: str, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("from outside")
    up = "../" * 9
    traps = f"ln -s {tmp_path}/outside /door; ln -s {up}{tmp_path} /climb; ln -s /proc/1/root /magic"
    for source in ("/door", "/door/secret", "/climb/outside/secret", f"/magic{tmp_path}/outside", "/../door"):
        dockerfile = (
            f"FROM {busybox_image} AS evil\nRUN {traps}\nFROM {busybox_image}\n"
            f"RUN --mount=from=evil,source={source},target=/m cat /m/secret /m > /got; true\n"
        )
        outcome = each_way("build", "-t", "t", make_context({"Dockerfile": dockerfile}))
        assert outcome.code == 2, f"{source}\n{outcome}"
        assert "Dockerfile:4" in outcome.stderr
    inside = (
        f"FROM {busybox_image} AS s\nRUN mkdir /real && echo ok > /real/f; ln -s /real /abs; ln -s abs /rel\n"
        f"FROM {busybox_image}\nRUN --mount=from=s,source=/rel,target=/m cat /m/f > /got\n"
    )
    each_way.build(make_context({"Dockerfile": inside}))
    assert each_way.image().text("got") == "ok\n"


def test_a_symlink_of_the_context_leads_no_bind_source_outside(
    refused: Callable[..., Outcome], tmp_path: Path, img: Img, make_context: Context, busybox_image: str
) -> None:
    (tmp_path / "outside").mkdir()
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nRUN --mount=source=door,target=/m ls /m\n"})
    (context / "door").symlink_to(tmp_path / "outside")
    assert "Dockerfile:2" in img.fails(2, "build", context).stderr


def test_mount_points_never_stay_whatever_they_are_nested_in(
    each_way: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = (
        f"FROM {busybox_image}\nRUN mkdir /keep && touch -d 2001-01-01 /keep\n"
        "RUN --mount=target=/n/a/b --mount=type=tmpfs,target=/n/a/t --mount=type=cache,target=/keep/c"
        " --mount=source=f,target=/keep/c/deep/f --mount=type=tmpfs,target=/keep/c/t2"
        " cat /n/a/b/f /keep/c/deep/f > /got\n"
        "RUN ls -A /keep > /left; ls -d --full-time /keep >> /left; ls -d /n >> /left 2>&1 || true\n"
    )
    each_way.build(make_context({"Dockerfile": dockerfile, "f": "f\n"}))
    image = each_way.image()
    assert image.text("got") == "f\nf\n"
    assert "2001-01-01" in image.text("left") and "No such file" in image.text("left")
    assert not [name for layer in image.layers for name in layer if name.startswith(("n", "keep/"))]


def test_a_mount_point_that_a_read_only_mount_lacks_is_told_with_the_way_out(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    step = "RUN --mount=target=/src{} --mount=type=cache,target=/src/node_modules touch /src/node_modules/x\n"
    context = make_context({"Dockerfile": f"FROM {busybox_image}\n{step.format('')}"})
    outcome = img("build", "-t", "t", context)
    assert outcome.code not in (0, 70) and "Traceback" not in outcome.text
    assert "/src/node_modules" in outcome.stderr and "add rw" in outcome.stderr
    (context / "Dockerfile").write_text(f"FROM {busybox_image}\n{step.format(',rw')}")
    img.build(context)
    assert sorted(path.name for path in context.iterdir()) == ["Dockerfile"]


def test_a_dockerfile_without_a_context_has_an_empty_one_to_mount(img: Img, busybox_image: str) -> None:
    text = f"FROM {busybox_image}\nRUN --mount=target=/c ls -A /c > /got\n"
    img.ok("build", "-t", "t", "-", stdin=text.encode())
    assert img.image().text("got") == ""


def test_a_source_is_a_path_and_no_pattern(built: Built) -> None:
    image = built("RUN --mount=source=[a]*,target=/c cat /c/f > /got\n", {"[a]*/f": "this\n", "ab/f": "no\n"})
    assert image.text("got") == "this\n"


def test_a_trigger_mounts_what_the_later_build_has(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    trigger = "ONBUILD RUN --mount=target=/c --mount=type=cache,target=/k cat /c/f > /got\n"
    dockerfile = f"FROM {busybox_image} AS base\n{trigger}FROM base\nRUN cat /got\n"
    img.build(make_context({"Dockerfile": dockerfile, "f": "f\n"}))
    assert img.image().text("got") == "f\n"


def test_a_mount_inside_another_needs_no_order(built: Built) -> None:
    image = built(
        "RUN --mount=source=inner,target=/o/i --mount=target=/o,source=outer,rw cat /o/i/f /o/g > /got\n",
        {"inner/f": "inner\n", "outer/g": "outer\n"},
    )
    assert image.text("got") == "inner\nouter\n"


def test_variables_are_put_into_every_value_and_docker_would_refuse_one_in_from(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = (
        f"ARG WHICH=two\nFROM {busybox_image} AS one\nRUN echo 1 > /f\nFROM {busybox_image} AS two\n"
        f"RUN echo 2 > /f\nFROM {busybox_image}\nARG NAME=f\nENV AT=/at\n"
        "RUN --mount=from=$WHICH,source=/${NAME},target=$AT/${NAME} cat /at/f > /got\n"
    )
    outcome = img.build(make_context({"Dockerfile": dockerfile}))
    assert img.image().text("got") == "2\n"
    assert outcome.stderr.count("which docker build refuses") == 1 and "Dockerfile:9" in outcome.stderr


def test_a_bind_mount_counts_by_what_it_shows(img: Img, make_context: Context, busybox_image: str) -> None:
    def context(stage: str, f: str, other: str) -> Path:
        dockerfile = (
            f"FROM {busybox_image} AS s\nRUN mkdir /d && echo same > /d/f && {stage}\n"
            f"FROM {busybox_image}\n"
            "RUN --mount=from=s,source=/d,target=/d cat /d/f > /a\n"
            "RUN --mount=source=src,target=/src cat /src/f > /b\n"
        )
        return make_context({"Dockerfile": dockerfile, "src/f": f, "other": other})

    def ran(*values: str) -> int:
        return len(steps_run(img.build(context(*values))))

    assert ran("true", "f", "o") == 3
    assert ran("true", "f", "o") == 0, "nothing changed"
    assert ran("true", "f", "changed") == 0, "what changed lies outside the source"
    assert ran("touch /elsewhere", "f", "o") == 1, "the stage ran again and shows the same"
    assert ran("true", "changed", "o") == 1
    assert ran("echo x > /d/g", "changed", "o") == 2


# ---- cache ---------------------------------------------------------------------------------------

COUNT = "echo x >> /c/log && wc -l < /c/log"


def test_a_cache_outlives_steps_and_builds_and_is_in_no_layer(
    each_way: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = (
        f"FROM {busybox_image}\nRUN --mount=type=cache,target=/c {COUNT} > /one\n"
        f"RUN --mount=type=cache,target=/c {COUNT} > /two\nRUN test ! -e /c\n"
    )
    context = make_context({"Dockerfile": dockerfile})
    each_way.build(context)
    each_way.build(context, "--no-cache")
    image = each_way.image()
    assert (image.text("one"), image.text("two")) == ("3\n", "4\n")
    assert "c" not in image.tree


def test_a_cache_is_known_by_its_id_which_is_the_target_where_none_is_given(built: Built) -> None:
    image = built(
        f"RUN --mount=type=cache,id=k,target=/c {COUNT} > /first\n"
        f"RUN --mount=type=cache,target=/c {COUNT} > /by-target\n"
        "RUN --mount=type=cache,id=k,target=/elsewhere wc -l < /elsewhere/log > /same\n"
        "RUN --mount=type=cache,id=/c,target=/d wc -l < /d/log > /named-as-target\n"
        f"RUN --mount=type=cache,id=other,target=/c {COUNT} > /other\n"
    )
    names = ("first", "by-target", "same", "named-as-target", "other")
    assert [image.text(n).strip() for n in names] == ["1"] * 5


def test_a_cache_has_the_mode_and_owner_that_it_asks_for(built: Built) -> None:
    if not hosts.many_ids():
        pytest.skip("needs more than one user id: a range in /etc/subuid and uidmap")
    image = built(
        "RUN --mount=type=cache,target=/c stat -c '%a %u:%g' /c > /default\nUSER worker\n"
        "RUN --mount=type=cache,target=/c,uid=1000,gid=50,mode=0700 stat -c '%a %u:%g' /c > /tmp/own;"
        " touch /c/f && echo written >> /tmp/own\n"
    )
    assert image.text("default") == "755 0:0\n"
    assert image.text("tmp/own") == "700 1000:50\nwritten\n"


def test_a_cache_can_be_read_only(built: Built) -> None:
    image = built(
        f"RUN --mount=type=cache,target=/c {COUNT} > /one\n"
        "RUN --mount=type=cache,target=/c,ro cat /c/log > /got; touch /c/x 2>/dev/null || echo no >> /got\n"
    )
    assert image.text("got") == "x\nno\n"


def test_a_cache_begins_as_its_seed_and_only_once(
    each_way: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = (
        f"FROM {busybox_image} AS seed\nRUN mkdir -p /s/d && echo seed > /s/d/f && chmod 711 /s\n"
        f"FROM {busybox_image}\nRUN --mount=type=cache,from=seed,source=/s,target=/c"
        " stat -c %a /c > /mode; cat /c/d/f > /one; echo changed > /c/d/f\n"
        "RUN --mount=type=cache,from=seed,source=/s,target=/c cat /c/d/f > /two\n"
        "RUN --mount=from=seed,source=/s,target=/s cat /s/d/f > /three\n"
    )
    each_way.build(make_context({"Dockerfile": dockerfile}))
    image = each_way.image()
    assert [image.text(n) for n in ("mode", "one", "two", "three")] == [
        "711\n",
        "seed\n",
        "changed\n",
        "seed\n",
    ]


def test_a_seed_that_is_a_file_and_a_source_without_from_are_refused(refused: Callable[..., Outcome]) -> None:
    outcome = refused("RUN --mount=type=cache,from=scratch,source=/f,target=/c true\n")
    assert "no source /f" in outcome.stderr
    outcome = refused("RUN --mount=type=cache,source=/f,target=/c true\n")
    assert "no from" in outcome.stderr and "Dockerfile:2" in outcome.stderr


def test_a_namespace_keeps_the_caches_of_two_callers_apart(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    context = make_context(
        {"Dockerfile": f"FROM {busybox_image}\nRUN --mount=type=cache,target=/c {COUNT} > /n\n"}
    )
    for flags, expected in (((), "1"), (("a",), "1"), (("b",), "1"), (("a",), "2"), ((), "2")):
        arguments = [f"--build-arg=BUILDKIT_CACHE_MOUNT_NS={name}" for name in flags]
        img.build(context, "--no-cache", *arguments)
        assert img.image().text("n").strip() == expected, flags


def test_what_a_cache_is_called_and_holds_makes_no_step_run_again(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    def build(mount: str) -> int:
        dockerfile = f"FROM {busybox_image}\nRUN --mount=type=cache,target=/c{mount} echo x >> /c/log\n"
        return len(steps_run(img.build(make_context({"Dockerfile": dockerfile}))))

    assert [build(m) for m in ("", "", ",id=k", ",sharing=locked", ",uid=1")] == [1, 0, 0, 0, 1]


def test_two_caches_asked_for_in_either_order_do_not_block_each_other(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    one, two = (f"--mount=type=cache,target=/{name},sharing=locked" for name in "ab")
    stages = "".join(
        f"FROM {busybox_image} AS s{n}\nRUN {' '.join((one, two)[:: 1 if n % 2 else -1])} echo {n} > /f\n"
        for n in range(8)
    )
    copies = "".join(f"COPY --from=s{n} /f /f{n}\n" for n in range(8))
    img.build(make_context({"Dockerfile": f"{stages}FROM scratch\n{copies}"}), "--jobs", "8")
    assert len(img.image().tree) == 8


def test_one_step_may_mount_a_locked_cache_twice(built: Built) -> None:
    image = built(
        "RUN --mount=type=cache,id=k,target=/c,sharing=locked --mount=type=cache,id=k,target=/d"
        " --mount=type=cache,id=k,target=/p,sharing=private"
        " echo x > /c/f && cat /d/f > /got && ls -A /p >> /got\n"
    )
    assert image.text("got") == "x\n"


class Holder:
    """A build whose step has a cache until it is told to let go, through a pipe in that cache."""

    def __init__(self, img: Img, context: Path) -> None:
        self.process = img.start("build", "-t", "holder", context)
        wait_for(self.process, b"holding\n")
        (self.pipe,) = (img.state / "cache-mounts").glob("*/data/go")

    def let_go(self) -> None:
        subprocess.run(hosts.inside("sh", "-c", f"echo > {self.pipe}"), check=True)
        output, _ = self.process.communicate(timeout=DEADLINE)
        assert self.process.returncode == 0, output.decode()


def wait_for(process: subprocess.Popen[bytes], text: bytes) -> None:
    assert process.stdout is not None
    seen = b""
    while text not in seen:
        line = process.stdout.readline()
        assert line, f"{text!r} never came:\n{seen.decode()}"
        seen += line


@pytest.fixture
def hold(img: Img, make_context: Context, busybox_image: str) -> Callable[[str], Holder]:
    """Starts a build that holds the cache /c in this sharing mode."""

    def start(sharing: str) -> Holder:
        step = f"RUN --mount=type=cache,target=/c,sharing={sharing}"
        script = "rm -f /c/go; mkfifo /c/go; echo holding; cat /c/go; echo first >> /c/log"
        return Holder(img, make_context({"Dockerfile": f"FROM {busybox_image}\n{step} {script}\n"}))

    return start


def _second(busybox_image: str, sharing: str) -> dict[str, str]:
    step = f"RUN --mount=type=cache,target=/c,sharing={sharing}"
    return {"Dockerfile": f"FROM {busybox_image}\n{step} echo second >> /c/log; cat /c/log > /got\n"}


def test_a_shared_cache_is_used_by_two_builds_at_once(
    hold: Callable[[str], Holder], img: Img, make_context: Context, busybox_image: str
) -> None:
    holder = hold("shared")
    img.build(make_context(_second(busybox_image, "shared")))
    assert img.image().text("got") == "second\n"
    holder.let_go()
    img.build(make_context(_second(busybox_image, "shared")), "--no-cache")
    assert img.image().text("got") == "second\nfirst\nsecond\n"


def test_a_locked_cache_is_waited_for_and_the_wait_is_told(
    hold: Callable[[str], Holder], img: Img, make_context: Context, busybox_image: str
) -> None:
    holder = hold("locked")
    second = img.start("build", "-t", "t", make_context(_second(busybox_image, "locked")))
    wait_for(second, b"waiting for the cache /c")
    assert second.poll() is None
    holder.let_go()
    output, _ = second.communicate(timeout=DEADLINE)
    assert second.returncode == 0, output.decode()
    assert img.image().text("got") == "first\nsecond\n"


def test_ctrl_c_ends_the_wait_for_a_cache(
    hold: Callable[[str], Holder], img: Img, make_context: Context, busybox_image: str
) -> None:
    holder = hold("locked")
    second = img.start("build", "-t", "t", make_context(_second(busybox_image, "locked")))
    wait_for(second, b"waiting for the cache /c")
    second.send_signal(2)
    assert second.wait(DEADLINE) == 130
    holder.let_go()


def test_a_private_cache_that_is_taken_is_another_one(
    hold: Callable[[str], Holder], img: Img, make_context: Context, busybox_image: str
) -> None:
    holder = hold("private")
    img.build(make_context(_second(busybox_image, "private")))
    assert img.image().text("got") == "second\n"
    holder.let_go()
    img.build(make_context(_second(busybox_image, "private")), "--no-cache")
    assert img.image().text("got") == "first\nsecond\n", "the one that is free again is taken"
    assert [row["id"] for row in img.ok("du", "--json").json()["cache_mounts"]] == ["/c", "/c"]


def test_prune_leaves_a_cache_that_is_in_use_and_frees_it_afterwards(
    hold: Callable[[str], Holder], img: Img, make_context: Context, busybox_image: str
) -> None:
    holder = hold("shared")
    img.ok("prune", "--all")
    assert [row["reclaimable"] for row in img.ok("du", "--json").json()["cache_mounts"]] == [False]
    holder.let_go()
    img.ok("prune")
    usage = img.ok("du", "--json").json()
    assert [row["reclaimable"] for row in usage["cache_mounts"]] == [True], "used lately: kept"
    assert usage["cache_mounts_bytes"] > 0
    assert img.ok("prune", "--all", "--json").json()["cache_mounts"] == 1
    assert img.ok("du", "--json").json()["cache_mounts"] == []


def test_a_cache_that_nobody_used_for_a_week_goes_with_prune(
    img: Img, built: Built, make_context: Context
) -> None:
    built(f"RUN --mount=type=cache,target=/c {COUNT}\n")
    (lock,) = (img.state / "cache-mounts").glob("*/lock")
    os.utime(lock, (1, 1))
    assert img.ok("prune", "--json").json()["cache_mounts"] == 1


def test_kill_9_of_a_build_that_holds_a_cache_leaves_it_free_and_whole(
    hold: Callable[[str], Holder], img: Img, make_context: Context, busybox_image: str
) -> None:
    holder = hold("locked")
    holder.process.kill()
    holder.process.communicate(timeout=DEADLINE)
    img.build(make_context(_second(busybox_image, "locked")))
    assert img.image().text("got") == "second\n"
    assert str(img.state) not in Path("/proc/self/mounts").read_text()
    img.ok("prune", "--all")
    assert img.ok("du", "--json").json()["cache_mounts"] == []


# ---- tmpfs ---------------------------------------------------------------------------------------


def test_a_tmpfs_has_its_size_and_is_gone_with_the_step(built: Built) -> None:
    image = built(
        "RUN --mount=type=tmpfs,target=/t,size=1m df -k /t | tail -1 > /df; stat -c %a /t > /mode;"
        " dd if=/dev/zero of=/t/f bs=64k count=32 2>/dev/null || echo full > /full\n"
        "RUN --mount=type=tmpfs,target=/t ls -A /t > /again\n"
    )
    assert image.text("df").split()[1] == "1024"
    assert (image.text("mode"), image.text("full"), image.text("again")) == ("1777\n", "full\n", "")
    assert "t" not in image.tree


def test_a_tmpfs_covers_what_the_image_has_there(built: Built) -> None:
    image = built("RUN --mount=type=tmpfs,target=/etc ls -A /etc > /got; touch /etc/lost\n")
    assert "passwd" not in image.text("got")
    assert "etc/passwd" in image.tree and "etc/lost" not in image.tree


# ---- what is wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        ("target=/", "cannot be on /"),
        ("type=tmpfs,target=/t,size=$NO", "not a size"),
        ("type=$T,target=/t", "did you mean cache?"),
        ("type=cache,target=/c,sharing=$S", "did you mean locked?"),
        ("type=cache,target=/c,uid=$S", "uid is a number"),
        ("from=$EMPTY,target=/x", "from=$EMPTY is empty"),
        ("from=nosuch:a:b,target=/x", "is no image"),
        ("from=self,target=/x", "takes from itself"),
    ],
)
def test_a_mistake_that_only_shows_with_the_variables_is_told_at_its_place(
    mount: str, message: str, img: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = f"FROM {busybox_image} AS self\nARG T=cahce\nENV S=lock NO=x\nRUN --mount={mount} true\n"
    outcome = img.fails(2, "build", "-t", "t", make_context({"Dockerfile": dockerfile}))
    assert "Dockerfile:4" in outcome.stderr and message in outcome.stderr, str(outcome)
