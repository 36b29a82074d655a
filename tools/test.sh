#!/usr/bin/env bash
# The steps of `make test`, in order; the first one that fails ends the run. Called by the Makefile,
# which sets the target directory and the compiler's flags. `a+b` runs two steps side by side: those
# that wait more than they compute.
set -euo pipefail
cd "$(dirname "$0")/.."

logs=$CARGO_TARGET_DIR/test-logs
mkdir -p "$logs"
names=() seconds=() passes=() failures=()
all=(lint build rust s3 supply-chain wal-devices fuzz clients bad-input crash+tier steps+merge
    recover librdkafka+outage cluster floor instructions)

command_of() {
    case $1 in
        lint) echo make --no-print-directory lint ;;
        build) echo make --no-print-directory build ;;
        rust) echo make --no-print-directory test-rust ;;
        s3) echo tools/s3/run.sh ;;
        supply-chain) echo tools/supply-chain.sh ;;
        wal-devices) echo tools/wal-devices.sh ;;
        fuzz) echo tools/fuzz/run.sh 20 ;;
        clients) echo tools/clients/run.sh ;;
        bad-input) echo tools/badinput.sh ;;
        librdkafka) echo tools/librdkafka/run.sh ;;
        crash) echo tools/crash/run.sh crash ;;
        steps) echo tools/crash/run.sh steps ;;
        tier) echo tools/tier/run.sh ;;
        merge) echo tools/tier/merge.sh ;;
        recover) echo tools/recover/run.sh ;;
        outage) echo tools/outage/run.sh ;;
        cluster) echo tools/cluster/run.sh ;;
        floor) echo tools/floor-smoke.sh ;;
        instructions) echo tools/bench/instructions.sh ;;
        *) echo "test: no step $1" >&2; exit 2 ;;
    esac
}

# Sums what the test runners in a log say of themselves: "passed failed".
counts_of() {
    awk '/^test result: /        { passed += $4; failed += $6 }
         /^[a-z-]+: [0-9]+ passed, [0-9]+ failed/ { passed += $2; failed += $4 }
         END                     { print passed + 0, failed + 0 }' "$1"
}

# Runs one step, or some side by side; all have ended when it returns.
run() {
    local together name failed=0
    local -A pids=()
    IFS=+ read -ra together <<<"$1"
    for name in "${together[@]}"; do
        echo "=== $name"
        # shellcheck disable=SC2046
        (SECONDS=0; status=0
            $(command_of "$name") >"$logs/$name.log" 2>&1 </dev/null || status=$?
            echo "$SECONDS" >"$logs/$name.seconds"; exit "$status") &
        pids[$name]=$!
    done
    for name in "${together[@]}"; do
        local status=0
        wait "${pids[$name]}" || status=$?
        account "$name" "$status" || failed=1
    done
    return "$failed"
}

# Puts what a step that has ended came to into the tables.
account() {
    local name=$1 status=$2 log=$logs/$1.log took passed failed
    took=$(<"$logs/$name.seconds")
    read -r passed failed < <(counts_of "$log")
    if ((status == 0 && passed == 0 && failed == 0)); then passed=1; fi
    if ((status != 0 && failed == 0)); then failed=1; fi
    names+=("$name") seconds+=("$took") passes+=("$passed") failures+=("$failed")
    if ((failed > 0)); then
        cat "$log"
        echo "=== $name FAILED after $took s (exit $status)"
        return 1
    fi
    tail -n 15 "$log"
    echo "=== $name ok in $took s"
}

summary() {
    local i passed=0 failed=0 planned skipped
    IFS=' +' read -ra planned <<<"${steps[*]}"
    skipped=$((${#planned[@]} - ${#names[@]}))
    echo
    printf '%-14s %8s %8s %8s\n' step seconds passed failed
    for i in "${!names[@]}"; do
        printf '%-14s %8d %8d %8d\n' \
            "${names[i]}" "${seconds[i]}" "${passes[i]}" "${failures[i]}"
        passed=$((passed + passes[i])) failed=$((failed + failures[i]))
    done
    printf '%-14s %8d\n' total "$SECONDS"
    if ((skipped > 0)); then
        echo "$passed passed, $failed failed, $skipped skipped"
    else
        echo "$passed passed, $failed failed"
    fi
}

steps=("$@")
if ((${#steps[@]} == 0)); then steps=("${all[@]}"); fi
status=0
for step in "${steps[@]}"; do
    run "$step" || { status=1; break; }
done
summary
exit "$status"
