#!/usr/bin/env bash
# A benchmark, not a test: consumers of old records against a bare reader of the same objects.
#     catch-up.sh file|s3 [arguments of catch_up.py]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
trap leave_outage EXIT

start_outage
export OUTAGE_DIR=${OUTAGE_DIR:-$repository/.cache}
store=$1
shift
if [[ $store == s3 ]]; then
    store=$direct
    # It stands for another machine: who uses it has the cores first.
    renice -n 19 -p "${s3_pids[@]}" >/dev/null
fi
"$python" -B "$repository/tools/outage/catch_up.py" --binary "$binary" --store "$store" "$@"
