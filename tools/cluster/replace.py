"""What it takes to replace a lost disk, by the length of the log: a follower's disk is lost under a steady
load and the broker comes back with an empty one. Measured: bytes that it was sent, by its own
metric, and the time until it votes in all groups. Both are to depend on the load, not on the log.

What is in no object yet grows until it is old enough and then is in one, so the disk is lost at the same
point of that cycle each time; told are the medians of some losses.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time

from confluent_kafka.admin import AdminClient, NewTopic

from brokers import Cluster, free_ports  # sets the path to other runs' modules
from waiting import wait_until

TOPIC = "log"
PATIENCE_SECONDS = 120
RECORD_SIZE = 1024
AGE, POINT_SECONDS = "tailrace_offload_lag_milliseconds", 4


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[100, 5120])
    parser.add_argument("--rate", type=int, default=500, help="records of 1 KiB a second meanwhile")
    parser.add_argument("--losses", type=int, default=3, help="of the disk of one follower after another")
    parser.add_argument("--json")
    return parser.parse_args()


class Run:
    def __init__(self, options, directory):
        self.options = options
        self.nodes = [0, 1, 2]  # What was lost last is the last to be lost again.
        self.cluster = Cluster(options.binary, directory, free_ports(), ["--wal-size", "1GiB"])

    def produce(self, rate, batch_records, seconds):
        """A load that ends by itself; refused records are written in the next one."""
        return subprocess.Popen(
            [self.options.binary, "bench", "produce", "--bootstrap", self.leader_address(), "--topic", TOPIC,
             "--partitions", "1", "--connections", "3", "--rate", str(rate), "--batch-records",
             str(batch_records), "--seconds", str(seconds), "--warmup", "0", "--sleep"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def leader(self):
        admin = AdminClient({"bootstrap.servers": self.cluster.bootstrap, "log_level": 0})
        return admin.list_topics(TOPIC, timeout=10).topics[TOPIC].partitions[0].leader

    def leader_address(self):
        return self.cluster.bootstrap.split(",")[self.leader()]

    def of_leader(self, name):
        return self.cluster.metric(self.leader(), name) or 0

    def fill(self, megabytes):
        while (written := self.of_leader("tailrace_produce_bytes_total")) < megabytes << 20:
            missing = (megabytes << 20) - written
            rate = 60_000
            self.produce(rate, 100, max(1, missing / RECORD_SIZE / rate)).wait()

    def measure(self, megabytes):
        self.cluster.start()
        self.cluster.await_all()
        admin = AdminClient({"bootstrap.servers": self.cluster.bootstrap, "log_level": 0})
        admin.create_topics([NewTopic(TOPIC, 1, 3)])[TOPIC].result(30)
        self.fill(megabytes)
        wait_until("all is offloaded", lambda: self.of_leader("tailrace_offload_lag_bytes") == 0, PATIENCE_SECONDS)
        load = self.produce(self.options.rate, 1, 3600)
        try:
            losses = [self.replace() for _ in range(self.options.losses)]
            objects = self.of_leader("tailrace_object_stored_bytes")
            return {"megabytes": megabytes, "object_bytes": objects, "losses": losses,
                    **{name: statistics.median(loss[name] for loss in losses) for name in losses[0]}}
        finally:
            load.terminate()
            load.wait()

    def replace(self):
        leader = self.leader()
        node = next(each for each in self.nodes if each != leader)
        self.nodes.append(self.nodes.pop(self.nodes.index(node)))
        self.await_point()
        self.cluster.kill(node)
        shutil.rmtree(os.path.join(self.cluster.directory, "data", str(node)))
        began = time.monotonic()
        self.cluster.restart(node, "--replacement")
        wait_until("the replacement votes", lambda: self.cluster.has_its_place(node), PATIENCE_SECONDS)
        took = time.monotonic() - began
        return {"moved_bytes": self.cluster.metric(node, "tailrace_raft_catch_up_bytes_total"), "seconds": took}

    def await_point(self):
        """The oldest record that is in no object has just become so old."""
        def age():
            return max(self.cluster.metric(node, AGE) or 0 for node in range(3)) / 1000
        wait_until("all is offloaded", lambda: age() < POINT_SECONDS / 2, PATIENCE_SECONDS)
        wait_until("records get old", lambda: age() >= POINT_SECONDS, PATIENCE_SECONDS)

    def close(self):
        self.cluster.stop()
        self.cluster.clean_up()


def main():
    options = arguments()
    results = []
    for megabytes in options.megabytes:
        directory = tempfile.mkdtemp(prefix="replace.", dir=os.environ.get("CLUSTER_DIR"))
        run = Run(options, directory)
        try:
            results.append(run.measure(megabytes))
        finally:
            run.close()
            shutil.rmtree(directory)
        found = results[-1]
        print(f"log of {megabytes} MiB ({found['object_bytes'] / 2**20:.0f} MiB in objects): "
              f"{found['moved_bytes'] / 1024:.0f} KiB moved, votes after {found['seconds']:.1f} s", flush=True)
    moved = [each["moved_bytes"] for each in results]
    print(f"moved with the longest log over the shortest: {moved[-1] / moved[0]:.2f}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"kind": "replacement", "settings": vars(options), "results": results}, file, indent=1)


main()
