"""What replication costs: `acks=all` at a steady rate with one broker and with three, in turns.

All brokers share this machine's cores and its device, so that each of three devices writes what one
does, and only the ratios of one run say something. Told, too, is what a broker takes of a core
that has clients and partitions, and nothing to do.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time

from confluent_kafka.admin import AdminClient

from brokers import Cluster, free_ports  # sets the path to the crash run's modules

from measure import QUANTILES, produce
from process import Broker
from stages import Scrape, stages
from waiting import wait_until

TOPIC = "latency"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--idle-seconds", type=float, default=5)
    parser.add_argument("--rate", type=int, default=500)
    parser.add_argument("--tls", action="store_true", help="three once more, with TLS between them")
    parser.add_argument("--idle-groups", type=int, default=255, help="of each broker, in a cluster that only idles")
    parser.add_argument("--json")
    return parser.parse_args()


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def idle_percent(options, pids):
    """Of a core, of each."""
    before = [cpu_seconds(pid) for pid in pids]
    time.sleep(options.idle_seconds)
    return [100 * (cpu_seconds(pid) - used) / options.idle_seconds for pid, used in zip(pids, before)]


def with_one(options, directory):
    broker = Broker(options.binary, directory, ["--cores", "1", "--wal-size", "256MiB"])
    try:
        broker.start()
        broker.wait_ready()
        # What a topic's first record makes is made.
        produce(options, directory, broker.address, TOPIC)
        before = Scrape.of(broker.admin)
        found = produce(options, directory, broker.address, TOPIC)
        found["stages"] = stages(found["mean_us"], Scrape.of(broker.admin) - before)
        broker.stop()
        return found
    finally:
        broker.clean_up()


def leads_as_preferred(admin):
    """Leadership does not move any more then."""
    partition = admin.list_topics(TOPIC, timeout=10).topics[TOPIC].partitions.get(0)
    return partition and partition.leader == partition.replicas[0]


def with_three(options, directory, tls=False):
    cluster = Cluster(options.binary, directory, free_ports(), ["--wal-size", "256MiB"])
    try:
        cluster.start()
        cluster.await_all()
        if tls:
            cluster.turn_to_tls()
        admin = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 0})
        # Whoever leads it, it is there once a client asked for it.
        admin.list_topics(TOPIC, timeout=10)
        wait_until("the preferred broker leads", lambda: leads_as_preferred(admin), 60)
        leader = admin.list_topics(TOPIC, timeout=10).topics[TOPIC].partitions[0].leader
        produce(options, directory, cluster.address(leader), TOPIC)
        before = [Scrape.of(cluster.admin(node)) for node in range(3)]
        found = produce(options, directory, cluster.address(leader), TOPIC)
        past = [Scrape.of(cluster.admin(node)) - before[node] for node in range(3)]
        others = [past[node] for node in range(3) if node != leader]
        found["stages"] = stages(found["mean_us"], past[leader], others)
        idle = idle_percent(options, list(cluster.pids.values()))
        cluster.stop()
        return found, idle
    finally:
        cluster.clean_up()


def with_groups(options, directory):
    """What three brokers take that hold so many groups, and have nothing to do."""
    cluster = Cluster(options.binary, directory, free_ports(),
                      ["--wal-size", "256MiB", "--data-groups-per-core", str(options.idle_groups)])
    try:
        cluster.start()
        cluster.await_all()
        time.sleep(15)  # The preferred brokers lead, and no clients came yet.
        idle = idle_percent(options, list(cluster.pids.values()))
        cluster.stop()
        return idle
    finally:
        cluster.clean_up()


def main():
    options = arguments()
    one, three, secured, idle = [], [], [], []
    for number in range(1, options.rounds + 1):
        directory = tempfile.mkdtemp(prefix="latency.", dir=os.environ.get("CLUSTER_DIR"))
        try:
            homes = [os.path.join(directory, name) for name in ("one", "three", "secured")]
            for home in homes:
                os.mkdir(home)
            one.append(with_one(options, homes[0]))
            found, used = with_three(options, homes[1])
            three.append(found)
            idle += used
            if options.tls:
                secured.append(with_three(options, homes[2], tls=True)[0])
        finally:
            shutil.rmtree(directory)
        print(f"round {number}: p50 {one[-1]['p50']:.0f} us with one, {three[-1]['p50']:.0f} with three; p99 "
              f"{one[-1]['p99']:.0f}, {three[-1]['p99']:.0f}", flush=True)
    print(f"{options.rate} records/s, medians of {options.rounds} rounds, us")
    for quantile in QUANTILES:
        alone, together = (statistics.median(each[quantile] for each in found) for found in (one, three))
        print(f"{quantile.replace('_', '.'):6} {alone:9.0f} with one {together:9.0f} with three {together / alone:6.2f}")
        if secured:
            sealed = statistics.median(each[quantile] for each in secured)
            print(f"{'':6} {sealed:9.0f} with TLS, to three without {sealed / together:6.2f}")
    print("means of all rounds, us, by stage")
    for stage in three[0]["stages"]:
        alone, together = ([each["stages"].get(stage) for each in found] for found in (one, three))
        alone = f"{statistics.mean(alone):9.0f} with one" if None not in alone else f"{'':18}"
        print(f"{stage:24} {alone} {statistics.mean(together):9.0f} with three")
    print(f"idle: {statistics.median(idle):.1f} % of a core for each of three brokers, at most {max(idle):.1f}")
    directory = tempfile.mkdtemp(prefix="latency.", dir=os.environ.get("CLUSTER_DIR"))
    try:
        grouped = with_groups(options, directory)
    finally:
        shutil.rmtree(directory)
    print(f"with {options.idle_groups} data groups: " + ", ".join(f"{each:.1f} %" for each in grouped))
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"kind": "replication", "settings": vars(options), "one": one, "three": three, "tls": secured,
                       "idle_percent": idle, "idle_percent_with_groups": grouped}, file, indent=1)


main()
