#!/usr/bin/env bash
# Stands where librdkafka's tests look for Kafka's own script ($KAFKA_PATH).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../../clients/setup.sh"
need_java
exec java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Dorg.slf4j.simpleLogger.defaultLogLevel=error \
    -cp "$classpath" org.apache.kafka.tools.TopicCommand "$@"
