#!/usr/bin/env bash
# kcat (librdkafka from Debian): every codec, headers, keys, offsets, a group that resumes.
set -euo pipefail

bootstrap=${1:-$BOOTSTRAP}
topic=smoke-kcat-$RANDOM$RANDOM
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
records_per_codec=500

for codec in none gzip snappy lz4 zstd; do
    for ((i = 0; i < records_per_codec; i++)); do
        printf '%s-%d:%s value %d %0*d\n' "$codec" $((i % 20)) "$codec" "$i" $((i % 200 + 1)) 0
    done >"$work/$codec"
    if [[ $codec == none ]]; then
        timeout 60 kcat -b "$bootstrap" -P -t "$topic" -K: -H origin=kcat -l "$work/$codec"
    else
        timeout 60 kcat -b "$bootstrap" -P -t "$topic" -K: -z "$codec" -H origin=kcat -l "$work/$codec"
    fi
done
sort "$work"/{none,gzip,snappy,lz4,zstd} >"$work/sent"

timeout 60 kcat -b "$bootstrap" -L -t "$topic" | grep -q "topic \"$topic\" with"

timeout 60 kcat -b "$bootstrap" -C -t "$topic" -o beginning -e -q -f '%k:%s\n' 2>/dev/null \
    | sort >"$work/received"
cmp "$work/sent" "$work/received"
headers=$(timeout 60 kcat -b "$bootstrap" -C -t "$topic" -o beginning -e -q -f '%h\n' 2>/dev/null \
    | sort -u)
[[ $headers == origin=kcat ]]

# A group reads everything and commits when it leaves; its next member gets only what is new.
read_group() {
    timeout 60 kcat -b "$bootstrap" -G "$topic-group" -X auto.offset.reset=earliest -e -q \
        -f '%k:%s\n' "$topic" 2>/dev/null | sort
}
read_group >"$work/first"
cmp "$work/sent" "$work/first"
echo 'late:record' | timeout 60 kcat -b "$bootstrap" -P -t "$topic" -K:
[[ $(read_group) == late:record ]]

echo "kcat: $(wc -l <"$work/sent") records, checksum $(sha256sum <"$work/received" | cut -c1-8)"
