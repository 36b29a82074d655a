"""How long producers wait when the leader is killed, paused or stopped; a benchmark, not a test.

A producer (kafka-python, which retries at once and asks another broker when one is silent) sends a
record every few milliseconds with `acks=all`. Unavailability is the longest time between two
acknowledgements around a fault. Told is the median and the worst of all rounds of a fault.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import tempfile
import threading
import time

from confluent_kafka.admin import AdminClient, NewTopic
from kafka import KafkaProducer

from brokers import Cluster, free_ports

TOPIC = "failover"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--faults", default="kill,pause,stop")
    parser.add_argument("--interval-ms", type=float, default=5)
    parser.add_argument("--request-timeout-ms", type=int, default=300)
    parser.add_argument("--json")
    return parser.parse_args()


class Load(threading.Thread):
    def __init__(self, bootstrap, options):
        super().__init__(daemon=True)
        self.sent, self.acknowledged, self.times, self.errors = 0, set(), [], []
        self._stopping = threading.Event()
        self._interval = options.interval_ms / 1000
        self._producer = KafkaProducer(
            bootstrap_servers=bootstrap.split(","), acks="all", enable_idempotence=True, linger_ms=0,
            retry_backoff_ms=10, reconnect_backoff_ms=10, reconnect_backoff_max_ms=50,
            request_timeout_ms=options.request_timeout_ms, delivery_timeout_ms=60_000,
            metadata_max_age_ms=60_000, max_block_ms=60_000)

    def run(self):
        while not self._stopping.is_set():
            number = self.sent
            self.sent += 1
            future = self._producer.send(TOPIC, str(number).encode(), partition=0)
            future.add_callback(lambda _, number=number: self._acknowledged(number))
            future.add_errback(lambda error: self.errors.append(repr(error)))
            time.sleep(self._interval)
        self._producer.flush(60)
        self._producer.close()

    def _acknowledged(self, number):
        self.times.append(time.monotonic())
        self.acknowledged.add(number)

    def stop(self):
        self._stopping.set()
        self.join(90)

    def longest_gap_ms(self, since):
        times = [each for each in self.times if each > since - 0.5]
        return 1000 * max(after - before for before, after in zip(times, times[1:]))


def leader(cluster):
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 0, "socket.timeout.ms": 1000})
    return admin.list_topics(TOPIC, timeout=5).topics[TOPIC].partitions[0].leader


def strike(cluster, fault):
    """Returns when it began; all three serve again when it is over."""
    node = leader(cluster)
    began = time.monotonic()
    if fault == "pause":
        cluster.signal(node, signal.SIGSTOP)
        time.sleep(3)
        cluster.signal(node, signal.SIGCONT)
    else:
        (cluster.kill if fault == "kill" else cluster.terminate)(node)
        time.sleep(1)
        cluster.restart(node)
    cluster.await_all()
    time.sleep(1)
    return began


def main():
    options = arguments()
    directory = tempfile.mkdtemp(prefix="failover.", dir=os.environ.get("CLUSTER_DIR"))
    cluster = Cluster(options.binary, directory, free_ports(), ["--wal-size", "256MiB"])
    found = {}
    try:
        cluster.start()
        admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
        while len(admin.list_topics(timeout=10).brokers) < 3:
            time.sleep(0.1)
        [created] = admin.create_topics([NewTopic(TOPIC, 1, 3)]).values()
        created.result(30)
        load = Load(cluster.bootstrap, options)
        load.start()
        time.sleep(2)
        for fault in options.faults.split(","):
            found[fault] = [load.longest_gap_ms(strike(cluster, fault)) for _ in range(options.rounds)]
            gaps = found[fault]
            print(f"{fault}: p50 {statistics.median(gaps):.0f} ms, worst {max(gaps):.0f} ms of {len(gaps)}",
                  flush=True)
        load.stop()
        print(f"{load.sent} records sent, {len(load.acknowledged)} acknowledged, "
              f"{len(load.errors)} refused {load.errors[:2]}")
        assert load.errors or len(load.acknowledged) == load.sent
    finally:
        cluster.clean_up()
        shutil.rmtree(directory)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"kind": "failover", "settings": vars(options), "gaps_ms": found}, file, indent=1)


main()
