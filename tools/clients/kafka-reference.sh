#!/usr/bin/env bash
# Apache Kafka 4.4 as one KRaft node on loopback, started like `tailrace dev`, so that whatever runs
# against our broker runs against this one too:
#     kafka-reference.sh dev --data-dir DIR --listen HOST:PORT [--set KEY=VALUE ...]
# (flush.messages=1 gives it the durability that ours has).
# The process becomes Kafka's: signals and `kill -9` reach it.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
need_java

settings=()
directory=tailrace-data
listen=127.0.0.1:9092
while (($# > 0)); do
    case $1 in
        dev) shift ;;
        --data-dir) directory=$2; shift 2 ;;
        --listen) listen=$2; shift 2 ;;
        --set) settings+=("$2"); shift 2 ;;
        *) shift 2 ;; # a flag of ours that Kafka has no word for
    esac
done
host=${listen%:*} port=${listen##*:}
mkdir -p "$directory"
directory=$(cd "$directory" && pwd)

# The controller needs a port too; it keeps it over restarts.
if [[ ! -e $directory/server.properties ]]; then
    controller_port=$((port > 32767 ? port - 10007 : port + 10007))
    cat >"$directory/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller_port
listeners=PLAINTEXT://$host:$port,CONTROLLER://127.0.0.1:$controller_port
advertised.listeners=PLAINTEXT://$host:$port
controller.listener.names=CONTROLLER
log.dirs=$directory/log
auto.create.topics.enable=true
num.partitions=4
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
PROPERTIES
    printf '%s\n' "${settings[@]}" >>"$directory/server.properties"
fi

quiet=-Dorg.slf4j.simpleLogger.defaultLogLevel=${KAFKA_LOG:-error}
if [[ ! -e $directory/log/meta.properties ]]; then
    java "$quiet" -cp "$classpath" kafka.tools.StorageTool format \
        --cluster-id VGFpbHJhY2VSZWZlcmVuY2 --config "$directory/server.properties" >/dev/null
fi

# Says when it serves; gives up with its parent.
(
    for _ in {1..600}; do
        kill -0 $$ 2>/dev/null || exit 0
        if (exec 3<>"/dev/tcp/$host/$port") 2>/dev/null; then
            echo "ready on $listen"
            exit 0
        fi
        sleep 0.1
    done
) &
exec java "$quiet" -Xmx1g -Xms1g -cp "$classpath" kafka.Kafka "$directory/server.properties"
