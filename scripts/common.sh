# Names that the scripts share. Sourced, never run.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/.venv
DIST=$ROOT/dist
PATH=$PATH:/usr/sbin:/sbin

say() { printf '==> %s\n' "$*" >&2; }

die() {
    printf 'error: %s\n' "$1" >&2
    shift
    [ $# -eq 0 ] || printf '       %s\n' "$@" >&2
    exit 1
}

# Puts cargo on PATH where rustup left it off, as it does for a shell that read no profile.
find_cargo() {
    command -v cargo >/dev/null || PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
    command -v cargo >/dev/null
}

# Prints the interpreter for the virtual environment. The system's comes first: everybody can run
# it, while one below somebody's home may be closed to the ordinary user of the tests.
find_python() {
    local candidate
    for candidate in /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11 python3.10; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

# One digest over everything that the wheel is made from.
sources_digest() {
    (
        cd "$ROOT"
        find rust python Cargo.toml Cargo.lock pyproject.toml README.md LICENSE -type f \
            ! -path '*/__pycache__/*' ! -path '*/target/*' ! -name '*.pyc' ! -name '*.so' -print0 2>/dev/null |
            LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -c1-64
    )
}
