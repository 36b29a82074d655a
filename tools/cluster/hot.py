"""Partitions that keep one of three brokers busy are spread over all, with nobody asking for it: under a load that leans
on one broker, and with clients whose histories are judged in the end.
"""

from brokers import Cluster, free_ports  # sets the path to other runs' modules
from watched import PLACES, TOPIC, Watched, parser_of, run_in_directory

# Of a machine that three brokers share with their clients no core works for much of its time.
FLAGS = ["--wal-size", "128MiB", "--set", "balancer.busy.percent=1", "--set", "offload.age.ms=1000"]
CHANGES = "tailrace_cluster_balancer_changes_total"
BUSY = "tailrace_core_busy_thousandths"
WAIT_SECONDS_MAX = 240


class Run(Watched):
    name = "hot"

    def __init__(self, options, directory):
        super().__init__(options, Cluster(options.binary, directory, free_ports(), FLAGS))
        self.loads = []

    def more_senders(self):
        """Two partitions have most of the load: either alone makes a difference elsewhere."""
        return [self.sender("heavy", 1200, PLACES[:2])]

    def busy(self):
        return [self.cluster.metric(node, BUSY) for node in range(3)]

    def led(self):
        """By broker: the topic's partitions that it leads."""
        leaders = [it.leader for it in self.partitions(TOPIC).values()]
        return [leaders.count(node) for node in range(3)]

    def lean_on_one(self):
        busiest = 1
        brokers = ",".join(map(str, [busiest, 0, 2]))
        for _, partition in PLACES:
            done = self.administer("move", TOPIC, str(partition), brokers)
            assert done.returncode == 0, done.stderr
        self.wait("one broker leads all", lambda: self.led()[busiest] == len(PLACES))
        self.load_goes_on()

    def is_spread(self):
        before = sum(self.cluster.metric(node, CHANGES) for node in range(3))
        self.wait("another broker leads some", self.others_lead_some, WAIT_SECONDS_MAX)
        assert sum(self.cluster.metric(node, CHANGES) for node in range(3)) > before
        print(f"thousandths of its time that each broker worked before: {self.loads[-1]}, partitions led: {self.led()}")
        self.load_goes_on()

    def others_lead_some(self):
        self.loads.append(self.busy())
        return max(self.led()) < len(PLACES)

    def check_all(self):
        self.check("three brokers serve, and take a load", self.begin)
        self.check("one of them leads all of it", self.lean_on_one)
        self.check("a busy core is relieved", self.is_spread)
        self.check("nothing acknowledged is lost, doubled or moved", self.verdict)


run_in_directory(Run, parser_of(__doc__).parse_args(), "hot")
