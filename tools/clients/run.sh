#!/usr/bin/env bash
# Unmodified clients with default settings against one broker; see broker.sh for what is started.
#     run.sh [CLIENT ...]
set -uo pipefail
cd "$(dirname "$0")"
source ./setup.sh
source ./broker.sh

clients=("$@")
if ((${#clients[@]} == 0)); then
    clients=(kcat confluent kafka_python aiokafka kafkajs platformatic java)
fi

command -v kcat >/dev/null || { echo "kcat is missing: apt-get install kcat" >&2; exit 1; }
(set -e; need_python; need_node; need_java) || exit 1
trap leave_broker EXIT
start_broker || exit 1

smoke() {
    case $1 in
        kcat | java) "./$1_smoke.sh" "$BOOTSTRAP" ;;
        kafkajs | platformatic) timeout 180 "$node" --no-deprecation "$1_smoke.mjs" "$BOOTSTRAP" ;;
        *) timeout 180 "$python" "$1_smoke.py" "$BOOTSTRAP" ;;
    esac
}

passed=0 failed=0
for client in "${clients[@]}"; do
    started=$SECONDS
    if output=$(smoke "$client" 2>&1 </dev/null); then
        echo "PASS $client ($((SECONDS - started)) s): $(grep checksum <<<"$output")"
        passed=$((passed + 1))
    else
        echo "FAIL $client ($((SECONDS - started)) s)"
        tail -n 30 <<<"$output"
        failed=$((failed + 1))
    fi
done
stop_broker || failed=$((failed + 1))
echo "clients: $passed passed, $failed failed"
((failed == 0))
