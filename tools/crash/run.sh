#!/usr/bin/env bash
# The crash runs: `run.sh crash` kills at random moments, `run.sh steps` at each step of the object
# tier. Further arguments go to crash.py (--kills, --seed) or steps.py. TAILRACE_BIN names another
# broker.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../clients/setup.sh"
need_python

binary=${TAILRACE_BIN:-${CARGO_TARGET_DIR:-$repository/target}/release/tailrace}
[[ -x $binary ]] || { echo "$binary is missing: run \`make build\`" >&2; exit 1; }
export CRASH_DIR=${CRASH_DIR:-$repository/.cache}
kind=${1:-crash}
(($# == 0)) || shift
(cd "$repository/tools/crash" && "$python" -B verdict_test.py 2>&1 | tail -n 3)
exec "$python" -B "$repository/tools/crash/$kind.py" --binary "$binary" "$@"
