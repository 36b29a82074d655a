"""What one slow disk of three costs: `acks=all` at a steady rate, in turns with three healthy disks and with
one follower's delayed for each write. A leader whose disk is slow hands over: failover.sh has that.

All brokers share this machine's cores, so that only the ratios of one run say something. As a check
that the delay is one, a few seconds have all followers delayed at last: no majority is fast then.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time

from confluent_kafka.admin import AdminClient, NewTopic

from measure import QUANTILES, produce
from namespaces import NamespacedBrokers, Network
from slowdisk import on_slow_disks

TOPIC = "latency"
SLOW = {"healthy": lambda _: [], "follower": lambda leader: [(leader + 1) % 3]}
# The load does not follow a leader.
SETTINGS = {"auto.leader.rebalance.enable": "false"}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--slowdisk", required=True, help="the program of slowdisk.c")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rate", type=int, default=400)
    parser.add_argument("--delay-ms", type=int, default=100)
    parser.add_argument("--json")
    return parser.parse_args()


class Measured:
    def __init__(self, options, directory):
        self.options, self.directory = options, directory
        self.cluster = NamespacedBrokers(options.binary, directory, Network(), "512MiB", SETTINGS)
        self.disks = []

    def begin(self):
        self.cluster.start()
        self.disks = on_slow_disks(self.cluster, self.options.slowdisk)
        admin = AdminClient({"bootstrap.servers": self.cluster.bootstrap})
        while len(admin.list_topics(timeout=10).brokers) < 3:
            time.sleep(0.1)
        [created] = admin.create_topics([NewTopic(TOPIC, 1, 3)]).values()
        created.result(30)

    def leader(self):
        admin = AdminClient({"bootstrap.servers": self.cluster.bootstrap, "log_level": 0})
        return admin.list_topics(TOPIC, timeout=10).topics[TOPIC].partitions[0].leader

    def with_slow(self, slow):
        leader = self.leader()
        for node in slow(leader):
            self.disks[node].delay(self.options.delay_ms)
        try:
            return produce(self.options, self.directory, self.cluster.address(leader), TOPIC)
        finally:
            for disk in self.disks:
                disk.heal()
            time.sleep(1)

    def end(self):
        self.cluster.clean_up()
        for disk in self.disks:
            disk.end()


def tell(options, found):
    print(f"{options.rate} records/s, {options.delay_ms} ms, medians of {options.rounds} rounds, us\n"
          f"{'':8}" + "".join(f"{name:>10}" for name in found) + "   follower/healthy")
    for quantile in QUANTILES:
        median = {name: statistics.median(each[quantile] for each in rounds) for name, rounds in found.items()}
        print(f"{quantile.replace('_', '.'):8}" + "".join(f"{each:10.0f}" for each in median.values())
              + f"{median['follower'] / median['healthy']:19.2f}")


def main():
    options = arguments()
    directory = tempfile.mkdtemp(prefix="slow-disk.", dir=os.environ.get("CLUSTER_DIR"))
    measured, found = Measured(options, directory), {name: [] for name in SLOW}
    try:
        measured.begin()
        for number in range(1, options.rounds + 1):
            # Whoever is first in a round is second in the next.
            names = list(SLOW)[number % 2:] + list(SLOW)[:number % 2]
            for name in names:
                found[name].append(measured.with_slow(SLOW[name]))
            print(f"round {number}: p99 " + ", ".join(f"{found[name][-1]['p99']:.0f} {name}" for name in SLOW),
                  flush=True)
        both = measured.with_slow(lambda leader: [(leader + 1) % 3, (leader + 2) % 3])
    finally:
        measured.end()
        shutil.rmtree(directory)
    tell(options, found)
    print(f"both followers slow: p50 {both['p50']:.0f} us")
    assert both["p50"] > options.delay_ms * 1000, "the delay was none"
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"kind": "slow-disk", "settings": vars(options), "rounds": found, "both": both}, file, indent=1)


main()
