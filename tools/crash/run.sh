#!/usr/bin/env bash
# The crash run; arguments go to crash.py (--kills, --seed). TAILRACE_BIN names another broker.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../clients/setup.sh"
need_python

binary=${TAILRACE_BIN:-${CARGO_TARGET_DIR:-$repository/target}/release/tailrace}
[[ -x $binary ]] || { echo "$binary is missing: run \`make build\`" >&2; exit 1; }
export CRASH_DIR=${CRASH_DIR:-$repository/.cache}
(cd "$repository/tools/crash" && "$python" -B verdict_test.py 2>&1 | tail -n 3)
exec "$python" -B "$repository/tools/crash/crash.py" --binary "$binary" "$@"
