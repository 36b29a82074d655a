#!/usr/bin/env bash
# Small objects become large ones, what they replace goes, and readers notice nothing of it: while
# records come in, across kills, and with objects in the bucket that no manifest names.
set -euo pipefail
cd "$(dirname "$0")"
source ../clients/setup.sh
source ../clients/broker.sh
source ../s3/server.sh
source common.sh

settings=(--wal-size 128MiB --set num.partitions=6 --set offload.age.ms=100
    --set object.delete.grace.ms=1000 --set object.sweep.interval.ms=1000
    --set log.retention.check.interval.ms=500)

objects() { find "$broker_home/data/objects" -name '*.seg' | wc -l; }
fewer_objects_than() { (($(objects) < $1)); }
metric_above() { (($(metric "$1") > $2)); }
absent() { [[ ! -e $1 ]]; }

# A line every few milliseconds, so that each object has some of them.
trickle() {
    kcat -b "$BOOTSTRAP" -t "$1" -P -q -X linger.ms=0 -X batch.num.messages=50 < <(
        split -l 50 --filter='cat; sleep 0.02' "$2")
}

need_python
lines 20000 >"$work/slow"
lines 300000 >"$work/fast"

begin "${settings[@]}"
check "records come in slowly" trickle slow "$work/slow"
check "their objects are many" metric_above tailrace_offload_objects_total 40
check "small objects are gathered" wait_until metric_above tailrace_merge_objects_total 0
check "they are read back whole" same slow "$work/slow"
many=$(metric tailrace_offload_objects_total)
check "what was gathered is deleted" wait_until fewer_objects_than $((many / 2))
gathered=$(metric tailrace_merge_objects_total)
check "records come in fast" produce fast "$work/fast"
check "small extents are separated" wait_until metric_above tailrace_merge_bytes_total 150000000
check "they are read back whole" same fast "$work/fast"
check "in more than one merge" metric_above tailrace_merge_objects_total "$gathered"
check "a killed broker starts again" again
check "slow records are still whole" same slow "$work/slow"
check "fast records are still whole" same fast "$work/fast"

# What a crash leaves: an object of an earlier term, and a merged one, that no manifest names.
bucket=$broker_home/data/objects
offloaded=$bucket/group/00000000000000000001/term/00000000000000000000
merged=$bucket/merged/00000000000000000001/term/00000000000000000000
later=$bucket/merged/00000000000000000001/term/00000000000000009999
mkdir -p "$offloaded" "$merged" "$later"
mkdir -p "$bucket/probe"
echo probe >"$bucket/probe/0123456789abcdef"
orphan=$offloaded/00000000000000000001-00000000000000000002.seg
echo orphan | tee "$orphan" "$merged/00000000000000000001.seg" \
    >"$later/00000000000000000001.seg"
check "an orphan of an offload is removed" wait_until absent "$orphan"
check "an orphan of a merge is removed" wait_until absent "$merged/00000000000000000001.seg"
check "a probe of a start is removed" wait_until absent "$bucket/probe/0123456789abcdef"
check "what a later leader may have written stays" test -e "$later/00000000000000000001.seg"
files=("$bucket"/manifest/00000000000000000001/*)
check "manifest files do not pile up" test "${#files[@]}" -lt 8
check "nothing failed" test "$(metric tailrace_merge_failures_total)" -eq 0
check "a clean stop" stop_broker

echo "merge: $passed passed, $failed failed"
((failed == 0))
