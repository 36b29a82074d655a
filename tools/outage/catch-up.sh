#!/usr/bin/env bash
# A benchmark, not a test: consumers of old records against a bare reader of the same objects.
#     catch-up.sh file|s3 [arguments of catch_up.py]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
trap leave_outage EXIT

export OUTAGE_DIR=${OUTAGE_DIR:-$repository/.cache}
more=(--store "$1")
if [[ $1 == s3 ]]; then
    start_outage start_s3s
    # They stand for another machine: not on the broker's core, and who uses them goes first.
    for pid in "${s3_pids[@]}" "$proxy_pid"; do
        taskset --all-tasks --cpu-list --pid "$(($(nproc) - 1))" "$pid" >/dev/null
        renice -n 19 -p $(ls "/proc/$pid/task") >/dev/null
    done
    more=(--store "$store" --control "$proxy_control" --presign "$s3_python $s3_tools/presign.py")
else
    need_python
fi
shift
"$python" -B "$repository/tools/outage/catch_up.py" --binary "$binary" "${more[@]}" "$@"
