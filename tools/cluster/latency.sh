#!/usr/bin/env bash
# A benchmark, not a test: `acks=all` with three brokers against one. Arguments go to latency.py.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
"$python" -B "$repository/tools/cluster/latency.py" --binary "$binary" "$@"
