#!/usr/bin/env bash
# Three brokers of `tailrace dev --nodes 3` under load and faults; arguments go to cluster.py (--seed,
# --rounds). TAILRACE_BIN names another broker.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
"$python" -B "$repository/tools/cluster/cluster.py" --binary "$binary" "$@"
