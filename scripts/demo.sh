#!/usr/bin/env bash
# The main job, end to end, shown like a transcript: base image into a registry on loopback, pull,
# build with RUN and COPY and two stages, ls, push, unpack, and a run out of the unpacked result.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"
PATH=$VENV/bin:$PATH

work=$(mktemp -d "${TMPDIR:-/tmp}/img-demo.XXXXXX")
registry_pid=
ids=()
if [ "$(id -u)" -ne 0 ]; then
    ids=(unshare --user --map-root-user)
    ! command -v newuidmap >/dev/null || ! grep -qE "^($(id -un)|$(id -u)):" /etc/subuid || ids+=(--map-auto)
fi

finish() {
    [ -z "$registry_pid" ] || kill "$registry_pid" 2>/dev/null || true
    ${ids[@]+"${ids[@]}"} rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

show() {
    printf '\n$ %s\n' "$*"
    "$@"
}

# Starts the registry on a port that the kernel picks, and reads it from the registry's own log.
start_registry() {
    local log=$work/registry.log
    cat >"$work/registry.yml" <<YAML
version: 0.1
storage: {filesystem: {rootdirectory: $work/registry}}
http: {addr: "127.0.0.1:0"}
YAML
    docker-registry serve "$work/registry.yml" >/dev/null 2>"$log" </dev/null &
    registry_pid=$!
    for _ in $(seq 100); do
        host=$(sed -n 's/.*listening on \([0-9.:]*\).*/\1/p' "$log")
        [ -z "$host" ] || return 0
        kill -0 "$registry_pid" 2>/dev/null || break
        sleep 0.1
    done
    cat "$log" >&2
    die "docker-registry did not start"
}

# skopeo looks for credentials in this folder; where none is named, in one that root may have for itself.
export XDG_RUNTIME_DIR=$work

echo "# A base image of one static busybox goes into a registry on loopback."
start_registry
python -m tests.support.layout "$work/busybox" >/dev/null
show skopeo --insecure-policy copy --quiet --dest-tls-verify=false \
    "oci:$work/busybox:latest" "docker://$host/busybox:latest"

echo
echo "# From here on it is img alone, as $(id -un), with no daemon."
export IMG_STATE=$work/state
show img version
show img pull "$host/busybox:latest"
show img build -t "$host/demo:latest" --build-arg "BASE=$host/busybox:latest" examples/demo
echo
echo "# The same build again: every step comes from the cache."
show img build -t "$host/demo:latest" --build-arg "BASE=$host/busybox:latest" examples/demo
show img ls
show img images
show img push "$host/demo:latest"
show skopeo --insecure-policy inspect --tls-verify=false --format '{{.Digest}} {{.Labels}}' \
    "docker://$host/demo:latest"
show img unpack -o "$work/rootfs" "$host/demo:latest"
echo
echo "# What was built runs."
if [ "$(id -u)" -eq 0 ]; then
    show chroot "$work/rootfs" /usr/bin/greet everybody
else
    show "${ids[@]}" chroot "$work/rootfs" /usr/bin/greet everybody
fi
echo
echo "demo: done"
