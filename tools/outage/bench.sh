#!/usr/bin/env bash
# A benchmark, not a test: produce latency with the store there, away and back. Arguments go to
# bench.py (--rounds, --seconds, --rate, --fault, --json).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
trap leave_outage EXIT

start_outage
export OUTAGE_DIR=${OUTAGE_DIR:-$repository/.cache}
"$python" -B "$repository/tools/outage/bench.py" --binary "$binary" --store "$store" \
    --control "$proxy_control" "$@"
