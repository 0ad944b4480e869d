"""The library, from a program of many threads, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

from tests.conftest import Context
from tests.support.command import Img


def _run(img: Img, program: str, *args: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(img.state), *map(str, args)],
        cwd=img.home,
        env=img.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_build_from_one_of_many_threads_leaves_the_program_as_it_was(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nARG N\nRUN echo $N > /n\n"})
    program = """
        import os, sys, threading
        import img
        state, context = sys.argv[1:]
        def self_portrait():
            return os.getuid(), os.getcwd(), *(os.readlink(f"/proc/self/ns/{n}") for n in ("user", "mnt"))
        before = self_portrait()
        stop = threading.Event()
        ballast = [threading.Thread(target=stop.wait) for _ in range(8)]
        [t.start() for t in ballast]
        results = {}
        def one(n):
            with img.Client(state=state) as client:
                results[n] = client.build(context, tag=f"app:{n}", build_args={"N": str(n)})
        builders = [threading.Thread(target=one, args=(n,)) for n in range(3)]
        [t.start() for t in builders]
        [t.join() for t in builders]
        stop.set()
        assert set(results) == {0, 1, 2}, results
        assert len({r.digest for r in results.values()}) == 3
        assert before == self_portrait()
        with img.Client(state=state) as client:
            names = [str(name) for name, image in client.store.images()]
        print(*sorted(names))
    """
    names = _run(img, program, context)
    assert all(f"app:{n}" in names for n in range(3))
    assert img.image("app:2").text("n") == "2\n"


def test_pull_build_and_push_as_functions_with_events_and_results(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    host = busybox_image.split("/")[0]
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nRUN touch /x\n"})
    program = """
        import sys
        import img
        state, context, base, target = sys.argv[1:]
        events = []
        with img.Client(state=state, progress=events.append) as client:
            image = client.pull(base)
            assert image.layers and image.size > 0
            result = client.build(context, tag=target)
            assert result.digest.startswith("sha256:") and result.steps >= 1
            again = client.build(context, tag=target)
            assert again.cached_steps == again.steps
            client.push(target)
        print(sorted({type(e).__name__ for e in events}))
    """
    assert "StepDone" in _run(img, program, context, busybox_image, f"{host}/by/library:1")


def test_a_failed_step_is_an_error_with_its_fields(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nRUN echo why; exit 7\n"})
    program = """
        import sys
        import img
        from img import errors
        state, context = sys.argv[1:]
        try:
            with img.Client(state=state) as client:
                client.build(context, tag="t")
        except errors.BuildError as error:
            print(error.exit_code_of_step, error.log_tail, error.where)
    """
    printed = _run(img, program, context)
    assert printed.startswith("7 ('why',)")
    assert "Dockerfile:2" in printed
