"""How long producers wait when the leader is gone or ill, and what became of their records; a
benchmark, not a test.

For each fault there is a cluster in network namespaces, a producer with `acks=all` and a reader.
Unavailability is the longest time between two acknowledgements from a fault on until a second after all three
brokers serve again, whatever the reason; `none` is such a time without a fault. Told are the median
and the worst of all rounds, the worst less what the device took for the longest durable write beside it (all brokers share one,
device_watch.py), the worst that began while the fault lasted, how often leadership moved, the p99 of what was sent while the fault
lasted (median of the rounds), and what the whole history says at the end.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import tempfile
import time
from collections import Counter

from confluent_kafka.admin import AdminClient, NewTopic

from device_watch import DeviceWatch
from faults import Faults
from histories import Witness, faults_of_histories, tally
from namespaces import NamespacedBrokers, Network
from slowdisk import on_slow_disks
from timed import CLIENTS, add_arguments
from verdict import read_all

PLACE = ("failover", 0)
# Seconds that a fault lasts: a process that ended is started again, the rest has to last longer than
# any election.
SECONDS = {"none": 1, "kill": 1, "stop": 1, "failing-disk": 1, "pause": 3, "cut": 3, "cut-from-all": 3, "slow-disk": 3}
ON_SLOW_DISKS = {"slow-disk", "failing-disk"}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--slowdisk", required=True, help="the program of slowdisk.c")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--faults", default=",".join(SECONDS))
    add_arguments(parser)
    parser.add_argument("--json")
    return parser.parse_args()


def leader(cluster):
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 0, "socket.timeout.ms": 1000})
    return admin.list_topics(PLACE[0], timeout=5).topics[PLACE[0]].partitions[PLACE[1]].leader


def strike(cluster, faults, load, device, fault):
    """One round; all three serve again when it is over."""
    node = leader(cluster)
    began = time.monotonic()
    faults.begin(fault, node)
    time.sleep(SECONDS[fault])
    ended = time.monotonic()
    moved = node != leader(cluster)
    faults.end(fault, node)
    cluster.await_all()
    load.await_acknowledgement(time.monotonic())
    time.sleep(1)
    latencies = sorted(load.latencies_ms(began, ended))
    before, after = load.longest_gap(began)
    gap_ms, device_ms = 1000 * (after - before), device.longest_ms(before, after)
    return {"gap_ms": gap_ms, "device_ms": device_ms, "less_device_ms": max(gap_ms - device_ms, 0),
            "away_ms": load.longest_gap_ms(began, ended), "moved": moved,
            "p99_ms": latencies[len(latencies) * 99 // 100] if latencies else None}


def begin(options, directory, network, fault):
    cluster = NamespacedBrokers(options.binary, directory, network, "256MiB", {})
    try:
        cluster.start()
        disks = on_slow_disks(cluster, options.slowdisk) if fault in ON_SLOW_DISKS else None
        admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
        while len(admin.list_topics(timeout=10).brokers) < 3:
            time.sleep(0.1)
        [created] = admin.create_topics([NewTopic(PLACE[0], 1, 3)]).values()
        created.result(30)
        return cluster, disks
    except BaseException:
        cluster.clean_up()
        raise


def measure(options, directory, network, device, fault):
    cluster, disks = begin(options, directory, network, fault)
    try:
        faults = Faults(cluster, network, disks)
        # What the machine and its disks do by themselves.
        faults.table["none"] = (lambda _: None, lambda _: None)
        load = CLIENTS[options.client](cluster.bootstrap, PLACE, options)
        witness = Witness("witness", cluster.bootstrap, [PLACE], [load], False)
        for client in (load, witness):
            client.start()
        time.sleep(2)
        rounds = [strike(cluster, faults, load, device, fault) for _ in range(options.rounds)]
        load.stop()
        witness.stop()
        witness.join(60)
        logs = read_all(cluster.bootstrap, [PLACE])
        found = {**tally(logs[PLACE], load, PLACE), "refused": len(load.refused), "sent": len(load.sent_at),
                 "told": faults_of_histories(logs, [load], [witness])[:5]}
        return {"rounds": rounds, **found}
    finally:
        cluster.clean_up()
        for disk in disks or []:
            disk.end()


def row(fault, found):
    gaps = [each["gap_ms"] for each in found["rounds"]]
    less_device = [each["less_device_ms"] for each in found["rounds"]]
    away = [each["away_ms"] for each in found["rounds"]]
    slow = [each["p99_ms"] for each in found["rounds"] if each["p99_ms"] is not None]
    moved = Counter(each["moved"] for each in found["rounds"])[True]
    return (f"{fault:13} {len(gaps):6} {statistics.median(gaps):8.0f} {max(gaps):9.0f} {max(less_device):12.0f} {max(away):11.0f} {moved:6} "
            f"{statistics.median(slow) if slow else float('nan'):8.0f} {found['sent']:8} {found['refused']:8} "
            f"{found['lost']:5} {found['doubled']:8} {found['reordered']:10}")


def main():
    options = arguments()
    network, results = Network(), {}
    print(f"{options.client}, a record every {options.interval_ms} ms, requests time out after "
          f"{options.request_timeout_ms} ms\nfault         rounds   p50 ms  worst ms  less device  while away  moved   p99 ms     "
          "sent  refused  lost  doubled  reordered", flush=True)
    for fault in options.faults.split(","):
        directory = tempfile.mkdtemp(prefix="failover.", dir=os.environ.get("CLUSTER_DIR"))
        with contextlib.closing(DeviceWatch(directory)) as device:
            results[fault] = measure(options, directory, network, device, fault)
        print(row(fault, results[fault]), *results[fault]["told"], sep="\n  ", flush=True)
        if not results[fault]["told"]:
            shutil.rmtree(directory)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"kind": "failover", "settings": vars(options), "faults": results}, file, indent=1)


main()
