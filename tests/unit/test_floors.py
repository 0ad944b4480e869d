"""What the import linter cannot see: the extension stays out of the pure floors."""

from __future__ import annotations

import ast
from pathlib import Path

import img

HOME = Path(img.__file__).parent
PURE = (
    *("errors.py", "progress.py", "client.py", "oci/*.py", "dockerfile/*.py", "registry/*.py", "cli/**/*.py"),
    *(
        f"builder/{name}.py"
        for name in ("plan/__init__", "configure", "draft", "scope", "graph", "key", "users", "assemble")
    ),
)


def imports_the_extension(path: Path) -> bool:
    return any(
        isinstance(node, ast.ImportFrom)
        and (node.module == "img._core" or (node.module == "img" and "_core" in {a.name for a in node.names}))
        for node in ast.walk(ast.parse(path.read_text()))
    )


def test_text_wire_plan_and_command_line_know_nothing_of_the_extension() -> None:
    files = [path for pattern in PURE for path in HOME.glob(pattern)]
    assert len(files) > 40
    assert [str(path.relative_to(HOME)) for path in files if imports_the_extension(path)] == []


def test_the_floors_that_touch_disk_do() -> None:
    assert imports_the_extension(HOME / "store" / "blobs.py")
