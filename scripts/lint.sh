#!/usr/bin/env bash
# Every check that runs no image: style, types, floors, Rust.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
find_cargo || die "cargo is missing" "run make setup"
cd "$ROOT"
export PYO3_PYTHON=$VENV/bin/python

check() {
    say "$*"
    "$@"
}

check "$VENV/bin/ruff" check --quiet python tests benches scripts
check "$VENV/bin/ruff" format --quiet --check python tests benches scripts
check "$VENV/bin/mypy" --no-error-summary
check "$VENV/bin/mypy" --no-error-summary --strict --explicit-package-bases tests benches
check "$VENV/bin/python" -m mypy.stubtest --mypy-config-file pyproject.toml img._core
check "$VENV/bin/lint-imports" --no-logo
check cargo fmt --all --check
check cargo clippy --quiet --locked --workspace --all-targets -- -D warnings
# All tests are img-core's: the extension over it is tested from Python. Owners and mounts are root's to give:
# who is not root is root in a namespace.
as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(unshare --map-root-user --map-auto --mount)
check "${as_root[@]}" cargo test --quiet --locked --package img-core
