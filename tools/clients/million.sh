#!/usr/bin/env bash
# One million records of 1 KiB from Java's perf tool with its defaults, read back by Java's perf tool
# (counts) and by librdkafka (counts, and the checksum that each value carries).
#     million.sh [RECORDS]
set -euo pipefail
cd "$(dirname "$0")"
source ./setup.sh
source ./broker.sh
need_java
need_python

records=${1:-1000000}
topic=million
work=$(mktemp -d)
trap 'status=$?; rm -rf "$work"; (exit "$status"); leave_broker' EXIT
start_broker --wal-size 4GiB

"$python" checked_values.py write "$work/payloads"
perf() {
    timeout 600 java -Dorg.slf4j.simpleLogger.defaultLogLevel=error -cp "$classpath" \
        "org.apache.kafka.tools.$@"
}
perf ProducerPerformance --topic "$topic" --num-records "$records" --throughput -1 \
    --payload-file "$work/payloads" --producer-props "bootstrap.servers=$BOOTSTRAP"
perf ConsumerPerformance --bootstrap-server "$BOOTSTRAP" --topic "$topic" --messages "$records" \
    --timeout 60000
"$python" checked_values.py read "$BOOTSTRAP" "$topic" "$records"
stop_broker
wal=$broker_home/data/wal
if [[ -e $wal ]]; then
    "${TAILRACE_BIN:-${CARGO_TARGET_DIR:-$repository/target}/release/tailrace}" wal verify "$wal"
fi
