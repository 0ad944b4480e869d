"""The answers of `--call` as data: as docker spells them, and findings as SARIF.

`calls` prints what these give. Docker's forms have the Dockerfile itself beside its places, in base64.
Source: BuildKit, subrequests `frontend.lint`, `frontend.outline`, `frontend.targets`; SARIF 2.1.0,
OASIS, sections 3.14 (run), 3.27 (result), 3.49 (reportingDescriptor).
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from img.version import __version__

if TYPE_CHECKING:
    from img.builder.outline import Outline, OutlineMount, Target
    from img.dockerfile import Finding
    from img.engine.calls import CheckResult

SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def check_json(result: CheckResult) -> dict[str, Any]:
    """Findings as docker has them; `level` and `hint` are ours."""
    from img.dockerfile.checks import RULES

    warnings = [
        _filled(
            ruleName=found.rule,
            description=RULES[found.rule].about,
            url=RULES[found.rule].url,
            detail=found.message,
            location=_location(found.line, found.end_line),
            level=found.level,
            hint=found.hint,
        )
        for found in result.findings
    ]
    data: dict[str, Any] = {"warnings": warnings, "sources": [_source(result.path, result.source)]}
    error = result.error or result.refused
    if error is not None:
        data["buildError"] = {"message": error.message, "location": _location(error.line, error.line)}
    return data


def outline_json(outline: Outline, path: str, source: bytes) -> dict[str, Any]:
    """An outline as docker has it: what is empty is left out."""
    args = [
        _filled(
            name=arg.name,
            description=arg.description,
            value=arg.value,
            location=_location(arg.line, arg.line),
        )
        for arg in outline.args
    ]
    caches = [{"ID": mount.name, "location": _location(mount.line, mount.line)} for mount in outline.caches]
    return _filled(
        name=outline.name,
        description=outline.description,
        args=args,
        secrets=_mounts(outline.secrets),
        ssh=_mounts(outline.ssh),
        cache=caches,
        sources=[_base64(source)],
    )


def targets_json(targets: Sequence[Target], path: str, source: bytes) -> dict[str, Any]:
    """Targets as docker has them."""
    listed = [
        _filled(
            name=target.name,
            default=target.default,
            description=target.description,
            base=target.base,
            platform=target.platform,
            location=_location(target.line, target.line),
        )
        for target in targets
    ]
    return {"targets": listed, "sources": [_base64(source)]}


def _mounts(mounts: Sequence[OutlineMount]) -> list[dict[str, Any]]:
    return [
        _filled(name=mount.name, required=mount.required, location=_location(mount.line, mount.line))
        for mount in mounts
    ]


def _filled(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


def _location(line: int, end: int) -> dict[str, Any]:
    return {"ranges": [{"start": {"line": line}, "end": {"line": end or line}}]} if line else {}


def _source(path: str, source: bytes) -> dict[str, Any]:
    return {"filename": path, "data": _base64(source), "language": "Dockerfile"}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


# ---- SARIF ---------------------------------------------------------------------------------------


def check_sarif(result: CheckResult, *, uri: str) -> dict[str, Any]:
    """Findings as a SARIF log of one run.

    Args:
        uri: Where the Dockerfile is, relative to the folder that the log is about.
    """
    from img.dockerfile.checks import RULES

    results = [_result(found, uri) for found in result.findings]
    rules = [
        _filled(
            id=rule.name,
            shortDescription={"text": rule.about},
            help={"text": rule.mend or rule.about},
            helpUri=rule.url,
            defaultConfiguration={"level": _level(rule.level), "enabled": not rule.experimental},
        )
        for rule in RULES.values()
    ]
    for item in results:
        item["ruleIndex"] = list(RULES).index(item["ruleId"])
    if result.error is not None:
        rules.append({"id": "DockerfileError", "shortDescription": {"text": "The Dockerfile can be built."}})
        results.append(
            {
                "ruleId": "DockerfileError",
                "ruleIndex": len(rules) - 1,
                "level": "error",
                "message": {"text": result.error.message},
                "locations": [_physical(uri, result.error.line, result.error.line, result.error.excerpt)],
            }
        )
    notes = [{"level": "note", "message": {"text": note}} for note in result.notes]
    return {
        "$schema": SARIF_SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": {"name": "img", "version": __version__, "rules": rules}},
                "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": notes}],
                "results": results,
            }
        ],
    }


def _result(found: Finding, uri: str) -> dict[str, Any]:
    text = f"{found.message}. {found.hint[:1].upper()}{found.hint[1:]}." if found.hint else found.message
    return {
        "ruleId": found.rule,
        "level": _level(found.level),
        "message": {"text": text},
        "locations": [_physical(uri, found.line, found.end_line, found.excerpt)],
    }


def _level(level: str) -> str:
    return "note" if level == "hint" else "warning"


def _physical(uri: str, line: int, end: int, excerpt: str) -> dict[str, Any]:
    place: dict[str, Any] = {"artifactLocation": {"uri": uri}}
    if line:
        place["region"] = {"startLine": line, "endLine": end or line, "snippet": {"text": excerpt}}
    return {"physicalLocation": place}
