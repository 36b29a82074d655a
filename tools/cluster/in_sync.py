"""Three brokers of which all have to be in sync, by `min.insync.replicas`, and producers with `acks=all`: with one
broker away nothing is acknowledged, and nothing is written; when it is back all goes on, and nothing is lost or
there twice. A single broker of which two would have to be in sync takes nothing with `acks=all`.
"""

import os
import time

from confluent_kafka.admin import AdminClient, NewTopic

from brokers import START_SECONDS_MAX, Brokers, Cluster, free_ports  # sets the path to other runs' modules
from waiting import wait_until
from watched import LONELY, TOPIC, Watched, parser_of, run_in_directory
from wire import NONE, NOT_ENOUGH_REPLICAS, NOT_LEADER_OR_FOLLOWER, produce

FLAGS = ["--wal-size", "128MiB", "--set", "min.insync.replicas=3"]
NO_PRODUCER = -1


def arguments():
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    return parser.parse_args()


class Alone(Brokers):
    """A single broker."""

    def __init__(self, binary, directory, ports):
        super().__init__(binary, os.path.join(directory, "alone"))
        self._listen, self._admin = ports

    def address(self, node):
        return f"127.0.0.1:{self._listen + node}"

    def admin(self, node):
        return f"127.0.0.1:{self._admin + node}"

    def log_path(self, node):
        return f"{self.directory}.log"

    def start(self):
        self.spawn(0, [self.binary, "dev", "--data-dir", self.directory, "--listen", self.address(0), "--admin",
                       self.admin(0), "--cores", "1", "--wal-size", "64MiB", "--set", "min.insync.replicas=2"])
        wait_until("it serves", lambda: self.serves(0), START_SECONDS_MAX)


class Run(Watched):
    name = "in sync"

    def __init__(self, options, directory):
        super().__init__(options, Cluster(options.binary, directory, free_ports(), FLAGS))

    def lose_follower(self):
        self.lose(self.follower())

    def lose_leader(self):
        self.lose(self.leader())

    def lose(self, node):
        self.cluster.kill(node)
        self.wait("the broker is not in sync", lambda: node not in self.in_sync())
        self.wait("acks=all is refused", lambda: self.ask() == NOT_ENOUGH_REPLICAS)
        self.stands_still()
        self.begin_late()
        assert self.ask(acks=1) == NONE, "acks=1 does not ask for others"
        self.stands_still()
        self.cluster.restart(node)
        self.cluster.await_all()
        self.load_goes_on()
        self.wait("all are in sync", lambda: self.in_sync() == {0, 1, 2})
        assert self.ask() == NONE

    def begin_late(self):
        """A producer whose first batches of all are refused."""
        name = f"late-{len(self.senders)}"
        late = self.sender(name, rate=200)
        for reader in self.readers:
            reader._senders[name] = late
        self.senders.append(late)
        late.start()

    def stands_still(self):
        time.sleep(1)
        before = [sender.acknowledged_count for sender in self.senders]
        time.sleep(1)
        assert before == [sender.acknowledged_count for sender in self.senders], "acknowledged by two of three"

    def in_sync(self):
        """As a broker tells that a client would ask."""
        admin = AdminClient({"bootstrap.servers": self.cluster.bootstrap, "log_level": 0})
        return set(admin.list_topics(TOPIC, timeout=10).topics[TOPIC].partitions[0].isrs)

    def ask(self, acks=-1):
        """What the leader says of a record; leadership may go back to whom it belongs meanwhile."""
        said = NOT_LEADER_OR_FOLLOWER

        def ask_all():
            nonlocal said
            for node in self.cluster.pids:
                if said == NOT_LEADER_OR_FOLLOWER:
                    said = produce(self.cluster.address(node), LONELY, NO_PRODUCER, -1, acks=acks)
            return said != NOT_LEADER_OR_FOLLOWER
        self.wait("a leader answers", ask_all)
        return said

    def single(self):
        alone = Alone(self.options.binary, self.directory, free_ports())
        try:
            alone.start()
            admin = AdminClient({"bootstrap.servers": alone.address(0)})
            [created] = admin.create_topics([NewTopic(LONELY, 1, 1)]).values()
            created.result(30)
            codes = [produce(alone.address(0), LONELY, NO_PRODUCER, -1, acks=acks) for acks in (-1, 1)]
            assert codes == [NOT_ENOUGH_REPLICAS, NONE], codes
        finally:
            alone.stop()

    def check_all(self):
        self.check("three brokers serve, and take a load", self.begin)
        for _ in range(self.options.rounds):
            self.check("with a follower away nothing is acknowledged, and then all", self.lose_follower)
            self.check("with the leader away nothing is acknowledged, and then all", self.lose_leader)
        self.check("a single broker takes nothing for two", self.single)
        self.check("nothing acknowledged is lost, doubled or moved", self.verdict)


run_in_directory(Run, arguments(), "in-sync")
