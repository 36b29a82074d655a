#!/usr/bin/env bash
# Three brokers on this machine, each a process with a configuration file of its own, as three machines would
# have them: to try a configuration, a rolling restart or another build. Nothing but `tailrace` is needed.
#
#     local-cluster.sh start DIRECTORY     writes DIRECTORY/N.toml if it is not there, and starts who does not run
#     local-cluster.sh roll DIRECTORY      restarts one after the other, each once all groups have leaders again
#     local-cluster.sh stop DIRECTORY      stops all; what they wrote stays
#
# TAILRACE names the program, `tailrace` by default. PORT is the first of the ports for clients, 9092 by default:
# metrics are answered 100 above, the brokers hear each other 1000 above.
set -euo pipefail

tailrace=${TAILRACE:-tailrace}
port=${PORT:-9092}
patience_seconds=60

fail() {
    echo "local-cluster: $1" >&2
    exit 1
}

[[ $# == 2 && $1 =~ ^(start|roll|stop)$ ]] || fail "usage: $0 start|roll|stop DIRECTORY"
command -v "$tailrace" >/dev/null || fail "there is no program $tailrace: set TAILRACE to its path"
command -v curl >/dev/null || fail "curl is missing"
mkdir -p "$2"
directory=$(cd "$2" && pwd)

# Another process may have the number of one that ended.
is_running() {
    [[ -s $directory/$1.pid ]] && grep -qzF "$directory/$1.toml" "/proc/$(<"$directory/$1.pid")/cmdline" 2>/dev/null
}

# All brokers are told the same cluster id, and where each of them is.
configure() {
    local node=$1 id=$directory/cluster-id
    [[ -s $id ]] || cat /proc/sys/kernel/random/uuid >"$id"
    [[ -s $directory/$node.toml ]] || cat >"$directory/$node.toml" <<TOML
node-id = $node
cluster-id = "$(<"$id")"
nodes = ["0@127.0.0.1:$((port + 1000))", "1@127.0.0.1:$((port + 1001))", "2@127.0.0.1:$((port + 1002))"]
data-dir = "$directory/$node"
object-store = "file://$directory/objects"
listen = "127.0.0.1:$((port + node))"
admin = "127.0.0.1:$((port + 100 + node))"
wal-size = "256MiB"
cores = 1
busy-poll-us = 0
TOML
}

# A disk that is empty may only be that of a cluster which begins: a broker that has lost its disk has to be
# started with --replacement, by hand.
start() {
    local node=$1 flags=()
    if [[ ! -e $directory/begun ]]; then flags=(--new-cluster); fi
    "$tailrace" broker --config "$directory/$node.toml" "${flags[@]}" >>"$directory/$node.log" 2>&1 </dev/null &
    echo $! >"$directory/$node.pid"
}

stop() {
    local node=$1 deadline=$((SECONDS + patience_seconds))
    if is_running "$node"; then kill "$(<"$directory/$node.pid")"; fi
    while is_running "$node"; do
        ((SECONDS < deadline)) || fail "broker $node does not stop; see $directory/$node.log"
        sleep 0.1
    done
    rm -f "$directory/$node.pid"
}

# The broker answers, and each of its groups has a leader.
is_well() {
    local leaderless
    leaderless=$(curl -sf "http://127.0.0.1:$((port + 100 + $1))/metrics" | grep '^tailrace_raft_leaderless_groups{') \
        && ! grep -qv ' 0$' <<<"$leaderless" \
        && curl -sf "http://127.0.0.1:$((port + 100 + $1))/healthz" >/dev/null
}

await_all() {
    local node deadline=$((SECONDS + patience_seconds))
    for node in 0 1 2; do
        until is_well "$node"; do
            is_running "$node" || fail "broker $node has ended: $(tail -n 1 "$directory/$node.log")"
            ((SECONDS < deadline)) || fail "broker $node is not ready; see $directory/$node.log"
            sleep 0.1
        done
    done
}

case $1 in
    start)
        for node in 0 1 2; do
            configure "$node"
            is_running "$node" || start "$node"
        done
        await_all
        touch "$directory/begun"
        echo "three brokers are ready: 127.0.0.1:$port,127.0.0.1:$((port + 1)),127.0.0.1:$((port + 2))"
        ;;
    roll)
        for node in 0 1 2; do
            is_running "$node" || fail "broker $node does not run: \`local-cluster.sh start\` first"
        done
        for node in 0 1 2; do
            stop "$node"
            start "$node"
            await_all
            echo "broker $node was restarted"
        done
        ;;
    stop)
        for node in 0 1 2; do stop "$node"; done
        ;;
esac
