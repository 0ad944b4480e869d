"""`img build`."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import TYPE_CHECKING, Any

from img.cli import clicks as click
from img.cli.build_inputs import outside
from img.cli.common import build_args_option, find_globals, pairs, spool_stdin, verb, words
from img.cli.reaching import build_registry_options
from img.cli.render import renderer
from img.cli.report import check_files, show, write_files
from img.cli.transfer import annotation_option, compression_options, registry_of

if TYPE_CHECKING:
    from img.engine import BuildRequest


@verb(
    "build",
    short="Build an image from a Dockerfile.",
    example="img build -t me/app .\nimg build -t me/app:1.0 -build-arg V=1.0 -target runtime --push .\n"
    "img build -t me/app - < context.tar\n"
    "img build -t me/app https://example.com/team/app.git#v1:docker",
)
@click.argument("path", metavar="PATH")
@click.option(
    "-t",
    "-tag",
    "--tag",
    "tags",
    multiple=True,
    metavar="[STAGE=]NAME[:TAG]",
    help="Name of the image, or of one target's; may be repeated.",
)
@click.option(
    "-f",
    "-file",
    "--file",
    "dockerfile",
    default="",
    metavar="FILE",
    help="Name or URL of the Dockerfile. Default: PATH/Dockerfile; - reads standard input.",
)
@build_args_option
@click.option(
    "-target",
    "--target",
    "targets",
    multiple=True,
    metavar="STAGE",
    help="Stage to build; several are one build. Default: the last one.",
)
@click.option(
    "-label", "--label", "labels", multiple=True, metavar="NAME=VALUE", help="Add a label to the image."
)
@click.option(
    "-platform",
    "--platform",
    "platforms",
    multiple=True,
    metavar="OS/ARCH[,…]",
    help="Platform to build for; several give an index.",
)
@click.option("-no-cache", "--no-cache", is_flag=True, help="Run every step.")
@click.option(
    "-no-cache-filter",
    "--no-cache-filter",
    "no_cache_filter",
    multiple=True,
    metavar="STAGE[,…]",
    help="Run every step of this stage; of all where it is empty.",
)
@click.option(
    "-no-cache-step",
    "--no-cache-step",
    "no_cache_steps",
    multiple=True,
    metavar="LINE|TEXT",
    help="Run the step of this line of the Dockerfile, or whose text holds this.",
)
@click.option(
    "-cache-from",
    "--cache-from",
    "cache_from",
    multiple=True,
    metavar="type=TYPE[,NAME=VALUE…]",
    help="Ask a shared cache: registry, local, s3, gha or azblob; may be repeated.",
)
@click.option(
    "-cache-to",
    "--cache-to",
    "cache_to",
    multiple=True,
    metavar="type=TYPE[,NAME=VALUE…]",
    help="Write a shared cache: registry, local, inline, s3, gha or azblob; may be repeated.",
)
@click.option("--explain", is_flag=True, help="Say of every step what its cache key was compared with.")
@click.option(
    "--context-normalize",
    "context_normalize",
    type=click.Choice(["git"]),
    default=None,
    help="Take the modes of the context's files from git's index.",
)
@click.option("--fail-fast", is_flag=True, help="A step that fails ends those that run beside it.")
@click.option("--offline", is_flag=True, help="Open no socket.")
@click.option(
    "--lock-file",
    default="",
    metavar="FILE",
    help="File that pins bases to digests. Default: img.lock beside the Dockerfile, where there is one.",
)
@click.option("--locked", is_flag=True, help="Refuse a base that the lock file does not pin.")
@click.option(
    "-pull",
    "--pull",
    "pull",
    is_flag=False,
    flag_value="always",
    default="missing",
    type=click.Choice(["missing", "always", "never", "newer", "true", "false"]),
    help="When to ask the registry for a base: missing (default), always, newer, never.",
)
@click.option(
    "-build-context",
    "--build-context",
    "contexts",
    multiple=True,
    metavar="NAME=VALUE",
    help="Use a folder, a URL, docker-image://NAME, oci-layout://PATH or target:STAGE under a name.",
)
@click.option(
    "-secret",
    "--secret",
    "secrets",
    multiple=True,
    metavar="id=ID[,src=FILE|,env=NAME][,cache=hash]",
    help="Give RUN --mount=type=secret a secret: a file, or a variable; with cache=hash its value counts.",
)
@click.option(
    "-ssh",
    "--ssh",
    "agents",
    multiple=True,
    metavar="default|ID[=SOCKET|KEY[,KEY]]",
    help="Give RUN --mount=type=ssh an agent: its socket, or keys.",
)
@click.option(
    "-allow",
    "--allow",
    "allow",
    multiple=True,
    type=click.Choice(["security.insecure", "network.host"]),
    help="Allow RUN --security=insecure, or RUN --network=host.",
)
@click.option(
    "-network",
    "--network",
    "network",
    type=click.Choice(["default", "none", "host"]),
    default="default",
    help="Network of every RUN that names none.",
)
@click.option(
    "-add-host",
    "--add-host",
    "add_hosts",
    multiple=True,
    metavar="NAME:ADDRESS",
    help="Add a line to the /etc/hosts of every RUN.",
)
@click.option("-shm-size", "--shm-size", "shm_size", default="", metavar="BYTES", help="Size of /dev/shm.")
@click.option(
    "-ulimit",
    "--ulimit",
    "ulimits",
    multiple=True,
    metavar="NAME=SOFT[:HARD]",
    help="Set a resource limit of every RUN.",
)
@click.option("-check", "--check", is_flag=True, help="Check the Dockerfile; build nothing.")
@click.option(
    "-call",
    "--call",
    "call",
    default="",
    metavar="METHOD[,format=FORM]",
    help="Ask instead of building: check (as text, json or sarif), outline, targets (as text or json).",
)
@click.option(
    "--print-graph",
    "print_graph",
    is_flag=False,
    flag_value="text",
    default=None,
    type=click.Choice(["text", "json", "dot"]),
    help="Show what would be built, as text (default), json or dot; build nothing.",
)
@click.option("-push", "--push", is_flag=True, help="Push every tag once the image is built.")
@click.option(
    "-o",
    "-output",
    "--output",
    "outputs",
    multiple=True,
    metavar="type=image|registry[,NAME=VALUE…]",
    help="Where the image goes: name=, push=, compression=, compression-level=, force-compression=.",
)
@compression_options
@annotation_option
@click.option("-q", "-quiet", "--quiet", is_flag=True, help="Print the image ID alone.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=None,
    metavar="N",
    help="Steps at work at once. Default: processors.",
)
@click.option("--iidfile", default="", metavar="FILE", help="Write the image ID to a file.")
@click.option("--metadata-file", default="", metavar="FILE", help="Write the result to a file, as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option(
    "--progress",
    type=click.Choice(["auto", "plain", "tty", "json", "quiet"]),
    default="auto",
    help="How progress is shown on standard error.",
)
@build_registry_options
def build_command(**flags: Any) -> None:
    """Build an image from the Dockerfile in PATH: a folder, the URL of a git repository (#REF:FOLDER), of
    an archive or of a Dockerfile; - reads an archive or a Dockerfile from standard input.
    """
    from img.engine import Engine

    call = None
    if flags["check"] or flags["print_graph"] or flags["call"] not in ("", "build"):
        from img.cli.calls import answer, read_call

        call = read_call(
            flags["call"], check=flags["check"], as_json=flags["as_json"], graph=flags["print_graph"] or ""
        )
    with ExitStack() as held:
        request = _request(flags, held.enter_context(_spool_folder(flags)))
        options = find_globals()
        settings = options.settings(jobs=flags["jobs"] or 0)
        mode = "quiet" if flags["quiet"] else flags["progress"]
        if call is None:
            check_files(flags)
        with renderer(mode, debug=options.debug) as progress:
            engine = held.enter_context(Engine(settings, progress))
            if call is not None:
                raise click.exceptions.Exit(answer(call, engine, request))
            result = engine.build(request)
            write_files(result, flags, engine.store)
        # The engine removes what the build left over when it closes, for which nobody shall have to wait.
        show(result, {**flags, "tags": request.tags}, mode)


def _spool_folder(flags: dict[str, Any]) -> AbstractContextManager[str]:
    """A folder for what standard input brings; none where it brings nothing: a kill leaves nothing behind."""
    if "-" in (flags["path"], flags["dockerfile"]):
        import tempfile

        return tempfile.TemporaryDirectory(prefix="img-")
    return nullcontext("")


def _request(flags: dict[str, Any], folder: str) -> BuildRequest:
    """Checks the flags once and makes the request of them."""
    from img.engine import BuildRequest
    from img.engine.requests import epoch_of

    from_stdin = "-" in (flags["path"], flags["dockerfile"])
    pull = {"true": "always", "false": "missing"}.get(flags["pull"], flags["pull"])
    left = _left(flags)
    for tag in left["tags"]:
        registry_of(tag.rpartition("=")[2])
    build_args = pairs(flags["build_args"], "--build-arg", bare=True)
    return BuildRequest(
        context=flags["path"],
        dockerfile=flags["dockerfile"],
        cwd=os.getcwd(),
        stdin=spool_stdin(folder) if from_stdin else "",
        **left,
        build_args=build_args,
        labels=pairs(flags["labels"], "--label", bare=False),
        targets=flags["targets"],
        platforms=words(flags["platforms"]),
        pull=pull,
        no_cache=flags["no_cache"],
        no_cache_filter=("",) if "" in flags["no_cache_filter"] else words(flags["no_cache_filter"]),
        no_cache_steps=flags["no_cache_steps"],
        cache_from=flags["cache_from"],
        cache_to=flags["cache_to"],
        explain=flags["explain"],
        context_normalize=flags["context_normalize"] or "",
        fail_fast=flags["fail_fast"],
        offline=flags["offline"],
        lock_file=flags["lock_file"],
        locked=flags["locked"],
        **outside(flags),
        epoch=epoch_of(build_args.get("SOURCE_DATE_EPOCH", os.environ.get("SOURCE_DATE_EPOCH", ""))),
    )


def _left(flags: dict[str, Any]) -> dict[str, Any]:
    """Names, and how the image leaves."""
    if flags["outputs"]:
        from img.cli.outputs import outputs  # most builds have none

        return outputs(flags)
    return {
        "tags": flags["tags"],
        "push": flags["push"],
        "compression": flags["compression"] or "",
        "compression_level": flags["level"],
        "force_compression": flags["force"],
        "annotations": flags["annotations"],
    }
