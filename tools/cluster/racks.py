"""Three brokers in racks a, b and c, and consumers in rack b: they read everything there, also what that broker
does not lead, and from the leader while it is away. What they read is what was acknowledged, once.
"""

import signal

from confluent_kafka.admin import AdminClient

from brokers import Cluster, free_ports  # sets the path to other runs' modules
from watched import Watched, parser_of, run_in_directory

RACKS = "abc"
# In whose rack the consumers are.
NEAR = 1
# librdkafka goes to another replica than the leader once in 60 s for each partition, and two changes of leaders may follow
# each other.
NEARBY_SECONDS = 150
FLAGS = ["--wal-size", "128MiB", "--set", "offload.age.ms=1000", "--set", "offload.bytes=2097152",
         "--set", "replica.selector.class=org.apache.kafka.common.replica.RackAwareReplicaSelector"]


class Run(Watched):
    name = "racks"

    def __init__(self, options, directory):
        super().__init__(options, Cluster(options.binary, directory, free_ports(), FLAGS))

    def begin(self):
        super().begin()
        for reader in self.readers:
            reader.stop()
            reader.join(60)
        self.readers = []

    def put_into_racks(self):
        """One after the other, as an operator would."""
        for node, rack in enumerate(RACKS):
            self.cluster.terminate(node)
            self.cluster.configure(node, {"rack": rack})
            self.cluster.restart(node)
            self.cluster.await_all()
            self.acknowledgements_go_on()
        self.wait("the racks are told", lambda: self.racks() == dict(enumerate(RACKS)))

    def racks(self):
        admin = AdminClient({"bootstrap.servers": self.cluster.bootstrap})
        return {node.id: node.rack for node in admin.describe_cluster(request_timeout=10).result().nodes}

    def read_nearby(self):
        # Another broker leads what the first partition is in.
        self.wait("another broker leads", lambda: self.leader() != NEAR)
        self.readers = [self.reader(name, **{"client.rack": RACKS[NEAR]}) for name in ("near", "again")]
        for reader in self.readers:
            reader.start()
        self.load_goes_on()
        self.all_is_read_nearby()
        for metric in ("tailrace_fetch_follower_bytes_total", "tailrace_fetch_object_bytes_total"):
            self.wait(metric, lambda metric=metric: self.cluster.metric(NEAR, metric) > 0)

    def all_is_read_nearby(self):
        """The others serve nothing while much is read."""
        def holds():
            before = self.served_elsewhere()
            self.load_goes_on()
            return self.served_elsewhere() == before
        self.wait("all is read in rack b", holds, NEARBY_SECONDS)

    def served_elsewhere(self):
        return [self.cluster.metric(node, "tailrace_fetch_bytes_total") for node in range(3) if node != NEAR]

    def without_it(self):
        before = self.served_elsewhere()
        self.load_goes_on()
        self.wait("the others serve", lambda: sum(self.served_elsewhere()) > sum(before))

    def lose_it(self):
        self.cluster.kill(NEAR)
        self.without_it()
        self.cluster.restart(NEAR)
        self.cluster.await_all()
        self.all_is_read_nearby()

    def pause_it(self):
        """It stands still, and when it goes on it knows that it did not hear the leader."""
        self.cluster.signal(NEAR, signal.SIGSTOP)
        self.without_it()
        self.cluster.signal(NEAR, signal.SIGCONT)
        self.cluster.await_all()
        self.all_is_read_nearby()

    def change_leader(self):
        self.away(self.leader(), self.cluster.kill)
        self.all_is_read_nearby()

    def check_all(self):
        self.check("three brokers serve, and take a load", self.begin)
        self.check("they are put into racks", self.put_into_racks)
        self.check("consumers in rack b read there", self.read_nearby)
        self.check("another leader, and they still do", self.change_leader)
        self.check("its broker is killed, and they read from the leader", self.lose_it)
        self.check("it is paused, and they read from the leader", self.pause_it)
        self.check("nothing acknowledged is lost, doubled or moved", self.verdict)


run_in_directory(Run, parser_of(__doc__).parse_args(), "racks")
