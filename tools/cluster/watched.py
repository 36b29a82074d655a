"""Three brokers under a steady load, with clients whose histories judge them."""

import argparse
import json
import logging
import os
import random
import shutil
import subprocess
import tempfile

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from histories import Witness, faults_of_copies, faults_of_histories
from load import Steady
from verdict import read_all
from waiting import check_clients, wait_until

TOPIC, LONELY = "history", "lonely"
PLACES = [(TOPIC, partition) for partition in range(4)]
PATIENCE_SECONDS = 60
# A client waits that long for a broker that is silent before it looks for another.
REQUEST_TIMEOUT_MS = 2000


class Watched:
    """A run: what is done to the brokers is up to the subclass, in `check_all`, and so is its name."""

    name = None

    def __init__(self, options, cluster):
        self.options, self.cluster, self.directory = options, cluster, cluster.directory
        self.rng = random.Random(options.seed)
        self.senders, self.readers = [], []
        self.client_settings = {"socket.timeout.ms": getattr(options, "request_timeout_ms", REQUEST_TIMEOUT_MS),
                                "socket.connection.setup.timeout.ms": 1000}
        self.passed = self.failed = 0
        self.changes, self.looks = None, 0

    def begin(self):
        self.cluster.start()
        admin = AdminClient({"bootstrap.servers": self.cluster.bootstrap})
        self.wait("all know of three", lambda: len(admin.list_topics(timeout=10).brokers) == 3)
        topics = [NewTopic(TOPIC, len(PLACES), 3), NewTopic(LONELY, 1, 3)]
        for created in admin.create_topics(topics).values():
            created.result(30)
        self.senders = [*(self.sender(name) for name in ("one", "two")), *self.more_senders()]
        self.readers = [self.reader(name) for name in ("tail", "again")]
        for client in [*self.senders, *self.readers]:
            client.start()
        self.load_goes_on()

    def more_senders(self):
        """What a subclass has beside the usual load."""
        return []

    def sender(self, name, rate=300, places=PLACES):
        return Steady(name, self.cluster.bootstrap, places, random.Random(self.rng.getrandbits(64)), rate, 1000,
                      **self.client_settings, **self.log_of(name))

    def reader(self, name, **settings):
        """One called `again` begins anew when it is at the end."""
        return Witness(name, self.cluster.bootstrap, PLACES, self.senders, name == "again",
                       **self.client_settings, **settings)

    def log_of(self, name):
        """What an idempotent producer says of its epochs and sequence numbers, beside the brokers' logs."""
        logger = logging.getLogger(name)
        logger.propagate = False
        logger.setLevel(logging.DEBUG)
        handler = logging.FileHandler(os.path.join(self.directory, f"{name}.log"))
        handler.setFormatter(logging.Formatter("%(created).3f %(message)s"))
        logger.addHandler(handler)
        return {"logger": logger, "debug": "eos", "log_level": 7}

    def leader(self, topic=TOPIC):
        """Of the topic's first partition."""
        return self.partitions(topic)[0].leader

    def leaders(self):
        """By place."""
        return {(TOPIC, index): found.leader for index, found in self.partitions(TOPIC).items()}

    def partitions(self, topic):
        """As a broker tells that a client would ask, once all have leaders."""
        found = {}

        def ask():
            nonlocal found
            try:
                admin = AdminClient({"bootstrap.servers": self.cluster.bootstrap, "log_level": 0,
                                     "socket.timeout.ms": 2000})
                found = admin.list_topics(topic, timeout=3).topics[topic].partitions
            except KafkaException:
                found = {}
            return found and all(partition.leader >= 0 for partition in found.values())
        self.wait("leaders", ask)
        return found

    def administer(self, *arguments):
        """Asks a broker that is up."""
        node = next(node for node in range(3) if self.cluster.serves(node))
        return subprocess.run([self.options.binary, "cluster", *arguments, "--bootstrap", self.cluster.address(node)],
                              capture_output=True, text=True, timeout=4 * PATIENCE_SECONDS, check=False)

    def follower(self):
        return self.rng.choice([node for node in range(3) if node != self.leader()])

    def wait(self, what, holds, seconds=PATIENCE_SECONDS):
        wait_until(what, holds, seconds, self.check_clients)

    def check_clients(self):
        check_clients(self.senders, self.readers)

    def load_goes_on(self):
        """Every sender hears of more records, and so does every reader."""
        self.acknowledgements_go_on()
        seen = [reader.count for reader in self.readers]
        self.wait("reads", lambda: all(
            reader.count > count for reader, count in zip(self.readers, seen)))

    def acknowledgements_go_on(self):
        before = [sender.acknowledged_count for sender in self.senders]
        self.wait("acknowledgements", lambda: all(
            sender.acknowledged_count > count + 100 for sender, count in zip(self.senders, before)))

    def away(self, node, how):
        how(node)
        self.load_goes_on()
        self.cluster.restart(node)
        self.cluster.await_all()
        self.load_goes_on()

    def check(self, name, what):
        try:
            what()
            self.passed += 1
            print(f"PASS {name}", flush=True)
        except (AssertionError, KafkaException, OSError, subprocess.SubprocessError) as error:
            self.failed += 1
            print(f"FAIL {name}: {error}", flush=True)
            self.cluster.show_log()
            raise SystemExit(1) from error

    def verdict(self):
        for client in [*self.senders, *self.readers]:
            client.stop()
        for client in [*self.senders, *self.readers]:
            client.join(120)
        self.check_clients()
        copies = self.copies()
        self.judge(copies)
        logs = next(iter(copies.values()))
        acknowledged = sum(sender.acknowledged_count for sender in self.senders)
        read = ", ".join(f"{reader.count} {reader.name}" for reader in self.readers)
        print(f"{acknowledged} records acknowledged, {sum(map(len, logs.values()))} in the log of "
              f"{len(copies)} leaders; read meanwhile: {read}")

    def judge(self, copies):
        logs = next(iter(copies.values()))
        faults = faults_of_histories(logs, self.senders, self.readers) + faults_of_copies(copies)
        if faults:
            self.keep_histories(copies)
        assert not faults, faults[:5]

    def keep_histories(self, copies):
        """As text: (offset, sender, sequence, checksum), and what was acknowledged, sequence to offset."""
        with open(os.path.join(self.directory, "histories.json"), "w", encoding="utf-8") as file:
            json.dump({"logs": {f"{node} {place}": log for node, copy in copies.items()
                                for place, log in copy.items()},
                       "acknowledged": {f"{sender.name} {place}": found for sender in self.senders
                                        for place, found in sender.acknowledged.items()}}, file)

    def copies(self):
        """By node, the whole log as read while it leads."""
        return {"any": read_all(self.cluster.bootstrap, PLACES)}

    def balancer_rests(self):
        """Nothing was changed for a while: it rests between its changes. Of four brokers."""
        name = "tailrace_cluster_balancer_changes_total"
        count = sum(self.cluster.metric(node, name) or 0 for node in range(4))
        self.looks = self.looks + 1 if count == self.changes else 0
        self.changes = count
        return self.looks > 100

    def bucket(self):
        found = subprocess.run([self.options.binary, "object", "verify", "--object-store",
                                f"file://{self.cluster.store}"], capture_output=True, text=True, check=False)
        assert found.returncode == 0 and " 0 error(s)" in found.stdout, found.stdout[-500:] + found.stderr

    def run(self):
        try:
            self.check_all()
        finally:
            self.clean_up()
            print(f"{self.name}: {self.passed} passed, {self.failed} failed (seed {self.options.seed})")

    def clean_up(self):
        self.cluster.clean_up()


def parser_of(text):
    """Of a run's command line: what every run takes."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"))
    return parser


def run_in_directory(run, options, name):
    """In one of its own, which is kept if the run fails."""
    directory = tempfile.mkdtemp(prefix=f"{name}.", dir=os.environ.get("CLUSTER_DIR"))
    try:
        run(options, directory).run()
    except BaseException:
        print(f"data and logs are kept in {directory}; what is in an image: mount -o loop")
        raise
    shutil.rmtree(directory, ignore_errors=True)
