#!/usr/bin/env bash
# A benchmark, not a test: `run.sh partitions|recovery|bandwidth|recycling|budget|profile ARGUMENTS`; what each measures is at the top of its
# .py file.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
what=$1
shift
if [[ $what == recovery || $what == bandwidth ]] && ! command -v fio >/dev/null; then
    echo "bench: fio is missing: apt-get install fio" >&2
    exit 1
fi
exec "$python" -B "$repository/tools/bench/$what.py" --binary "$binary" "$@"
