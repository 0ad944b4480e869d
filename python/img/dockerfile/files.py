"""`read_copy`: the grammar of COPY and ADD. Source: Dockerfile reference, "COPY" and "ADD"."""

from __future__ import annotations

from img.dockerfile.faults import fault
from img.dockerfile.flags import Kind, Known, read_flags
from img.dockerfile.forms import exec_form_of
from img.dockerfile.instructions import Copy, Heredoc
from img.dockerfile.source import Line
from img.dockerfile.words import blank_words, file_words, heredoc_mark

_FILE_FLAGS: Known = {"chown": Kind.TEXT, "chmod": Kind.TEXT, "link": Kind.SWITCH, "exclude": Kind.MANY}
_COPY_FLAGS: Known = {"from": Kind.TEXT, **_FILE_FLAGS, "parents": Kind.SWITCH}
_ADD_FLAGS: Known = {
    **_FILE_FLAGS,
    "checksum": Kind.TEXT,
    "keep-git-dir": Kind.SWITCH,
    "unpack": Kind.SWITCH,
}


def read_copy(line: Line) -> Copy:
    """Makes a COPY or an ADD.

    Raises:
        DockerfileError: a source or the destination is missing, or a flag is wrong.
    """
    add = line.keyword == "ADD"
    flags = read_flags(line, _ADD_FLAGS if add else _COPY_FLAGS)
    words = exec_form_of(line, flags.rest)
    exec_form = words is not None
    if words is None:
        words = file_words(flags.rest) if line.heredocs else blank_words(flags.rest)
    if len(words) < 2:
        missing = "a source and a destination" if not words else "a destination as well"
        raise fault(line.span, f"{line.keyword} needs {missing}", hint=f"{line.keyword} source… destination")
    sources, heredocs = (words[:-1], ()) if exec_form else _inline_files(line, words)
    return Copy(
        span=line.span,
        original=line.original,
        sources=sources,
        dest=words[-1],
        add=add,
        heredocs=heredocs,
        from_=flags.text("from"),
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=bool(flags.switch("link")),
        parents=bool(flags.switch("parents")),
        exclude=flags.many("exclude"),
        checksum=flags.text("checksum"),
        keep_git_dir=bool(flags.switch("keep-git-dir")),
        unpack=flags.switch("unpack"),
    )


def _inline_files(line: Line, words: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[Heredoc, ...]]:
    """Parts the sources that are paths from those that are here-documents."""
    if heredoc_mark(words[-1]):
        hint = f"{line.keyword} <<EOF /the/file"
        raise fault(line.span, "a here-document cannot be the destination", at=words[-1], hint=hint)
    bodies = {heredoc.name: heredoc for heredoc in line.heredocs}
    paths: list[str] = []
    files: list[Heredoc] = []
    for word in words[:-1]:
        mark = heredoc_mark(word)
        if mark is not None and mark.name in bodies:
            files.append(bodies[mark.name])
        else:
            paths.append(word)
    return tuple(paths), tuple(files)
