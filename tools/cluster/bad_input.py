"""Three brokers under load, and what operators get wrong: each case is printed as they see it. The load goes on, or
goes on again; at the end nothing acknowledged is lost, doubled or moved.
"""

import os
import shutil
import socket
import subprocess
import uuid
from urllib.request import urlopen

from confluent_kafka import Producer

from brokers import Cluster, free_ports, is_running, read, replace_line  # sets the path to other runs' modules
from strangers import ACCEPTED, VERDICT_VERSION, Strangers, greet, hello, refuse_next
from watched import LONELY, TOPIC, Watched, parser_of, run_in_directory

FLAGS = ["--wal-size", "128MiB", "--set", "offload.age.ms=1000", "--set", "offload.bytes=2097152"]
# Of what a command printed.
LINES_SHOWN = 8
OTHER_CLUSTER = "0190f1a0-0000-4000-8000-0000000000ff"
TAKEN, FORGOTTEN = "another broker that runs has its node id", "the cluster knows this node, and the disk is empty"


class Run(Strangers, Watched):
    name = "bad-input"

    def __init__(self, options, directory):
        super().__init__(options, Cluster(options.binary, directory, free_ports(), FLAGS))
        self.shown = 0

    # Who it is

    def other_cluster(self):
        node = self.follower()
        self.cluster.terminate(node)
        edit = with_line("cluster-id", f'"{OTHER_CLUSTER}"')
        self.refuse(self.edited(node, edit, fresh=False), "`cluster-id`")
        fresh = with_line("data-dir", f'"{self.directory}/other"')
        self.refuse(self.edited(node, lambda text: fresh(edit(text)), fresh=False),
                    "the store belongs to cluster", "--new-cluster")
        self.keep_out(self.edited(node, edit), "the two are of different clusters", "--new-cluster")
        self.forget()
        self.back(node)

    def other_node(self):
        node = self.follower()
        self.cluster.terminate(node)
        path = self.edited(node, with_line("node-id", str((node + 1) % 3)), fresh=False)
        self.refuse(path, "`node-id`")
        self.back(node)

    def second_of_a_node(self):
        """A machine is set up with the file of one that runs: the one that runs stays, whatever flag is
        tried, and so does its disk."""
        node = self.follower()
        path = self.elsewhere(node)
        self.refuse(path, "--new-cluster")
        for flag in ("--new-cluster", "--join"):
            self.keep_out(path, TAKEN, flag)
            self.forget()
        self.load_goes_on()
        os.mkdir(f"{self.directory}/stranger")
        # As of a volume's snapshot.
        shutil.copy(f"{self.directory}/data/{node}/wal", f"{self.directory}/stranger/wal")
        self.keep_out(path, TAKEN)
        self.forget()
        assert self.cluster.serves(node)
        assert self.cluster.metric(node, "tailrace_raft_learner_groups") == 0, "its disk was replaced"
        self.load_goes_on()

    def empty_disk_of_a_node(self):
        """One that is said to begin a cluster which began long ago has forgotten what it promised."""
        node = self.follower()
        self.cluster.terminate(node)
        path = self.edited(node, with_line("data-dir", f'"{self.directory}/stranger"'), fresh=False)
        self.keep_out(path, FORGOTTEN, "--new-cluster")
        # The disk is formatted now.
        self.keep_out(path, FORGOTTEN)
        self.forget()
        self.back(node)

    # What is around it

    def no_majority(self):
        """One of three acknowledges nothing, says so, and loses nothing; it knows the cluster still."""
        nodes = self.rng.sample(range(3), 2)
        alone, = {0, 1, 2} - set(nodes)
        for node in nodes:
            self.cluster.kill(node)
        self.said("groups have no leader, and acknowledge nothing")
        assert self.cluster.metric(alone, "tailrace_raft_leaderless_groups") > 0
        self.acknowledges_nothing()
        self.show_status(alone)
        drained = self.ask(alone, "drain", str(nodes[0]))
        assert drained.returncode == 1 and "no majority" in drained.stderr, drained.stderr
        assert is_running(self.cluster.pids[alone]), "the one that was left ended"
        self.cluster.restart(nodes[0])
        self.load_goes_on()
        self.said("all groups have leaders again")
        self.cluster.restart(nodes[1])
        self.cluster.await_all()
        self.load_goes_on()

    def clocks_apart(self):
        """By an hour, the producers' in between; each broker leads in its time."""
        offsets = {0: "-30m", 1: "+30m", 2: "+0"}
        for node, offset in offsets.items():
            self.cluster.terminate(node)
            self.cluster.restart_in(node, offset)
            self.cluster.await_all()
            self.load_goes_on()
        self.said("its clock is 3600 s ahead of this broker's")
        self.said("its clock is 1800 s behind this broker's")
        for node in offsets:
            moved = self.ask(node, "move", TOPIC, "0", ",".join(str((node + each) % 3) for each in range(3)))
            assert moved.returncode == 0, moved.stderr
            self.wait(f"node {node} leads", lambda node=node: self.leader() == node)
            self.load_goes_on()
        offloads = "tailrace_offload_objects_total"
        before = [self.cluster.metric(node, offloads) for node in offsets]
        self.wait("all offload", lambda: all(
            self.cluster.metric(node, offloads) > count for node, count in zip(offsets, before)))
        for node in offsets:
            self.cluster.terminate(node)
            self.back(node)

    def versions_apart(self):
        """A peer of a later release, which speaks nothing that this one does; as either side of a
        connection."""
        node = self.follower()
        other = next(each for each in range(3) if each != node)
        self.cluster.terminate(node)
        cluster_id = uuid.UUID(self.cluster.cluster_id)
        for versions, expected in (((2, 3), VERDICT_VERSION), ((1, 3), ACCEPTED)):
            verdict = greet(self.peer_address(other), hello(cluster_id, node, other, versions))
            assert verdict == expected, f"versions {versions}: verdict {verdict}"
        self.said("(it speaks 2 to 3, this broker 1 to 1)")
        with socket.create_server(self.peer_address(node)) as server:
            refuse_next(server, VERDICT_VERSION)
            self.said("this broker is not let in: the two speak no version")
        self.load_goes_on()
        self.back(node)

    # Helpers

    def elsewhere(self, node):
        """A configuration file as of the node, on another machine."""
        def edit(text):
            for address in (self.cluster.address(node), self.cluster.admin(node)):
                text = text.replace(f'"{address}"', '"127.0.0.1:0"')
            host, port = self.peer_address(node)
            return text.replace(f'"{node}@{host}:{port}"', f'"{node}@{host}:{self.spare_port}"')
        return self.edited(node, edit)

    @property
    def spare_port(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            return server.getsockname()[1]

    def forget(self):
        """What a stranger had."""
        for name in ("stranger", "stranger-objects"):
            shutil.rmtree(f"{self.directory}/{name}", ignore_errors=True)

    def keep_out(self, config, said, *flags):
        """Both sides say why, and the load goes on."""
        before = len(self.cluster.log())
        with self.stranger(config, *flags) as log:
            self.wait(f"a line of the stranger: {said}", lambda: said in read(log))
            print("".join(f"    {line}\n" for line in lines_with(said, read(log))), end="")
            self.load_goes_on()
        print("".join(f"    {line}\n" for line in lines_with("is not let in", self.cluster.log()[before:])), end="")

    def said(self, what):
        """By one of the cluster's brokers, since the last case began."""
        self.wait(f"a line: {what}", lambda: what in self.cluster.log()[self.shown:])
        print(f"    {lines_with(what, self.cluster.log()[self.shown:])[0]}")

    def back(self, node):
        self.cluster.restart(node)
        self.cluster.await_all()
        self.load_goes_on()

    def ask(self, node, *arguments):
        done = subprocess.run([self.options.binary, "cluster", *arguments, "--bootstrap", self.cluster.address(node)],
                              capture_output=True, text=True, timeout=60, check=False)
        print(f"    tailrace cluster {' '.join(arguments)}: exit {done.returncode}\n"
              + "".join(f"      {line}\n" for line in (done.stdout + done.stderr).splitlines()[:LINES_SHOWN]), end="")
        return done

    def show_status(self, alone):
        done = self.ask(alone, "status")
        assert done.returncode == 0 and "no leader" in done.stdout, done.stdout
        with urlopen(f"http://{self.cluster.admin(alone)}/healthz", timeout=5) as answer:
            assert answer.status == 200, "it lives"

    def acknowledges_nothing(self):
        outcome = []
        producer = Producer({"bootstrap.servers": self.cluster.bootstrap, "acks": "all", "log_level": 0,
                             "message.timeout.ms": 4000, "error_cb": lambda _: None})
        producer.produce(LONELY, b"x", on_delivery=lambda error, _: outcome.append(error))
        producer.flush(60)
        assert outcome and outcome[0], "a record was acknowledged by one of three"

    def check_all(self):
        self.check("three brokers serve, and take a load", self.begin)
        for name, case in (
                ("a broker of another cluster", self.other_cluster),
                ("another node's data", self.other_node),
                ("a node id twice", self.second_of_a_node),
                ("an empty disk in the place of a node's", self.empty_disk_of_a_node),
                ("a majority is lost", self.no_majority),
                ("clocks an hour apart", self.clocks_apart),
                ("versions too far apart", self.versions_apart)):
            print(f"{name}:")
            self.shown = len(self.cluster.log())
            self.check(name, case)
        self.check("nothing acknowledged is lost, doubled or moved", self.verdict)
        self.check("bucket and manifests agree", self.bucket)


def with_line(key, value):
    return lambda text: replace_line(text, key, value)


def lines_with(said, text):
    return [line for line in text.splitlines() if said in line]


run_in_directory(Run, parser_of(__doc__).parse_args(), "bad-input")
