#!/usr/bin/env bash
# A broker on a real S3 server behind a proxy that misbehaves; arguments go to outage.py (--seed,
# --outage-seconds, --only). TAILRACE_BIN names another broker.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
trap leave_outage EXIT

start_outage
(cd "$repository/tools/outage" && "$python" -B verdict_test.py 2>&1 | tail -n 3)
export OUTAGE_DIR=${OUTAGE_DIR:-$repository/.cache}
"$python" -B "$repository/tools/outage/outage.py" --binary "$binary" --store "$store" \
    --control "$proxy_control" "$@"
