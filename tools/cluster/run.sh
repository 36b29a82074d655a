#!/usr/bin/env bash
# Three brokers under load and faults: of `tailrace dev --nodes 3` on loopback, also with what operators get wrong, started and rolled by docs/deploy/local-cluster.sh, in racks, with all three
# needed, with a fourth that joins, with partitions that move, by themselves too, and with Kafka's own administration tools, then in network
# namespaces (chaos.sh). Arguments go to cluster.py (--seed, --rounds). TAILRACE_BIN names another broker.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
(cd "$repository/tools/cluster" && "$python" -B histories_test.py 2>&1 | tail -n 3)
"$python" -B "$repository/tools/cluster/cluster.py" --binary "$binary" "$@"
"$python" -B "$repository/tools/cluster/bad_input.py" --binary "$binary"
"$python" -B "$repository/tools/cluster/local_script.py" --binary "$binary"
"$python" -B "$repository/tools/cluster/racks.py" --binary "$binary"
"$python" -B "$repository/tools/cluster/in_sync.py" --binary "$binary"
"$python" -B "$repository/tools/cluster/growth.py" --binary "$binary"
"$python" -B "$repository/tools/cluster/moves.py" --binary "$binary"
"$python" -B "$repository/tools/cluster/hot.py" --binary "$binary"
need_java
"$python" -B "$repository/tools/cluster/kafka_tools.py" --binary "$binary" --classpath "$configs_classpath"
exec "$repository/tools/cluster/chaos.sh"
