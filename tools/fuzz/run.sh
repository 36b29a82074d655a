#!/usr/bin/env bash
# Builds the fuzz targets on the stable toolchain and runs each for a bounded time over its committed
# corpus and what it finds.
#     run.sh SECONDS [TARGET ...]
set -euo pipefail
cd "$(dirname "$0")"

seconds=${1:?how many seconds for each target}
shift
targets=("$@")
if ((${#targets[@]} == 0)); then targets=(request_decoder batch_validator wal_recovery); fi

triple=$(rustc -vV | sed -n 's/^host: //p')
directory=${CARGO_TARGET_DIR:-$PWD/../../target}/fuzz
# What cargo-fuzz asks of a nightly compiler for, without the address sanitizer: the code is safe Rust.
# With --target these flags stay away from build scripts and procedural macros.
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=4"
CARGO_TARGET_DIR=$directory cargo build --release --locked --target "$triple"

passed=0 failed=0
for target in "${targets[@]}"; do
    work=$directory/corpus/$target
    log=$directory/$target.log
    mkdir -p "$work" "corpus/$target" "$directory/crashes"
    # New inputs go to the first directory, which is not committed.
    if "$directory/$triple/release/$target" -max_total_time="$seconds" -timeout=10 \
        -rss_limit_mb=512 -malloc_limit_mb=512 -max_len=65536 -print_final_stats=1 \
        -artifact_prefix="$directory/crashes/$target-" "$work" "corpus/$target" >"$log" 2>&1; then
        executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        memory=$(sed -n 's/^stat::peak_rss_mb: *//p' "$log")
        coverage=$(grep -oE 'cov: [0-9]+' "$log" | tail -1)
        # A target that runs nothing would pass for ever.
        if ((executions < 1000)); then
            echo "FAIL $target: only $executions executions"
            failed=$((failed + 1))
            continue
        fi
        echo "PASS $target: $executions executions in $seconds s, $coverage, $memory MiB"
        passed=$((passed + 1))
    else
        echo "FAIL $target:"
        tail -n 40 "$log"
        failed=$((failed + 1))
    fi
done
echo "fuzz: $passed passed, $failed failed"
((failed == 0))
