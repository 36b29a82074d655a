#!/usr/bin/env bash
# One broker with its log in objects: in a folder and on a real S3 server. The WAL is a fraction of
# the log; what is read back is compared byte for byte, also after a kill and after an outage.
set -euo pipefail
cd "$(dirname "$0")"
source ../clients/setup.sh
source ../clients/broker.sh
source ../s3/server.sh

source common.sh

# Deletes the first 1,000 records of a partition, and prints the offset of the first that is left.
deleted() {
    "$python" - "$BOOTSTRAP" "$1" <<'PYTHON'
import sys
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
admin = AdminClient({"bootstrap.servers": sys.argv[1]})
[future] = admin.delete_records([TopicPartition(sys.argv[2], 0, 1000)]).values()
assert future.result(30).low_watermark == 1000
[future] = admin.list_offsets({TopicPartition(sys.argv[2], 0): OffsetSpec.earliest()}).values()
print(future.result(30).offset)
PYTHON
}
gone() { [[ $(deleted "$1") == 1000 ]]; }
begins_at() { [[ $(kcat -b "$BOOTSTRAP" -t "$1" -p 0 -C -e -q -o beginning -c 1 -f '%o') == "$2" ]]; }

has_more_objects_than() { (($(metric tailrace_offload_objects_total) > $1)); }

# Every object and manifest file is read; a running broker does not mind.
verified() { "$tailrace" object verify --object-store "$1"; }

tier=(--wal-size 256MiB --set num.partitions=3 --set offload.bytes=4194304
    --set offload.age.ms=1000)

# The same on every store: its name, and its address.
suite() {
    local name=$1 store=$2
    check "$name: three WALs full of records are taken" produce log "$work/first"
    check "$name: all of them become objects" wait_until all_offloaded
    check "$name: the WAL gave up what is in objects" \
        test "$(metric tailrace_wal_used_bytes)" -lt 134217728
    check "$name: they are read back whole" same log "$work/first"
    check "$name: they come from objects" test "$(metric tailrace_fetch_object_bytes_total)" -gt 0
    check "$name: a killed broker starts again" again
    check "$name: nothing is lost by a kill" same log "$work/first"
    check "$name: the log goes on" produce log "$work/second"
    check "$name: old and new records make one log" same log "$work/both"
    check "$name: the store verifies while the broker runs" verified "$store"
}

need_python
lines 700000 >"$work/first"
lines 20000 | sed 's/^/second /' >"$work/second"
cat "$work/first" "$work/second" >"$work/both"

begin "${tier[@]}"
folder=file://$broker_home/data/objects
suite folder "$folder"
check "folder: a clean stop" stop_broker
check "folder: the store verifies after it" verified "$folder"

need_s3
start_s3 tier
export AWS_ACCESS_KEY_ID=tier AWS_SECRET_ACCESS_KEY=tier AWS_EC2_METADATA_DISABLED=true
export AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null
"$s3_python" - "$s3_url" <<'PYTHON'
import sys, boto3
boto3.client("s3", endpoint_url=sys.argv[1], region_name="us-east-1").create_bucket(Bucket="tier")
PYTHON
bucket="s3://tier/one?region=us-east-1&path-style=true&endpoint=$s3_url"
begin "${tier[@]}" --object-store "$bucket"
suite s3 "$bucket"

# The store is away: producers do not notice, and it is caught up with when it is back.
kill -STOP "${s3_pids[-1]}"
objects=$(metric tailrace_offload_objects_total)
check "outage: records are taken while the store does not answer" produce away "$work/second"
check "outage: they are read back meanwhile" same away "$work/second"
kill -CONT "${s3_pids[-1]}"
check "outage: the store has them when it is back" wait_until has_more_objects_than "$objects"
check "outage: all is offloaded" wait_until all_offloaded
check "outage: nothing was lost" same log "$work/both"
check "s3: records are deleted" gone log
check "s3: a reader begins after them" begins_at log 1000
check "s3: a killed broker starts again" again
check "s3: deleted records stay deleted" begins_at log 1000
check "s3: a clean stop" stop_broker
check "s3: the store verifies after it" verified "$bucket"

echo "tier: $passed passed, $failed failed"
((failed == 0))
