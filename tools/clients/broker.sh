# Sourced. Starts the broker under test in a fresh directory on a free port, and stops it by its pid.
#
# TAILRACE_BIN  what to start instead of target/release/tailrace (kafka-reference.sh, for example)
# BOOTSTRAP     a broker that runs already: nothing is started

broker_pid=
broker_home=

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Sets BOOTSTRAP. Further arguments go to the broker.
start_broker() {
    if [[ -n ${BOOTSTRAP:-} ]]; then
        return
    fi
    local binary=${TAILRACE_BIN:-${CARGO_TARGET_DIR:-$repository/target}/release/tailrace}
    [[ -x $binary ]] || { echo "$binary is missing: run \`make build\`" >&2; return 1; }
    mkdir -p "$repository/.cache"
    if [[ -n $broker_home ]]; then rm -rf "$broker_home"; fi
    broker_home=$(mktemp -d -p "$repository/.cache" broker.XXXXXX)
    BOOTSTRAP=127.0.0.1:$(free_port)
    export BOOTSTRAP
    : >"$broker_home/log"
    "$binary" dev --data-dir "$broker_home/data" --listen "$BOOTSTRAP" \
        --admin "127.0.0.1:$(free_port)" "$@" >"$broker_home/log" 2>&1 &
    broker_pid=$!
    local i
    for ((i = 0; i < 600; i++)); do
        if grep -q '^ready on ' "$broker_home/log"; then return; fi
        if ! kill -0 "$broker_pid" 2>/dev/null; then break; fi
        sleep 0.1
    done
    echo "the broker did not become ready:" >&2
    tail -n 20 "$broker_home/log" >&2
    return 1
}

# Stops it with SIGTERM, and the hard way after 20 s; says false if it did not stop cleanly.
stop_broker() {
    local status=0 i
    [[ -n $broker_pid ]] || return 0
    kill -TERM "$broker_pid" 2>/dev/null || true
    for ((i = 0; i < 200; i++)); do
        kill -0 "$broker_pid" 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL "$broker_pid" 2>/dev/null || true
    wait "$broker_pid" || status=$?
    broker_pid=
    # Java ends with 143 on SIGTERM.
    if ((status != 0 && status != 143)); then
        echo "the broker ended with $status:" >&2
        tail -n 20 "$broker_home/log" >&2
        return 1
    fi
}

# For a trap: stops the broker, and keeps its log if the script failed.
leave_broker() {
    local status=$?
    stop_broker || status=1
    if [[ -n $broker_home ]]; then
        if ((status != 0)); then
            cp "$broker_home/log" "$repository/.cache/broker-failed.log"
            echo "broker log: $repository/.cache/broker-failed.log" >&2
            tail -n 20 "$broker_home/log" >&2
        fi
        rm -rf "$broker_home"
    fi
    exit "$status"
}
