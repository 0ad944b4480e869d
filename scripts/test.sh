#!/usr/bin/env bash
# Runs the suite; as root first as an ordinary user, then, as root, what runs builds. Arguments go to pytest.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

TEST_USER=img-test

# The first number above every range that /etc/subuid and /etc/subgid give away.
next_free_range() {
    awk -F: '{end = $2 + $3; if (end > top) top = end} END {print (top > 100000 ? top : 100000)}' \
        /etc/subuid /etc/subgid 2>/dev/null
}

make_user() {
    local start
    id "$TEST_USER" >/dev/null 2>&1 || useradd --create-home --shell /bin/sh "$TEST_USER"
    touch /etc/subuid /etc/subgid
    if ! grep -q "^$TEST_USER:" /etc/subuid || ! grep -q "^$TEST_USER:" /etc/subgid; then
        start=$(next_free_range)
        usermod --add-subuids "$start-$((start + 65535))" --add-subgids "$start-$((start + 65535))" "$TEST_USER"
    fi
}

# A folder that the ordinary user can enter, wherever this checkout lies: the installed wheel in a
# virtual environment of its own, the tests, and a home.
make_place() {
    local place=$1 stamp
    mkdir -p "$place"
    chmod 755 "$place"
    stamp=$(cat "$DIST/.stamp")
    if [ "$(cat "$place/.stamp" 2>/dev/null)" != "$stamp" ]; then
        say "installing the wheel for $TEST_USER"
        rm -rf "$place/venv"
        "$(find_python)" -m venv "$place/venv"
        "$place/venv/bin/pip" install -q "img[dev,tui] @ file://$(compgen -G "$DIST/img-*.whl" | head -1)"
        echo "$stamp" >"$place/.stamp"
    fi
    rm -rf "$place/checkout"
    mkdir "$place/checkout"
    (cd "$ROOT" && tar -cf - --exclude=__pycache__ --exclude=./target --exclude=./.venv --exclude=./.git --exclude=./dist .) |
        tar -xf - --no-same-owner -C "$place/checkout"
    chmod -R a+rX "$place/checkout" "$place/venv"
    install -d -o "$TEST_USER" -g "$TEST_USER" -m 755 "$place/home" "$place/tmp"
    install -d -o "$TEST_USER" -g "$TEST_USER" -m 700 "$place/run"
}

as_user() {
    local place=$1 name
    shift
    local keep=()
    for name in CI http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
        [ -z "${!name:-}" ] || keep+=("$name=${!name}")
    done
    (
        cd "$place/checkout"
        setpriv --reuid "$TEST_USER" --regid "$TEST_USER" --init-groups \
            env -i PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin LANG=C.UTF-8 \
            HOME="$place/home" USER="$TEST_USER" LOGNAME="$TEST_USER" TMPDIR="$place/tmp" \
            XDG_RUNTIME_DIR="$place/run" \
            HYPOTHESIS_STORAGE_DIRECTORY="$place/tmp/hypothesis" PYTHONDONTWRITEBYTECODE=1 "${keep[@]}" "$@"
    )
}

# A test waits for disks and for other programs now and then: one more at once than there are processors.
workers=$(($(nproc) + 1))
failed=0
if [ "$(id -u)" -eq 0 ]; then
    make_user
    place=/var/tmp/img-test-$(id -u "$TEST_USER")
    make_place "$place"
    say "the suite as $TEST_USER"
    as_user "$place" "$place/venv/bin/python" -m pytest -p no:cacheprovider -n "$workers" "$@" || failed=1
    # What comes out the same for everybody has been tested by then.
    [ $# -gt 0 ] || set -- -m "not once" tests/e2e tests/oracle
elif [ -z "${XDG_RUNTIME_DIR:-}" ]; then
    # skopeo and podman would look for credentials in a folder that root may have for itself.
    XDG_RUNTIME_DIR=$(mktemp -d)
    export XDG_RUNTIME_DIR
    trap 'rm -rf "$XDG_RUNTIME_DIR"' EXIT
fi
cd "$ROOT"
say "the suite as $(id -un)"
"$VENV/bin/python" -m pytest -n "$workers" "$@" || failed=1
exit "$failed"
