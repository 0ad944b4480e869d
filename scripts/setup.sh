#!/usr/bin/env bash
# Gets what `make demo` or `make test` needs; quick when all of it is there already.
#
#   scripts/setup.sh demo|test
#
# As root, missing Debian packages are installed. As anybody else nothing outside this folder is
# touched: what is missing is listed, with the command that gets it.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

has() { command -v "$1" >/dev/null; }
static_busybox() { has busybox && ! ldd "$(command -v busybox)" >/dev/null 2>&1; }
c_library() { echo 'int main(void){return 0;}' | gcc -x c -o /dev/null - 2>/dev/null; }

# Debian packages that are missing, one a line.
missing_packages() {
    local wanted=$1
    has newuidmap || echo uidmap
    static_busybox || echo busybox-static
    has docker-registry || echo docker-registry
    has skopeo || echo skopeo
    has gcc || echo gcc
    { has gcc && c_library; } || echo libc6-dev
    find_python >/dev/null || echo python3-venv
    has unshare || echo util-linux
    [ "$wanted" = test ] || return 0
    has mmdebstrap || echo mmdebstrap
    has git || echo git
    has strace || echo strace
    has valgrind || echo valgrind
    has umoci || echo umoci
    has buildah || echo buildah
    has podman || echo podman
    has runc || echo runc
    has zstd || echo zstd
    has xz || echo xz-utils
    has bzip2 || echo bzip2
    has mkfs.ext4 || echo e2fsprogs
    has pkg-config || echo pkg-config
    has useradd || echo passwd
}

get_packages() {
    local missing
    mapfile -t missing < <(missing_packages "$1")
    [ ${#missing[@]} -eq 0 ] && return
    if [ "$(id -u)" -ne 0 ]; then
        die "these Debian packages are missing: ${missing[*]}" \
            "an administrator gets them with:" \
            "    apt-get update && apt-get install --no-install-recommends ${missing[*]}"
    fi
    has apt-get || die "these programs' packages are missing, and there is no apt-get: ${missing[*]}"
    say "installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
}

check_rust() {
    local wanted found
    find_cargo || die "cargo is missing: img's core is written in Rust" \
        "get it for this user from https://rustup.rs (Debian's own is too old), or put it on PATH"
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml")
    found=$(rustc --version | cut -d' ' -f2)
    [ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -1)" = "$wanted" ] ||
        die "rustc $found is too old, $wanted is needed" "rustup update stable"
    [ "$1" = demo ] || { cargo fmt --version && cargo clippy --version; } >/dev/null 2>&1 ||
        die "cargo fmt or cargo clippy is missing" "rustup component add rustfmt clippy"
}

make_venv() {
    local python
    python=$(find_python) || die "no python3 of version 3.10 or newer with venv was found"
    [ -x "$VENV/bin/python" ] && "$VENV/bin/python" -c '' 2>/dev/null && return
    say "making $VENV with $python"
    rm -rf "$VENV"
    "$python" -m venv "$VENV"
}

build_wheel() {
    local digest=$1
    [ "$(cat "$DIST/.stamp" 2>/dev/null)" = "$digest" ] && compgen -G "$DIST/img-*.whl" >/dev/null && return
    [ -x "$VENV/bin/maturin" ] || "$VENV/bin/pip" install -q 'maturin>=1.9,<2'
    say "building the wheel"
    mkdir -p "$DIST"
    rm -f "$DIST"/img-*.whl "$DIST/.stamp"
    (
        cd "$ROOT"
        PYO3_PYTHON=$VENV/bin/python "$VENV/bin/maturin" build --quiet --release --locked \
            --compatibility linux --out "$DIST"
    )
    echo "$digest" >"$DIST/.stamp"
}

install_wheel() {
    local digest=$1 wheel
    [ "$(cat "$VENV/.stamp" 2>/dev/null)" = "$digest" ] && return
    wheel=$(compgen -G "$DIST/img-*.whl" | head -1)
    say "installing ${wheel##*/} with its development tools"
    "$VENV/bin/pip" install -q --force-reinstall --no-deps "$wheel"
    "$VENV/bin/pip" install -q "img[dev,tui] @ file://$wheel"
    echo "$digest" >"$VENV/.stamp"
}

wanted=${1:?usage: scripts/setup.sh demo|test}
[ -w "$ROOT" ] || die "$ROOT cannot be written by $(id -un)" "clone it into a folder of your own"
get_packages "$wanted"
check_rust "$wanted"
make_venv
digest=$(sources_digest)
build_wheel "$digest"
install_wheel "$digest"
