#!/usr/bin/env bash
# A benchmark, not a test: Tailrace and Apache Kafka 4.4 by turns on the same file system. Arguments go to
# kafka.py.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
need_java
exec "$python" -B "$repository/tools/bench/kafka.py" --binary "$binary" --classpath "$classpath" "$@"
