#!/usr/bin/env bash
# Java's own command lines around the Kafka 4.4 clients, with their defaults: topics and configs,
# console producer and consumer, the two perf tools.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
need_java
bootstrap=${1:-$BOOTSTRAP}
topic=smoke-java-$RANDOM$RANDOM
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

kafka() {
    local main=$1
    shift
    timeout 90 java -Xmx512m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC \
        -Dorg.slf4j.simpleLogger.defaultLogLevel=error \
        -cp "$classpath" "org.apache.kafka.tools.$main" "$@"
}

fail() {
    echo "java: $*" >&2
    exit 1
}

server=(--bootstrap-server "$bootstrap")

kafka TopicCommand "${server[@]}" --create --topic "$topic" --partitions 3 --config retention.ms=3600000
kafka TopicCommand "${server[@]}" --describe --topic "$topic" >"$work/described"
grep -q 'PartitionCount: 3' "$work/described" || fail "describe: $(cat "$work/described")"
grep -q 'retention.ms=3600000' "$work/described" || fail "configs: $(cat "$work/described")"
kafka TopicCommand "${server[@]}" --list | grep -qx "$topic" || fail "the topic is not listed"

# Console tools, each codec; the consumer's group reads all, then only what came later.
total=0
for codec in none gzip snappy lz4 zstd; do
    seq 300 | sed "s/.*/$codec-&:$codec value &/" >"$work/$codec"
    kafka ConsoleProducer "${server[@]}" --topic "$topic" --compression-codec "$codec" \
        --reader-property parse.key=true --reader-property key.separator=: <"$work/$codec"
    total=$((total + 300))
done
sort "$work"/{none,gzip,snappy,lz4,zstd} >"$work/sent"
consume() {
    kafka consumer.ConsoleConsumer "${server[@]}" --topic "$topic" --group "$topic-group" --from-beginning \
        --max-messages "$1" --timeout-ms 20000 \
        --formatter-property print.key=true --formatter-property key.separator=: | sort
}
consume "$total" >"$work/received"
cmp "$work/sent" "$work/received" || fail "the console consumer read something else"
echo 'late:record' | kafka ConsoleProducer "${server[@]}" --topic "$topic" \
    --reader-property parse.key=true --reader-property key.separator=:
[[ $(consume 1) == late:record ]] || fail "the group did not resume where it had committed"

# The perf tools count by themselves: what was sent must be read.
records=50000
kafka ProducerPerformance --topic "$topic-perf" --num-records "$records" --record-size 1024 \
    --throughput -1 --producer-props "bootstrap.servers=$bootstrap" >"$work/produced"
grep -q "^$records records sent" "$work/produced" || fail "$(tail -3 "$work/produced")"
tail -1 "$work/produced"
kafka ConsumerPerformance "${server[@]}" --topic "$topic-perf" --messages "$records" --timeout 30000 \
    >"$work/consumed"
read_count=$(awk -F', *' 'END { print $5 }' "$work/consumed")
[[ $read_count == "$records" ]] || fail "perf read $read_count of $records: $(cat "$work/consumed")"
ends=$(kafka GetOffsetShell "${server[@]}" --topic "$topic-perf" | awk -F: '{ sum += $3 } END { print sum }')
[[ $ends == "$records" ]] || fail "the partitions end at $ends, not $records"

kafka TopicCommand "${server[@]}" --delete --topic "$topic"
for _ in {1..20}; do
    if ! kafka TopicCommand "${server[@]}" --list | grep -qx "$topic"; then gone=yes; break; fi
done
[[ ${gone:-} == yes ]] || fail "the deleted topic is still listed"
echo "java: $total records by console, checksum $(sha256sum <"$work/received" | cut -c1-8); $records by perf"
