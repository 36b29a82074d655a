# Sourced. Sets $binary and $python, and where a cluster of three keeps its data.

source "$(dirname "${BASH_SOURCE[0]}")/../clients/setup.sh"

binary=${TAILRACE_BIN:-${CARGO_TARGET_DIR:-$repository/target}/release/tailrace}
[[ -x $binary ]] || { echo "$binary is missing: run \`make build\`" >&2; exit 1; }
need_python
export CLUSTER_DIR=${CLUSTER_DIR:-$repository/.cache}
