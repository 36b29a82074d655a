# Sourced. Sets $binary and $python, and where a cluster of three keeps its data. For runs that need more
# than that there are run_alone and need_slowdisk.

source "$(dirname "${BASH_SOURCE[0]}")/../clients/setup.sh"

binary=${TAILRACE_BIN:-${CARGO_TARGET_DIR:-$repository/target}/release/tailrace}
[[ -x $binary ]] || { echo "$binary is missing: run \`make build\`" >&2; exit 1; }
need_python
export CLUSTER_DIR=${CLUSTER_DIR:-$repository/.cache}

# Runs a command with network, mounts and processes of its own: all of that is gone when it ends, or this
# script does, however that is.
run_alone() {
    local tool
    if [[ $(id -u) -ne 0 ]]; then
        echo "cluster: needs root (namespaces, iptables, mount); run it with sudo" >&2
        exit 1
    fi
    for tool in setpriv unshare nsenter taskset ip iptables-restore mkfs.ext4; do
        command -v "$tool" >/dev/null || { echo "cluster: $tool is missing; see tools/install.sh" >&2; exit 1; }
    done
    setpriv --pdeathsig KILL unshare --net --mount --pid --fork --kill-child --mount-proc "$@"
}

# Sets $slowdisk, the program of slowdisk.c.
need_slowdisk() {
    slowdisk=$client_cache/slowdisk
    once_for "$repository/tools/cluster/slowdisk.c" build_slowdisk
    [[ -x $slowdisk ]] || build_slowdisk
}

build_slowdisk() {
    cc -O2 -Wall -Wextra -Werror -pthread -o "$slowdisk" "$repository/tools/cluster/slowdisk.c"
}
