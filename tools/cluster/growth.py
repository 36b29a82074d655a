"""A cluster of three that gets a fourth broker and then loses one of the three for good, under a steady load: the
new one takes its part of the copies and leads, the one that is drained has none in the end and is removed, and
is kept out when it comes back. Nothing acknowledged is lost, doubled or moved.
"""

import subprocess

from confluent_kafka.admin import AdminClient

from brokers import Cluster, free_ports  # sets the path to other runs' modules
from watched import PATIENCE_SECONDS, TOPIC, Watched, parser_of, run_in_directory

FLAGS = ["--wal-size", "128MiB", "--set", "offload.age.ms=1000", "--set", "offload.bytes=2097152"]
NEW, OLD = 3, 0


class Run(Watched):
    name = "growth"

    def __init__(self, options, directory):
        super().__init__(options, Cluster(options.binary, directory, free_ports(), FLAGS))

    def administer(self, *arguments, bootstrap=1):
        done = subprocess.run([self.options.binary, "cluster", *arguments, "--bootstrap",
                               self.cluster.address(bootstrap)],
                              capture_output=True, text=True, timeout=4 * PATIENCE_SECONDS, check=False)
        print(f"tailrace cluster {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}", end="")
        return done

    def strangers_stay_out(self):
        """A broker that nobody added is told so, and the cluster goes on."""
        self.peer_address = self.cluster.configure_new(NEW)
        self.cluster.restart(NEW, "--join")
        said = "it is not one of the cluster's brokers"
        self.wait(f"a line: {said}", lambda: said in self.cluster.log())
        self.cluster.kill(NEW)
        self.load_goes_on()

    def grow(self):
        done = self.administer("add", f"{NEW}@{self.peer_address}")
        assert done.returncode == 0 and "--join" in done.stdout, done.stdout
        again = self.administer("add", f"{NEW}@{self.peer_address}")
        assert again.returncode != 0 and len(again.stderr.splitlines()) == 1, again.stderr
        self.cluster.restart(NEW, "--join")
        self.wait("the new broker serves", lambda: self.cluster.serves(NEW))
        self.load_goes_on()

    def gets_its_part(self):
        self.wait("the new broker has copies", lambda: self.held(NEW) > 0)
        self.wait("the balancer has done", self.balancer_rests)
        self.load_goes_on()

    def new_one_counts(self):
        """It is one of the two that a majority of its groups needs."""
        other = next(node for node in (1, 2) if node != self.leader())
        self.cluster.kill(other)
        self.load_goes_on()
        self.cluster.restart(other)
        self.wait("it serves again", lambda: self.cluster.serves(other))

    def drain(self):
        early = self.administer("remove", str(NEW + 5))
        assert early.returncode != 0 and len(early.stderr.splitlines()) == 1, early.stderr
        done = self.administer("drain", str(OLD))
        assert done.returncode == 0, done.stderr
        assert self.held(OLD) == 0, "it has copies still"
        self.load_goes_on()

    def remove(self):
        done = self.administer("remove", str(OLD))
        assert done.returncode == 0, done.stderr
        self.wait("it is not listed any more", lambda: OLD not in self.listed())
        self.cluster.kill(OLD)
        self.load_goes_on()

    def return_of_the_removed(self):
        before = len(self.cluster.log())
        self.cluster.restart(OLD)
        said = "it is not one of the cluster's brokers"
        self.wait(f"a line: {said}", lambda: said in self.cluster.log()[before:])
        self.load_goes_on()
        assert OLD not in self.listed(), "it is a broker again"
        self.cluster.kill(OLD)

    def all_start_anew(self):
        """What was decided is on the disks of those who stay."""
        nodes = [1, 2, NEW]
        for node in nodes:
            self.cluster.kill(node)
        for node in nodes:
            self.cluster.restart(node)
        self.wait("all serve", lambda: all(map(self.cluster.serves, nodes)))
        self.load_goes_on()

    def held(self, node):
        return sum(node in found.replicas for found in self.partitions(TOPIC).values())

    def listed(self):
        admin = AdminClient({"bootstrap.servers": self.cluster.address(1), "log_level": 0})
        return set(admin.list_topics(timeout=10).brokers)

    def check_all(self):
        self.check("three brokers serve, and take a load", self.begin)
        self.check("a broker that nobody added stays out", self.strangers_stay_out)
        self.check("a fourth broker joins", self.grow)
        self.check("it gets its part", self.gets_its_part)
        self.check("it counts", self.new_one_counts)
        self.check("one of the first is drained", self.drain)
        self.check("and removed", self.remove)
        self.check("and kept out when it comes back", self.return_of_the_removed)
        self.check("all start anew", self.all_start_anew)
        self.check("nothing acknowledged is lost, doubled or moved", self.verdict)


run_in_directory(Run, parser_of(__doc__).parse_args(), "growth")
