# Sourced. Starts S3 servers (moto, pinned, under .cache/s3) on free ports of the loopback address;
# leave_s3 stops those that were started, and no others.

s3_tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
s3_cache=$(cd "$s3_tools/../.." && pwd)/.cache/s3
s3_python=$s3_cache/moto/bin/python
s3_pids=()

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

# start_s3 NAME: sets $s3_url. The server keeps everything in memory.
start_s3() {
    local log=$s3_cache/$1.log tries
    : >"$log"
    "$s3_python" "$s3_tools/server.py" >"$log" 2>&1 </dev/null &
    s3_pids+=($!)
    for ((tries = 0; tries < 300; tries++)); do
        s3_url=$(sed -n 's/^at \(http:.*\)$/\1/p' "$log")
        if [[ -n $s3_url ]]; then return; fi
        kill -0 "${s3_pids[-1]}" 2>/dev/null || break
        sleep 0.1
    done
    echo "s3: the server $1 does not start:" >&2
    cat "$log" >&2
    return 1
}

leave_s3() {
    local pid
    for pid in "${s3_pids[@]}"; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    s3_pids=()
}
