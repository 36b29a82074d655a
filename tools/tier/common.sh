# Sourced by the runs of the object tier, after clients/setup.sh, clients/broker.sh and s3/server.sh:
# a directory, checks that are counted, records that can be compared, a broker that is killed.

work=$(mktemp -d -p "${TMPDIR:-/var/tmp}")
trap 'status=$?; leave_s3; rm -rf "$work"; (exit "$status"); leave_broker' EXIT
passed=0 failed=0
tailrace=${TAILRACE_BIN:-${CARGO_TARGET_DIR:-$repository/target}/release/tailrace}

check() {
    local name=$1
    shift
    if "$@"; then
        echo "ok $name"
        passed=$((passed + 1))
    else
        echo "FAILED $name"
        failed=$((failed + 1))
    fi
}

# Lines of 1 KiB, each different, the same ones on every run.
lines() {
    python3 - "$1" <<'PYTHON'
import random, sys
source = random.Random(7)
for number in range(int(sys.argv[1])):
    sys.stdout.write(f"{number:08d} {source.getrandbits(4056):01014x}\n")
PYTHON
}

produce() { kcat -b "$BOOTSTRAP" -t "$1" -P -q -X queue.buffering.max.messages=200000 -l "$2"; }
digest() { sort | sha256sum | cut -c1-64; }
consumed() { kcat -b "$BOOTSTRAP" -t "$1" -C -e -q -o beginning; }
same() { [[ $(consumed "$1" | digest) == "$(digest <"$2")" ]]; }

metric() {
    curl -s "http://$admin/metrics" | awk -v name="$1" 'index($1, name) == 1 { sum += $2 } END { printf "%d", sum }'
}

wait_until() {
    local i
    for ((i = 0; i < 300; i++)); do
        if "$@"; then return; fi
        sleep 0.1
    done
    return 1
}

all_offloaded() { (($(metric tailrace_offload_lag_bytes) == 0)); }

# Starts a broker with these arguments. Sets `admin`.
begin() {
    export BOOTSTRAP=
    arguments=("$@")
    start_broker "${arguments[@]}"
    admin=$(sed -n 's/^admin=//p' "$broker_home/log")
}

# Kills the broker, and starts it again on what it left.
again() {
    kill -KILL "$broker_pid"
    wait "$broker_pid" 2>/dev/null || true
    local i
    : >"$broker_home/log"
    "$tailrace" dev \
        --data-dir "$broker_home/data" --listen "$BOOTSTRAP" --admin "$admin" "${arguments[@]}" \
        >>"$broker_home/log" 2>&1 &
    broker_pid=$!
    for ((i = 0; i < 300; i++)); do
        if grep -q '^ready on ' "$broker_home/log"; then return; fi
        sleep 0.1
    done
    return 1
}
