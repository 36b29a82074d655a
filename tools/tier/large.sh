#!/usr/bin/env bash
# Five GiB through a WAL of 512 MiB: written by Java's perf tool, read back with the checksum that
# each value carries; then the data directory is deleted, rebuilt from the store, and all is read
# again. A measurement, not a step of `make test`.
#     large.sh [RECORDS]      of 1 KiB
set -euo pipefail
cd "$(dirname "$0")"
source ../clients/setup.sh
source ../clients/broker.sh
need_java
need_python

records=${1:-5242880}
topic=large
tailrace=${TAILRACE_BIN:-${CARGO_TARGET_DIR:-$repository/target}/release/tailrace}
mkdir -p "$repository/.cache"
work=$(mktemp -d -p "$repository/.cache" large.XXXXXX)
trap 'status=$?; rm -rf "$work"; (exit "$status"); leave_broker' EXIT
store=file://$work/objects

# Starts a broker on a directory.
serve() {
    BOOTSTRAP=127.0.0.1:$(free_port) admin=127.0.0.1:$(free_port)
    "$tailrace" dev --data-dir "$1" --listen "$BOOTSTRAP" --admin "$admin" --wal-size 512MiB \
        --set num.partitions=6 --object-store "$store" >"$work/log" 2>&1 &
    broker_pid=$!
    broker_home=$work
    until grep -q '^ready on ' "$work/log"; do
        kill -0 "$broker_pid" || { cat "$work/log" >&2; exit 1; }
        sleep 0.1
    done
}

metrics() {
    curl -s "http://$admin/metrics" | awk -v names="$1" '
        BEGIN { split(names, wanted, " "); for (i in wanted) known[wanted[i]] = 1 }
        !/^#/ { name = $1; sub(/{.*/, "", name); if (name in known) sum[name] += $2 }
        END { for (name in sum) printf "  %s %.4f\n", name, sum[name] }' | sort
}

lag() { metrics tailrace_offload_lag_bytes | awk '{ printf "%d", $2 }'; }

offload() {
    while (($(lag) > 0)); do sleep 0.2; done
}

"$python" ../clients/checked_values.py write "$work/payloads"
serve "$work/data"
started=$SECONDS
timeout 1200 java -Dorg.slf4j.simpleLogger.defaultLogLevel=error -cp "$classpath" \
    org.apache.kafka.tools.ProducerPerformance --topic "$topic" --num-records "$records" \
    --throughput -1 --payload-file "$work/payloads" \
    --producer-props "bootstrap.servers=$BOOTSTRAP" | tail -n 1
echo "produced in $((SECONDS - started)) s; offloaded after"
offload
echo "  $((SECONDS - started)) s"
"$python" ../clients/checked_values.py read "$BOOTSTRAP" "$topic" "$records"
metrics "tailrace_offload_objects_total tailrace_offload_bytes_total tailrace_merge_objects_total \
    tailrace_merge_bytes_total tailrace_fetch_object_bytes_total tailrace_fetch_wal_bytes_total \
    tailrace_wal_used_bytes tailrace_wal_size_bytes tailrace_produce_throttles_total \
    tailrace_produce_refused_total"
curl -s "http://$admin/metrics" | grep -E '^tailrace_object_(requests|request_latency_seconds_count)'
stop_broker

echo "the data directory is deleted and rebuilt from the store"
rm -rf "$work/data"
started=$SECONDS
"$tailrace" recover --object-store "$store" --data-dir "$work/rebuilt" --wal-size 512MiB |
    grep -v __consumer_offsets
echo "rebuilt in $((SECONDS - started)) s"
serve "$work/rebuilt"
"$python" ../clients/checked_values.py read "$BOOTSTRAP" "$topic" "$records"
stop_broker
"$tailrace" object verify --object-store "$store"
