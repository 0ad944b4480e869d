"""What a build brings in that is no image: files of a URL, of a git repository, of a named folder."""

from __future__ import annotations

from img.builder.graph import GitOp, HttpOp, TreeOp
from img.builder.perform.step import Step
from img.builder.site import Result
from img.errors import ImgError


def fetch(step: Step, op: HttpOp | GitOp | TreeOp) -> Result:
    """Brings the files to this machine.

    Raises:
        FetchError: they cannot be had.
    """
    site = step.site
    if isinstance(op, TreeOp):
        return Result(tree=site.trees[op.name], content="", cached=True)
    if site.remotes is None:
        raise ImgError("nothing may be fetched from the network")
    fetched = site.remotes.http(op) if isinstance(op, HttpOp) else site.remotes.git(op)
    return Result(fetched=fetched, content=fetched.content)
