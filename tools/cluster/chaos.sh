#!/usr/bin/env bash
# Three brokers in network namespaces, under a random schedule of kill -9, SIGSTOP, partitions and full
# disks; needs root. Arguments go to chaos.py (--seed, --seconds, --request-timeout-ms). TAILRACE_BIN
# names another broker.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
run_alone "$python" -B "$repository/tools/cluster/chaos.py" --binary "$binary" "$@"
