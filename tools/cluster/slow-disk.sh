#!/usr/bin/env bash
# A benchmark, not a test: `acks=all` with one of three disks delayed against none; needs root. Arguments
# go to slow_disk.py.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
need_slowdisk
run_alone "$python" -B "$repository/tools/cluster/slow_disk.py" --binary "$binary" \
    --slowdisk "$slowdisk" "$@"
