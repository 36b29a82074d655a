#!/usr/bin/env bash
# A benchmark, not a test: how long producers wait for another leader. Arguments go to failover.py.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../clients/setup.sh"

binary=${TAILRACE_BIN:-${CARGO_TARGET_DIR:-$repository/target}/release/tailrace}
[[ -x $binary ]] || { echo "$binary is missing: run \`make build\`" >&2; exit 1; }
need_python
export CLUSTER_DIR=${CLUSTER_DIR:-$repository/.cache}
"$python" -B "$repository/tools/cluster/failover.py" --binary "$binary" "$@"
