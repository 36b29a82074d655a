# Sourced. Starts S3 servers (pinned, under .cache/s3) on free ports of the loopback address; leave_s3
# stops those that were started, and no others. Tests use moto. Benchmarks use s3s-fs: moto reads a
# whole object for each range, and s3s-fs lets several writers win a conditional write.

s3_tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
s3_cache=$(cd "$s3_tools/../.." && pwd)/.cache/s3
s3_python=$s3_cache/moto/bin/python
s3_pids=()
s3s_folder=

# Once for each content of the list.
need_s3() {
    local stamp
    stamp=$s3_cache/requirements.$(sha256sum "$s3_tools/requirements.txt" | cut -c1-16)
    if [[ -e $stamp && -x $s3_python ]]; then return; fi
    mkdir -p "$s3_cache"
    python3 -m venv --clear "$s3_cache/moto"
    "$s3_python" -m pip install --quiet --no-deps --disable-pip-version-check \
        --requirement "$s3_tools/requirements.txt"
    touch "$stamp"
}

# await_s3 NAME COMMAND...: waits until the command succeeds for the server that was started last.
await_s3() {
    local name=$1 tries
    shift
    for ((tries = 0; tries < 300; tries++)); do
        if "$@"; then return; fi
        kill -0 "${s3_pids[-1]}" 2>/dev/null || break
        sleep 0.1
    done
    echo "s3: the server $name does not start:" >&2
    cat "$s3_cache/$name.log" >&2
    return 1
}

# start_s3 NAME: sets $s3_url. The server keeps everything in memory.
start_s3() {
    local log=$s3_cache/$1.log
    : >"$log"
    "$s3_python" "$s3_tools/server.py" >"$log" 2>&1 </dev/null &
    s3_pids+=($!)
    await_s3 "$1" has_url "$log"
}

has_url() {
    s3_url=$(sed -n 's/^at \(http:.*\)$/\1/p' "$1")
    [[ -n $s3_url ]]
}

# start_s3s NAME: sets $s3_url. Objects are files in memory, which leave_s3 removes; the keys are those
# of tests.
start_s3s() {
    local port
    if [[ ! -x $s3_cache/s3s/bin/s3s-fs ]]; then
        CARGO_TARGET_DIR=$s3_cache/s3s/target cargo install --quiet --locked s3s-fs --version 0.14.1 \
            --features binary --root "$s3_cache/s3s"
        rm -r "$s3_cache/s3s/target"
    fi
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    s3s_folder=$(mktemp -d "/dev/shm/tailrace-$1.XXXXXX")
    "$s3_cache/s3s/bin/s3s-fs" --host 127.0.0.1 --port "$port" --access-key first --secret-key "$1" \
        "$s3s_folder" >"$s3_cache/$1.log" 2>&1 </dev/null &
    s3_pids+=($!)
    s3_url=http://127.0.0.1:$port
    await_s3 "$1" listens "$port"
}

listens() { : 2>/dev/null </dev/tcp/127.0.0.1/"$1"; }

leave_s3() {
    local pid
    for pid in "${s3_pids[@]}"; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    s3_pids=()
    if [[ -n $s3s_folder ]]; then rm -r "$s3s_folder"; fi
    s3s_folder=
}
