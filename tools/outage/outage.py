"""A broker whose store misbehaves, in every way that one can, under a steady load.

For each fault of the table: it is switched on in the proxy before the store, the load goes on, it is
switched off, and once the broker has caught up everything acknowledged meanwhile is read back and
compared. At last the store stays away until the reserve of the WAL is used up: only then may
producers be slowed down, and only when that did not do may they be refused. The verdict is by
contents and counts; times only say how long a thing is waited for.
"""

import argparse
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import namedtuple

sys.path.insert(1, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../crash"))

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from load import Reader, Steady
from process import Broker
from verdict import faults_of_log, is_told, read_all
from waiting import check_clients, wait_until

PLACES = [("outage", partition) for partition in range(4)]
PATIENCE_SECONDS = 120
LAG_SMALL = 4 << 20
WAL = ["--cores", "1", "--wal-size", "256MiB", "--set", "offload.age.ms=1000",
       "--set", "offload.bytes=2097152", "--set", "object.cache.bytes=4194304"]

# What to tell the proxy; for how long at least; kinds of errors of which one must be counted; whether
# requests must be seen to be let through no more; whether new credentials end it.
Fault = namedtuple("Fault", "name command seconds kinds opens_circuit renewal",
                   defaults=[False, False])


def table(outage_seconds):
    return [
        Fault("answers after 5 s", "delay seconds=5", 12, []),
        Fault("half of the requests fail", "fail percent=50", 6, ["unavailable"]),
        Fault("a storm of SlowDown", "slow-down", 6, ["throttled"], True),
        Fault("connections are reset", "reset", 6, ["unavailable"], True),
        Fault("bodies are cut short", "truncate percent=70", 6, ["unavailable", "truncated"]),
        Fault("bytes are changed on the way", "flip percent=70", 6, ["checksum"]),
        Fault("no answer at all", "black-hole", 15, ["timeout"]),
        Fault("the token has expired", "expire renewed=second", 5, ["config"],
              renewal=True),
        Fault("the key is unknown", "unknown-key", 5, ["config"]),
        Fault("the bucket is gone", "no-bucket", 5, ["config"]),
        Fault("nobody listens", "refuse", outage_seconds, ["unavailable"], True),
    ]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--store", required=True, help="s3://... with the proxy as its endpoint")
    parser.add_argument("--control", type=int, required=True, help="the proxy's control port")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"))
    parser.add_argument("--outage-seconds", type=float, default=60)
    parser.add_argument("--only", help="one fault of the table, by its command")
    return parser.parse_args()


class Proxy:
    def __init__(self, port):
        self._file = socket.create_connection(("127.0.0.1", port)).makefile("rw")

    def tell(self, line):
        self._file.write(f"{line}\n")
        self._file.flush()
        return self._file.readline().strip()


class Run:
    def __init__(self, options, directory):
        self.options = options
        self.directory = directory
        self.broker = Broker(options.binary, directory, [*WAL, "--object-store", options.store])
        self.proxy = Proxy(options.control)
        self.faults = []
        self.senders, self.readers = [], []

    def start(self):
        self.broker.start()
        self.broker.wait_ready()
        admin = AdminClient({"bootstrap.servers": self.broker.address})
        [created] = admin.create_topics([NewTopic("outage", len(PLACES), 1)]).values()
        created.result(30)
        rng = random.Random(self.options.seed)
        self.senders = [Steady(name, self.broker.address, PLACES, random.Random(rng.getrandbits(64)),
                               400, 2_000) for name in ("one", "two")]
        self.tail = Reader("tail", self.broker.address, PLACES, self.senders, False)
        self.old = Reader("old", self.broker.address, PLACES, self.senders, True)
        self.readers = [self.tail, self.old]
        for client in [*self.senders, *self.readers]:
            client.start()
        self.wait("the first objects", lambda: self.metric("tailrace_offload_objects_total") > 3)
        self.wait("a read of objects", lambda: self.metric("tailrace_fetch_object_bytes_total") > 0)

    def metrics(self):
        """Sample by its name with labels; the shard's label is left out."""
        with urllib.request.urlopen(f"http://{self.broker.admin}/metrics", timeout=10) as page:
            lines = [line.rsplit(" ", 1) for line in page.read().decode().splitlines()
                     if not line.startswith("#")]
        return {name.replace('{shard="0"}', ""): float(value) for name, value in lines}

    def metric(self, name):
        return self.metrics()[name]

    def wait(self, what, condition):
        wait_until(what, condition, PATIENCE_SECONDS, self.check_clients)

    def check_clients(self):
        assert self.broker.is_up(), "the broker ended"
        check_clients(self.senders, self.readers)

    def acknowledged(self):
        """By place, the offset after the last acknowledged record."""
        ends = {place: 0 for place in PLACES}
        for sender in self.senders:
            for place in PLACES:
                offsets = list(sender.acknowledged[place].values())
                ends[place] = max([ends[place], *(offset + 1 for offset in offsets[-2_000:] if is_told(offset))])
        return ends

    def has_read(self, ends):
        return all(self.tail.ends[place] >= end for place, end in ends.items())

    def is_caught_up(self):
        now = self.metrics()
        return (now["tailrace_offload_lag_bytes"] < LAG_SMALL
                and now["tailrace_object_circuit_state"] == 0)

    def misbehave(self, fault):
        """One row of the table."""
        before = self.metrics()
        counted = lambda now, name: now[name] - before[name]
        circuit = 0
        errors = lambda now: sum(
            counted(now, f'tailrace_object_errors_total{{kind="{kind}"}}') for kind in fault.kinds)
        sent = sum(each.acknowledged_count for each in self.senders)
        self.proxy.tell(f"fault {fault.command}")
        until = time.monotonic() + fault.seconds

        def shows():
            nonlocal circuit
            now = self.metrics()
            circuit = max(circuit, now["tailrace_object_circuit_state"])
            hits = fault.command == "refuse" or int(self.proxy.tell("hits")) > 0
            return (time.monotonic() >= until and hits and (not fault.kinds or errors(now) > 0)
                    and (circuit > 0 or not fault.opens_circuit))

        self.wait(f"{fault.name}: requests that fail, and what shows it", shows)
        ends = self.acknowledged()
        self.wait(f"{fault.name}: the tail is read", lambda: self.has_read(ends))
        during = self.metrics()
        if fault.renewal:
            renew_credentials("second")
        else:
            self.proxy.tell("fault none")
        self.wait(f"{fault.name}: all is offloaded again", lambda: (
            self.is_caught_up() and counted(self.metrics(), "tailrace_offload_objects_total") > 0))
        rounds = self.old.rounds
        self.wait(f"{fault.name}: objects are read again", lambda: self.old.rounds > rounds + 1)
        after = self.metrics()
        for name in ("tailrace_produce_refused_total", "tailrace_produce_throttles_total"):
            if counted(after, name):
                self.faults.append(f"{fault.name}: {name} grew by {counted(after, name):.0f}")
        sent = sum(each.acknowledged_count for each in self.senders) - sent
        if not sent:
            self.faults.append(f"{fault.name}: nothing was acknowledged")
        kinds = {kind.split('"')[1]: int(counted(after, kind)) for kind in after
                 if kind.startswith("tailrace_object_errors_total") and counted(after, kind)}
        print(f"ok {fault.name}: {sent} records; lag {during['tailrace_offload_lag_bytes'] / 1e6:.1f} "
              f"MB, reserve left for {during['tailrace_wal_reserve_seconds']:.0f} s; "
              f"circuit {circuit:.0f}; errors {kinds}", flush=True)

    def use_up_the_reserve(self):
        """Nothing, then throttling that grows, then retriable errors; and all is well afterwards."""
        before = self.metrics()
        throttled = [len(sender.throttles_ms) for sender in self.senders]
        self.proxy.tell("fault refuse")
        for sender in self.senders:
            sender.records_per_second = 4_000
        samples = []

        def refused():
            samples.append(self.metrics())
            return samples[-1]["tailrace_produce_refused_total"] > before["tailrace_produce_refused_total"]

        self.wait("the WAL is full", refused)
        self.faults += faults_of_pressure(before, samples)
        for sender in self.senders:
            sender.records_per_second = 400
        throttles = [each for sender, start in zip(self.senders, throttled)
                     for each in sender.throttles_ms[start:] if each]
        if len(set(throttles)) < 5:
            self.faults.append(f"the throttle time does not grow: {throttles[:20]}")
        self.proxy.tell("fault none")
        self.wait("all is offloaded after the WAL was full", self.is_caught_up)
        end = self.metrics()
        self.wait("no more throttling", lambda: self.metric("tailrace_wal_reserve_free_bytes") > 0)
        print(f"ok the reserve is used up: throttle times from {min(throttles, default=0)} to "
              f"{max(throttles, default=0)} ms, then "
              f"{end['tailrace_produce_refused_total'] - before['tailrace_produce_refused_total']:.0f} "
              "refusals that were retried", flush=True)

    def finish(self):
        for client in [*self.senders, *self.readers]:
            client.stop()
        for client in [*self.senders, *self.readers]:
            client.join(150)
            assert not client.is_alive(), f"{client.name} did not come to its end"
        self.check_clients()
        from_objects = self.metric("tailrace_fetch_object_bytes_total")
        logs = read_all(self.broker.address, PLACES)
        for place, log in logs.items():
            self.faults += faults_of_log(place, log, self.senders)
            self.faults += faults_of_checksums(place, log, self.senders)
        if self.metric("tailrace_fetch_object_bytes_total") == from_objects:
            self.faults.append("the log was not read from objects")
        status = self.broker.stop()
        if status != 0:
            self.faults.append(f"SIGTERM ended the broker with {status}")
        records = sum(len(log) for log in logs.values())
        read = sum(reader.count for reader in self.readers)
        print(f"{records} records in the log, all as they were sent; {read} were read meanwhile",
              flush=True)

    def run(self):
        try:
            self.start()
            only = self.options.only
            rows = [fault for fault in table(self.options.outage_seconds)
                    if only in (None, fault.command.split()[0])]
            for fault in rows:
                self.misbehave(fault)
            self.use_up_the_reserve()
            self.finish()
        finally:
            self.broker.clean_up()
        return len(rows) + 2


def renew_credentials(key):
    """As whoever renews them would: the file is there, whole, at every moment."""
    path = os.environ["AWS_SHARED_CREDENTIALS_FILE"]
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        file.write(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = outage\n")
    os.rename(f"{path}.new", path)


def faults_of_checksums(place, log, senders):
    """Each record of the log is one that was sent, byte for byte."""
    by_name = {sender.name: sender for sender in senders}
    wrong = [offset for offset, name, sequence, checksum in log
             if by_name[name].checksums[place][sequence] != checksum]
    return [f"{place}: {len(wrong)} records are not as they were sent: {wrong[:5]}"] if wrong else []


def faults_of_pressure(before, samples):
    """Producers are slowed down only when the reserve is gone, and refused only after that."""
    faults = []
    grew = lambda now, name: now[name] > before[name]
    for now, after in zip(samples, samples[1:]):
        throttled = grew(now, "tailrace_produce_throttles_total")
        if throttled and after["tailrace_wal_reserve_free_bytes"] > 0:
            faults.append("producers were slowed down before the reserve was used up")
        if grew(now, "tailrace_produce_refused_total") and not throttled:
            faults.append("producers were refused before they were slowed down")
    if not any(grew(now, "tailrace_produce_throttles_total") for now in samples):
        faults.append("producers were refused without having been slowed down")
    return faults[:3]


def main():
    options = arguments()
    print(f"seed {options.seed}", flush=True)
    directory = tempfile.mkdtemp(prefix="outage.", dir=os.environ.get("OUTAGE_DIR"))
    run = Run(options, directory)
    checked = 1
    try:
        checked = run.run()
        faults = run.faults
    except (AssertionError, KafkaException, OSError) as error:
        faults = [*run.faults, str(error) or repr(error)]
    for fault in faults[:40]:
        print(f"FAULT {fault}")
    if faults:
        print(f"data and broker log are kept in {directory}")
        print(f"outage: 0 passed, {len(faults)} failed")
        sys.exit(1)
    shutil.rmtree(directory)
    print(f"outage: {checked} passed, 0 failed")


if __name__ == "__main__":
    main()
