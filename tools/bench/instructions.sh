#!/usr/bin/env bash
# The gate on instructions for each produced record; --record takes what is found for the baseline.
set -euo pipefail
cd "$(dirname "$0")/../.."
command -v valgrind >/dev/null || { echo "instructions: valgrind is missing; see tools/install.sh" >&2; exit 1; }
cargo build --release --locked --workspace --examples
exec python3 -B tools/bench/instructions.py --program "${CARGO_TARGET_DIR:-target}/release/examples/produce_cost" \
    --baseline perf/baselines/instructions.json "$@"
