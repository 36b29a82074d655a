"""Partitions move between the groups of three brokers under a steady load, also while their leaders are killed:
producers and consumers go on, and nothing acknowledged is lost, doubled or moved. The time that a partition takes no
records, by the brokers and by the history of a producer, does not grow with it (`--megabytes`, a benchmark).
"""

import os
import shutil
import statistics
import subprocess
import time

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from brokers import Cluster, free_ports  # sets the path to other runs' modules
from timed import CLIENTS, add_arguments
from watched import PATIENCE_SECONDS, PLACES, TOPIC, Watched, parser_of, run_in_directory

FLAGS = ["--wal-size", "128MiB", "--set", "offload.age.ms=1000", "--set", "offload.bytes=2097152",
         "--set", "log.retention.check.interval.ms=2000", "--set", "object.delete.grace.ms=2000"]
MOVED = "tailrace_cluster_partition_moves_total"
SEALED = "tailrace_cluster_partition_sealed_seconds"
MOVE = "tailrace_cluster_partition_move_seconds"


def arguments():
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=2, help="of moves of every partition")
    parser.add_argument("--megabytes", type=int, nargs="*", default=[],
                        help="nothing but figures: partitions of so many, each moved --rounds times")
    add_arguments(parser)
    return parser.parse_args()


class Run(Watched):
    name = "moves"

    def __init__(self, options, directory):
        super().__init__(options, Cluster(options.binary, directory, free_ports(), FLAGS))

    def move(self, topic, partition, first, copies=3):
        brokers = [first, *(node for node in range(3) if node != first)][:copies]
        done = self.administer("move", topic, str(partition), ",".join(map(str, brokers)))
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def follows(self, topic, partition, first):
        """Until the new group's first broker leads it."""
        self.wait(f"broker {first} leads {topic}-{partition}",
                  lambda: self.partitions(topic)[partition].leader == first)

    def elsewhere(self, partition):
        """Where it does not belong now: to ask for its own group's brokers would move nothing."""
        return self.rng.choice([node for node in range(3) if node != self.partitions(TOPIC)[partition].replicas[0]])

    def total(self, name):
        return sum(self.cluster.metric(node, name) or 0 for node in range(3))

    def moves_to_and_fro(self):
        # A move that arrives while its group's leader hands over may be counted by nobody.
        self.wait("partitions are led where they belong",
                  lambda: all(it.leader == it.replicas[0] for it in self.partitions(TOPIC).values()))
        for _, partition in PLACES * self.options.rounds:
            first = self.elsewhere(partition)
            self.move(TOPIC, partition, first)
            self.follows(TOPIC, partition, first)
            self.load_goes_on()
        assert self.total(MOVED) >= len(PLACES) * self.options.rounds, self.total(MOVED)

    def moves_while_brokers_are_killed(self):
        for side in ("the one that has it", "the one that gets it"):
            partition = self.rng.randrange(len(PLACES))
            first = self.elsewhere(partition)
            victim = self.partitions(TOPIC)[partition].leader if side == "the one that has it" else first
            self.move(TOPIC, partition, first)
            self.cluster.kill(victim)
            self.load_goes_on()
            self.cluster.restart(victim)
            self.cluster.await_all()
            self.follows(TOPIC, partition, first)
            self.load_goes_on()

    def is_called_off(self):
        first = self.elsewhere(0)
        self.move(TOPIC, 0, first)
        # It may be there already: then there is nothing to call off.
        done = self.administer("move", TOPIC, "0", "--cancel")
        assert done.returncode == 0 or len(done.stderr.splitlines()) == 1, done.stderr
        self.wait("nothing moves", lambda: "moves" not in self.administer("status").stdout)
        self.load_goes_on()

    def copies_change(self):
        """Groups are made for brokers that none has its copies on, and for topics that want fewer."""
        for copies in (2, 1, 3):
            first = self.elsewhere(1)
            self.move(TOPIC, 1, first, copies)
            self.follows(TOPIC, 1, first)
            replicas = self.partitions(TOPIC)[1].replicas
            assert len(replicas) == copies and replicas[0] == first, replicas
            self.load_goes_on()
        admin = AdminClient({"bootstrap.servers": self.cluster.bootstrap})
        for copies in (1, 2, 3):
            name = f"copies-{copies}"
            admin.create_topics([NewTopic(name, 6, copies)])[name].result(30)
            found = self.partitions(name).values()
            assert all(len(it.replicas) == copies for it in found), [it.replicas for it in found]
            assert {it.replicas[0] for it in found} == {0, 1, 2}, "each broker leads some"

    def others_are_refused(self):
        for asked in (["0,1,7"], ["0,0,1"]):
            done = self.administer("move", TOPIC, "0", *asked)
            assert done.returncode != 0 and len(done.stderr.splitlines()) == 1, done.stderr + done.stdout
        done = self.administer("move", "nowhere", "0", "0,1,2")
        assert done.returncode != 0 and len(done.stderr.splitlines()) == 1, done.stderr

    def all_start_anew(self):
        for node in range(3):
            self.cluster.kill(node)
        for node in range(3):
            self.cluster.restart(node)
        self.cluster.await_all()
        self.load_goes_on()

    def check_all(self):
        self.check("three brokers serve, and take a load", self.begin)
        if self.options.megabytes:
            return self.measure()
        self.check("every partition moves to and fro", self.moves_to_and_fro)
        self.check("also while a broker is killed", self.moves_while_brokers_are_killed)
        self.check("a move is called off", self.is_called_off)
        self.check("the number of copies changes", self.copies_change)
        self.check("what cannot be is refused", self.others_are_refused)
        self.check("all start anew", self.all_start_anew)
        self.check("nothing acknowledged is lost, doubled or moved", self.verdict)
        self.check("bucket and manifests agree", self.bucket)
        self.check("all disks are lost: what is rebuilt from the bucket is all there was", self.disaster)
        self.check("bucket and manifests agree after that", self.bucket)

    def disaster(self):
        """One broker is rebuilt, the others take their places with empty disks."""
        self.wait("all is offloaded", lambda: self.total("tailrace_offload_lag_bytes") == 0)
        for node in range(3):
            self.cluster.kill(node)
            shutil.rmtree(os.path.join(self.directory, "data", str(node)))
        done = subprocess.run([self.options.binary, "recover", "--object-store", f"file://{self.cluster.store}",
                               "--data-dir", os.path.join(self.directory, "data", "1"), "--wal-size", "128MiB",
                               "--node-id", "1"], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0 and "; 0 damaged" in done.stdout, done.stdout[-1000:] + done.stderr
        self.cluster.restart(1)
        self.wait("it serves alone", lambda: self.cluster.serves(1))
        self.judge(self.copies())
        for node in (0, 2):
            self.cluster.restart(node, "--replacement")
        self.cluster.await_all()
        self.wait("all have their places", lambda: all(map(self.cluster.has_its_place, (0, 2))))
        self.cluster.kill(1)  # What it alone had the others have now.
        self.wait("others lead", lambda: all(it.leader != 1 for it in self.partitions(TOPIC).values()))
        self.judge(self.copies())
        self.cluster.restart(1)
        self.cluster.await_all()

    def measure(self):
        """Of each size: from the request until the other broker serves, how long no record was taken, and the longest
        time between two acknowledgements around a move."""
        for client in [*self.senders, *self.readers]:
            client.stop()
        print("MiB     moves  request to serving, mean s   takes no records, mean s   "
              f"{self.options.client} waits, p50 ms, worst ms")
        for megabytes in self.options.megabytes:
            topic = f"large-{megabytes}"
            self.fill(topic, megabytes)
            before = [self.total(f"{name}_{part}") for name in (MOVE, SEALED) for part in ("sum", "count")]
            load = CLIENTS[self.options.client](self.cluster.bootstrap, (topic, 0), self.options)
            load.start()
            gaps = [self.gap(topic, load) for _ in range(self.options.rounds)]
            load.stop()
            after = [self.total(f"{name}_{part}") for name in (MOVE, SEALED) for part in ("sum", "count")]
            took, moves, sealed, seals = [now - then for now, then in zip(after, before)]
            print(f"{megabytes:<8}{moves:<7.0f}{took / moves:<29.3f}{sealed / seals:<27.3f}"
                  f"{statistics.median(gaps):.0f} {max(gaps):.0f}", flush=True)

    def gap(self, topic, load):
        """Of one move, in milliseconds."""
        time.sleep(1)
        began = time.monotonic()
        first = (self.partitions(topic)[0].leader + 1) % 3
        self.move(topic, 0, first)
        self.follows(topic, 0, first)
        time.sleep(0.3)
        return load.longest_gap_ms(began)

    def fill(self, topic, megabytes):
        admin = AdminClient({"bootstrap.servers": self.cluster.bootstrap})
        admin.create_topics([NewTopic(topic, 1, 3)])[topic].result(30)
        producer = Producer({"bootstrap.servers": self.cluster.bootstrap, "acks": "all", "linger.ms": 20,
                             "batch.size": 1 << 20, "queue.buffering.max.kbytes": 64 << 10})
        payload = os.urandom(16 << 10)
        for _ in range(megabytes * 64):
            while True:
                try:
                    producer.produce(topic, payload, partition=0)
                    break
                except BufferError:
                    producer.poll(0.1)
        assert producer.flush(600) == 0, "not all was taken"


run_in_directory(Run, arguments(), "moves")
