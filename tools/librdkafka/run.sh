#!/usr/bin/env bash
# librdkafka's own tests (list.txt) against one broker; see ../clients/broker.sh for what is started.
#     run.sh [NUMBER ...]
set -uo pipefail
cd "$(dirname "$0")"
source ../clients/setup.sh
source ../clients/broker.sh

./build.sh || exit 1
tests=$repository/.cache/librdkafka/src/tests
export KAFKA_PATH=$PWD/kafka
# The tests then allow three times the time, for machines that are shared.
export CI=true
export LD_LIBRARY_PATH=$repository/.cache/librdkafka/src/src:$repository/.cache/librdkafka/src/src-cpp
seconds_max=${TEST_SECONDS_MAX:-120}

# NUMBER or NUMBER:SUBTEST of a kind in list.txt, or of those the numbers asked for.
numbers_of() {
    awk -v kind="$1" '$2 == kind { print $3 == "" ? $1 : $1 ":" $3 }' list.txt | {
        if ((${#wanted[@]} == 0)); then cat; else grep -E "^($(IFS='|'; echo "${wanted[*]}"))(:|$)"; fi
    }
}

run_tests() {
    local scenario=$1 test number subtest environment quick output started verdict
    shift
    for test in "$@"; do
        started=$SECONDS
        number=${test%%:*} subtest=
        if [[ $test == *:* ]]; then subtest=${test#*:}; fi
        environment=(TESTS="$number" BROKERS="$BOOTSTRAP" TEST_KAFKA_VERSION=4.0.0.0)
        quick=(-Q)
        if [[ $subtest == whole ]]; then subtest= quick=(); fi # it skips itself in quick mode
        if [[ -n $subtest ]]; then environment+=(SUBTESTS="$subtest"); fi
        output=$(cd "$work/tests" && env "${environment[@]}" timeout -k 5 "$seconds_max" \
            "$tests/test-runner" -L -p1 "${quick[@]}" -E -s "$scenario" 2>&1 </dev/null)
        if (($? != 0)); then
            verdict=FAIL
        elif ! grep -qE "${number}_[^|]*\| +PASSED" <<<"$output"; then
            verdict=FAIL # it skipped itself: then list.txt is wrong
        else
            verdict=PASS
        fi
        echo "$verdict $test ($((SECONDS - started)) s)"
        if [[ $verdict == PASS ]]; then
            passed=$((passed + 1))
        else
            failed=$((failed + 1))
            echo "$output" >"$repository/.cache/librdkafka/failed-$number.log"
            tail -n 25 <<<"$output"
        fi
    done
}

wanted=("$@")
passed=0 failed=0
# Tests write where they run, and read a schema beside it.
work=$(mktemp -d)
mkdir "$work/tests"
ln -s "$tests/../src" "$work/src"
trap 'status=$?; rm -rf "$work"; (exit "$status"); leave_broker' EXIT

# One broker for all but the tests that want other settings (list.txt says which).
given=${BOOTSTRAP:-}
for kind in run run-noautocreate run-delayed; do
    scenario=default
    settings=(--set group.initial.rebalance.delay.ms=0)
    case $kind in
        run-noautocreate)
            scenario=noautocreate
            settings+=(--set auto.create.topics.enable=false)
            ;;
        run-delayed) settings=(--set group.initial.rebalance.delay.ms=3000) ;;
    esac
    mapfile -t numbers < <(numbers_of "$kind")
    if ((${#numbers[@]} == 0)); then continue; fi
    export BOOTSTRAP=$given
    start_broker --wal-size 3GiB --set num.partitions=4 "${settings[@]}" || exit 1
    echo "bootstrap.servers=$BOOTSTRAP" >"$work/tests/test.conf"
    run_tests "$scenario" "${numbers[@]}"
    stop_broker || failed=$((failed + 1))
done
echo "librdkafka: $passed passed, $failed failed, $(grep -c '^0.* left-out' list.txt) left out"
((failed == 0))
