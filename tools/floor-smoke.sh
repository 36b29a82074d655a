#!/usr/bin/env bash
# A short run of the floor benchmark: it must start its broker, measure and print finite ratios. The
# figures of two busy cores are not judged here.
set -euo pipefail
cd "$(dirname "$0")/.."

directory=$(mktemp -d -p "$CARGO_TARGET_DIR")
trap 'rm -rf "$directory"' EXIT

"$CARGO_TARGET_DIR/release/tailrace" bench floor --data-dir "$directory" --rounds 1 --seconds 3 \
    --json "$directory/floor.json"
python3 - "$directory/floor.json" <<'PYTHON'
import json, math, sys
ratio = json.load(open(sys.argv[1]))["ratio"]
assert all(math.isfinite(ratio[key]) and ratio[key] > 0 for key in ("p50", "p99", "p99_9")), ratio
print("floor smoke:", ratio)
PYTHON
