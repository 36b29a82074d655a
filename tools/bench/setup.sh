# Sourced. Sets $binary, $python and $classpath (Kafka's own tools), and where brokers keep their data.

source "$(dirname "${BASH_SOURCE[0]}")/../clients/setup.sh"

binary=${TAILRACE_BIN:-${CARGO_TARGET_DIR:-$repository/target}/production/tailrace}
for program in "$binary" "$(dirname "$binary")/perf"; do
    [[ -x $program ]] || { echo "$program is missing: run \`make production\`" >&2; exit 1; }
done
[[ $(nproc) -ge 2 ]] || { echo "bench: two cores are needed, one for the broker, one for the load" >&2; exit 1; }
need_python
export BENCH_DIR=${BENCH_DIR:-$repository/.cache}
