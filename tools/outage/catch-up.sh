#!/usr/bin/env bash
# A benchmark, not a test: consumers of old records against a bare reader of the same objects.
#     catch-up.sh file|s3 [arguments of catch_up.py]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

export OUTAGE_DIR=${OUTAGE_DIR:-$repository/.cache}
mkdir -p "$OUTAGE_DIR"

# A device with one queue for all cores completes writes on the core of its interrupt, behind whatever runs
# there; one with a queue for each core, as NVMe has, on the core that asked. This has the former do the same.
queue=
complete_where_asked() {
    local device folder
    device=$(findmnt --noheadings --output SOURCE --target "$OUTAGE_DIR")
    folder=$(readlink -f "/sys/class/block/$(basename "$device")")
    [[ -d $folder/queue ]] || folder=$(dirname "$folder")
    if [[ ! -w $folder/queue/rq_affinity ]]; then
        echo "writes may complete on any core: $folder/queue/rq_affinity cannot be set" >&2
        return
    fi
    queue=$folder/queue/rq_affinity
    queue_before=$(<"$queue")
    echo 2 >"$queue"
    echo "$queue: 2 in place of $queue_before for this run"
}

restore() {
    if [[ -n $queue ]]; then echo "$queue_before" >"$queue"; fi
}
trap 'restore; leave_outage' EXIT
complete_where_asked
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
