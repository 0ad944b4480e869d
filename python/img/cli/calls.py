"""`--check`, `--call`, `--print-graph`: what is asked about a build, for people, as JSON, SARIF or dot.

`build` hands over when one of the flags says so. Results go to standard output. Exit codes: 0 where
the checks found nothing but hints, 1 where they found a warning, 2 where it is no Dockerfile.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from img.cli import call_forms as forms
from img.cli import clicks as click
from img.cli.common import table
from img.values import dataclass

if TYPE_CHECKING:
    from img.builder.outline import Outline, Target
    from img.dockerfile import Finding
    from img.engine import BuildRequest, Engine
    from img.engine.calls import CheckResult

METHODS = ("build", "check", "outline", "targets")
_FORMATS = {"check": ("text", "json", "sarif"), "outline": ("text", "json"), "targets": ("text", "json")}
_ALIASES = {"lint": "check"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What is asked: a method of `METHODS` other than `build`, or `graph`; and the form of the answer."""

    method: str
    form: str = "text"


def read_call(text: str, *, check: bool, as_json: bool, graph: str = "") -> Call | None:
    """Reads `--call=METHOD[,format=FORM]`; None where the build is to be carried out.

    Args:
        check: `--check` was given.
        as_json: `--json` was given.
        graph: The form that `--print-graph` wants, or empty.
    Raises:
        click.UsageError: there is no such method, or it has no such form.
    """
    if graph:
        if check or text:
            raise click.UsageError("--print-graph and --check or --call ask for different things.")
        return Call(method="graph", form="json" if as_json and graph == "text" else graph)
    method, *options = text.split(",")
    method = _ALIASES.get(method, method) or "build"
    if method not in METHODS:
        raise click.UsageError(f"--call is one of {', '.join(METHODS)}, not {method!r}.")
    if check and text and method != "check":
        raise click.UsageError(f"--check and --call={method} ask for different things.")
    if method == "build" and not check:
        if options:
            raise click.UsageError("--call=build has no options.")
        return None
    call = Call(method="check" if check else method, form="json" if as_json else "text")
    for option in options:
        name, _, form = option.partition("=")
        if name != "format" or form not in _FORMATS[call.method]:
            forms = " or ".join(f"format={known}" for known in _FORMATS[call.method])
            raise click.UsageError(f"--call={call.method} takes {forms}, not {option!r}.")
        call = Call(method=call.method, form=form)
    return call


def answer(call: Call, engine: Engine, request: BuildRequest) -> int:
    """Asks, and prints what comes of it; gives the exit code.

    Raises:
        DockerfileError: the Dockerfile cannot be built; what the checks found before is printed.
    """
    calls = engine.calls(request)
    if call.method == "graph":
        from img.cli import graph_forms

        graph = calls.graph()
        if call.form == "json":
            _print(graph_forms.graph_json(graph))
        else:
            click.echo((graph_forms.graph_dot if call.form == "dot" else graph_forms.graph_text)(graph))
        return 0
    if call.method == "check":
        return _check(call, calls.check(), request)
    if call.method == "outline":
        outline = calls.outline()
        if call.form == "json":
            _print(forms.outline_json(outline, *calls.source))
        else:
            _show_outline(outline)
    else:
        targets = calls.targets()
        if call.form == "json":
            _print(forms.targets_json(targets, *calls.source))
        else:
            _show_targets(targets)
    return 0


def _check(call: Call, result: CheckResult, request: BuildRequest) -> int:
    for note in result.notes:
        print(f"note: {note}", file=sys.stderr)
    if call.form == "json":
        _print(forms.check_json(result))
    elif call.form == "sarif":
        _print(forms.check_sarif(result, uri=_uri(result.path, request)))
    else:
        _show_findings(result)
    if result.error is not None:
        raise result.error
    return 1 if any(found.level == "warning" for found in result.findings) else 0


def _print(data: object) -> None:
    """Prints JSON with its keys in the order in which docker has them."""
    click.echo(json.dumps(data, indent=2))


def _uri(path: str, request: BuildRequest) -> str:
    """Where the Dockerfile is, as seen from the present folder: what a viewer of SARIF looks up."""
    if not request.dockerfile and request.context != "-" and "://" not in request.context:
        path = os.path.normpath(os.path.join(request.context, path))
    return Path(path).as_uri() if os.path.isabs(path) else quote(path)


# ---- for people ----------------------------------------------------------------------------------


def _show_findings(result: CheckResult) -> None:
    for found in result.findings:
        name = f"{found.rule} (hint)" if found.level == "hint" else found.rule
        click.echo(f"{found.where}: {name}: {found.message}")
        for number, line in enumerate(found.excerpt.split("\n"), found.line):
            click.echo(f"{number:>5} > {line}".rstrip())
        if found.end_line - found.line >= found.excerpt.count("\n") + 1:
            click.echo(f"{'':>5} > …")
        if found.hint:
            click.echo(f"{'':>5} = {found.hint}")
        click.echo()
    if result.error is None:
        fails = "; a build fails for that, since the checks have error=true" if result.refused else ""
        click.echo(_count(result.findings) + fails)


def _count(findings: Sequence[Finding]) -> str:
    hints = sum(1 for found in findings if found.level == "hint")
    warnings = len(findings) - hints
    counted = f"{warnings or 'no'} warning{'' if warnings == 1 else 's'}"
    return f"{counted}, {hints} hint{'' if hints == 1 else 's'}" if hints else counted


def _show_outline(outline: Outline) -> None:
    click.echo(f"TARGET:      {outline.name or '(default)'}")
    if outline.description:
        click.echo(f"DESCRIPTION: {outline.description}")
    if outline.args:
        click.echo()
        table(
            ("BUILD ARG", "VALUE", "DESCRIPTION"),
            [(arg.name, arg.value or "", arg.description) for arg in outline.args],
        )
    for title, mounts in (("SECRET", outline.secrets), ("SSH", outline.ssh)):
        if mounts:
            click.echo()
            table((title, "REQUIRED"), [(m.name, "true" if m.required else "") for m in mounts])
    if outline.caches:
        click.echo()
        table(("CACHE",), [(m.name,) for m in outline.caches])


def _show_targets(targets: Sequence[Target]) -> None:
    rows = [
        (f"{target.name or '-'}{' (default)' if target.default else ''}", target.base, target.description)
        for target in targets
    ]
    table(("TARGET", "BASE", "DESCRIPTION"), rows)
