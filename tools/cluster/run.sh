#!/usr/bin/env bash
# Three brokers of `tailrace dev --nodes 3` under load and faults; arguments go to cluster.py (--seed,
# --rounds). TAILRACE_BIN names another broker.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../clients/setup.sh"

binary=${TAILRACE_BIN:-${CARGO_TARGET_DIR:-$repository/target}/release/tailrace}
[[ -x $binary ]] || { echo "$binary is missing: run \`make build\`" >&2; exit 1; }
need_python
export CLUSTER_DIR=${CLUSTER_DIR:-$repository/.cache}
"$python" -B "$repository/tools/cluster/cluster.py" --binary "$binary" "$@"
