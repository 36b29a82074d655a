#!/usr/bin/env bash
# A benchmark, not a test: how long producers wait when the leader is killed, paused, stopped, cut off, or
# its disk is slow or fails; needs root. Arguments go to failover.py.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
need_slowdisk
run_alone "$python" -B "$repository/tools/cluster/failover.py" --binary "$binary" \
    --slowdisk "$slowdisk" "$@"
