# Sourced. An S3 server with a bucket, and a proxy before it that misbehaves on demand.
#
# start_outage [HOW] starts the server, by start_s3 or as told (see tools/s3/server.sh). It sets $store (an s3:// address with the proxy as its endpoint), $direct (the same without
# it), $proxy_control (a port, see proxy.py) and $binary; leave_outage stops what was started.

source "$(dirname "${BASH_SOURCE[0]}")/../clients/setup.sh"
source "$repository/tools/s3/server.sh"

binary=${TAILRACE_BIN:-${CARGO_TARGET_DIR:-$repository/target}/release/tailrace}
proxy_pid=

start_outage() {
    local start=${1:-start_s3}
    [[ -x $binary ]] || { echo "$binary is missing: run \`make build\`" >&2; return 1; }
    need_python
    need_s3
    "$start" outage
    # Of a user of this machine nothing is used.
    unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_PROFILE AWS_REGION
    export AWS_EC2_METADATA_DISABLED=true AWS_CONFIG_FILE=/dev/null
    export AWS_SHARED_CREDENTIALS_FILE=$s3_cache/credentials
    printf '[default]\naws_access_key_id = first\naws_secret_access_key = outage\n' \
        >"$AWS_SHARED_CREDENTIALS_FILE"
    "$s3_python" - "$s3_url" <<'PYTHON'
import sys, boto3
boto3.client("s3", endpoint_url=sys.argv[1], region_name="us-east-1").create_bucket(Bucket="outage")
PYTHON
    local log=$s3_cache/proxy.log tries proxy_port
    : >"$log"
    "$python" -B "$repository/tools/outage/proxy.py" "$s3_url" >"$log" 2>&1 </dev/null &
    proxy_pid=$!
    for ((tries = 0; tries < 100; tries++)); do
        read -r proxy_port proxy_control < <(sed -n 's/^at \(.*\) control \(.*\)$/\1 \2/p' "$log") && break
        sleep 0.1
    done
    [[ -n ${proxy_control:-} ]] || { echo "the proxy does not start:" >&2; cat "$log" >&2; return 1; }
    local address="s3://outage/one?region=us-east-1&path-style=true&endpoint="
    store="${address}http://127.0.0.1:$proxy_port"
    direct="$address$s3_url"
}

leave_outage() {
    local status=$?
    if [[ -n $proxy_pid ]]; then
        kill "$proxy_pid" 2>/dev/null || true
        wait "$proxy_pid" 2>/dev/null || true
    fi
    leave_s3
    return "$status"
}
