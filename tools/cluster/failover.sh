#!/usr/bin/env bash
# A benchmark, not a test: how long producers wait for another leader. Arguments go to failover.py.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
"$python" -B "$repository/tools/cluster/failover.py" --binary "$binary" "$@"
