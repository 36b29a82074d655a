#!/usr/bin/env bash
# A benchmark, not a test: a lost disk is replaced, with logs of two lengths. Arguments go to replace.py.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
"$python" -B "$repository/tools/cluster/replace.py" --binary "$binary" "$@"
