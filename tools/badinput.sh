#!/usr/bin/env bash
# Each bad input of a broker's life; see badinput/badinput.py. Needs root: it makes loop devices,
# mounts, and takes capabilities away.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/clients/setup.sh"
need_python

binary=${TAILRACE_BIN:-${CARGO_TARGET_DIR:-$repository/target}/release/tailrace}
[[ -x $binary ]] || { echo "$binary is missing: run \`make build\`" >&2; exit 1; }
mkdir -p "$repository/.cache"
exec "$python" "$repository/tools/badinput/badinput.py" "$binary" "$repository/.cache" "$@"
