#!/usr/bin/env bash
# A broker whose disk is lost: what it had offloaded is served again by one that was rebuilt from the
# object store alone. Needs kcat; see ../clients/broker.sh for what is started.
#     run.sh
set -euo pipefail
cd "$(dirname "$0")"
repository=$(cd ../.. && pwd)
source ../clients/broker.sh

command -v kcat >/dev/null || { echo "kcat is missing: apt-get install kcat" >&2; exit 1; }
binary=${TAILRACE_BIN:-${CARGO_TARGET_DIR:-$repository/target}/release/tailrace}
mkdir -p "$repository/.cache"
work=$(mktemp -d -p "$repository/.cache" recover.XXXXXX)

passed=0 failed=0

# check NAME COMMAND...: one line, and one more in the sum.
check() {
    local name=$1
    shift
    if "$@" >"$work/check" 2>&1; then
        echo "PASS $name"
        passed=$((passed + 1))
    else
        echo "FAIL $name"
        tail -n 20 "$work/check"
        failed=$((failed + 1))
    fi
}

# start [ARGUMENT...]: a broker of its own directory and port; the one before it must have ended.
start() {
    unset BOOTSTRAP
    broker_home=
    start_broker --wal-size 512MiB "$@"
    homes+=("$broker_home")
}

kill_broker() {
    kill -KILL "$broker_pid"
    wait "$broker_pid" 2>/dev/null || true
    broker_pid=
}

produce() { timeout 60 kcat -b "$BOOTSTRAP" -P -t "$1" -K: -z "$2" -l "$3" 2>/dev/null; }

# consume TOPIC: all records, sorted.
consume() {
    timeout 60 kcat -b "$BOOTSTRAP" -C -t "$1" -o beginning -e -q -f '%k:%s\n' 2>/dev/null | sort
}

# read_group TOPIC: what the group of that topic has not read; it commits when it leaves.
read_group() {
    timeout 60 kcat -b "$BOOTSTRAP" -G "$1-group" -X auto.offset.reset=earliest -e -q \
        -f '%k:%s\n' "$1" 2>/dev/null | sort
}

verified() { "$binary" object verify --object-store "$1"; }

same() { cmp "$1" <(consume "$2"); }
group_gets() { cmp "$1" <(read_group "$2"); }

records() {
    local i
    for ((i = 0; i < $2; i++)); do printf '%s-%d:value %d %064d\n' "$1" $((i % 50)) "$i" "$i"; done
}

# rebuild STORE: a data directory from it in $broker_home/data, which is new.
rebuild() {
    broker_home=$(mktemp -d -p "$repository/.cache" broker.XXXXXX)
    homes+=("$broker_home")
    "$binary" recover --object-store "$1" --data-dir "$broker_home/data" --wal-size 512MiB \
        >"$work/recovered" 2>&1
}

# start_rebuilt STORE: the broker on what `rebuild` made.
start_rebuilt() {
    BOOTSTRAP=127.0.0.1:$(free_port)
    export BOOTSTRAP
    "$binary" dev --data-dir "$broker_home/data" --listen "$BOOTSTRAP" --object-store "$1" \
        --admin "127.0.0.1:$(free_port)" >"$broker_home/log" 2>&1 &
    broker_pid=$!
    local i
    for ((i = 0; i < 300; i++)); do
        if grep -q '^ready on ' "$broker_home/log"; then return; fi
        kill -0 "$broker_pid" 2>/dev/null || break
        sleep 0.1
    done
    tail -n 20 "$broker_home/log"
    return 1
}

homes=()
remove_homes() { if ((${#homes[@]})); then rm -rf "${homes[@]}"; fi; }
trap 'status=$?; rm -rf "$work"; stop_broker || status=1; remove_homes; exit "$status"' EXIT

records first 4000 >"$work/first"
records second 3000 >"$work/second"
records third 500 >"$work/third"
for name in first second third; do sort "$work/$name" >"$work/$name.sorted"; done
: >"$work/nothing"

echo "a clean stop, then the WAL is lost"
start
store=file://$broker_home/data/objects
produce orders none "$work/first"
produce orders zstd "$work/second"
produce events lz4 "$work/third"
sort "$work/first" "$work/second" >"$work/orders.sorted"
check "the group reads all before the loss" group_gets "$work/orders.sorted" orders
check "a clean stop" stop_broker
check "the store verifies" verified "$store"
check "recover" rebuild "$store"
cat "$work/recovered" | grep -v '^__consumer' | sed 's/^/    /'
check "nothing is damaged" grep -q '; 0 damaged$' "$work/recovered"
check "a second recovery into the directory is refused" bash -c \
    "! '$binary' recover --object-store '$store' --data-dir '$broker_home/data'"
check "the rebuilt broker starts" start_rebuilt "$store"
check "all records of orders" same "$work/orders.sorted" orders
check "all records of events" same "$work/third.sorted" events
check "the group has nothing left to read" group_gets "$work/nothing" orders
produce orders none "$work/third"
check "the group reads what is new" group_gets "$work/third.sorted" orders
sort "$work/first" "$work/second" "$work/third" >"$work/orders.sorted"
check "old and new records together" same "$work/orders.sorted" orders
produce later none "$work/third"
check "a new topic" same "$work/third.sorted" later
check "a clean stop of the rebuilt broker" stop_broker
check "the store verifies after a rebuild" verified "$store"

echo "it is lost again, and once more after a kill"
check "recover what was recovered" rebuild "$store"
check "the rebuilt broker starts again" start_rebuilt "$store"
check "all records of orders again" same "$work/orders.sorted" orders
check "the topic made in between" same "$work/third.sorted" later
check "the group still has nothing left" group_gets "$work/nothing" orders
produce orders gzip "$work/second"
check "the group reads the last part" group_gets "$work/second.sorted" orders
sleep 14 # offload by age: 10 s
produce orders none "$work/first" # not offloaded: lost
kill_broker
check "the store verifies after the kill" verified "$store"
check "recover after the kill" rebuild "$store"
grep -v '^__consumer' "$work/recovered" | sed 's/^/    /'
check "nothing is damaged by the kill" grep -q '; 0 damaged$' "$work/recovered"
check "the last line says what is lost" bash -c \
    "tail -n 1 '$work/recovered' | grep -q 'after the last offload is lost'"
check "the broker starts after the kill" start_rebuilt "$store"
sort "$work/first" "$work/second" "$work/third" "$work/second" >"$work/orders.sorted"
check "all that was offloaded, and no more" same "$work/orders.sorted" orders
check "the group's offsets from after the manifest file" group_gets "$work/nothing" orders
produce orders none "$work/third"
check "the group goes on" group_gets "$work/third.sorted" orders
check "the last clean stop" stop_broker
check "the store verifies in the end" verified "$store"

echo "recover: $passed passed, $failed failed"
((failed == 0))
