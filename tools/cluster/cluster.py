"""Three real brokers under a steady load, and everything that may happen to one of them.

After each fault the load must go on; at the end every acknowledged record is in the log once, in
order and at its offset, and nothing that a reader saw has changed. The verdict is by contents and
counts; times only say how long a thing is waited for.
"""

import os
import signal
import subprocess

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from brokers import Cluster, free_ports, is_running, read  # sets the path to other runs' modules
from certificates import Authority, with_settings
from strangers import Strangers
from watched import LONELY, PATIENCE_SECONDS, PLACES, TOPIC, Watched, parser_of, run_in_directory
from wire import NONE, NOT_LEADER_OR_FOLLOWER, OUT_OF_ORDER_SEQUENCE_NUMBER, produce

FLAGS = ["--wal-size", "128MiB", "--set", "offload.age.ms=1000", "--set", "offload.bytes=2097152",
         "--set", "num.partitions=3"]
# Above the WAL of a broker that is away meanwhile.
BULK_BYTES = 300_000_000


def arguments():
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=2, help="of each fault")
    return parser.parse_args()


class Run(Strangers, Watched):
    name = "cluster"

    def __init__(self, options, directory):
        super().__init__(options, Cluster(options.binary, directory, free_ports(), FLAGS))

    # What is done to the brokers; each leaves all three serving.

    def kill_leader(self):
        self.away(self.leader(), self.cluster.kill)

    def kill_follower(self):
        self.away(self.follower(), self.cluster.kill)

    def stop_leader(self):
        self.away(self.leader(), self.cluster.terminate)

    def pause_leader(self):
        node = self.leader()
        self.cluster.signal(node, signal.SIGSTOP)
        self.wait("another leader", lambda: self.leader() != node)
        self.load_goes_on()
        self.cluster.signal(node, signal.SIGCONT)
        self.load_goes_on()

    def preferred_leads_again(self):
        """The first replica, once it has been back for a while; so each broker leads something."""
        preferred = {found.replicas[0] for found in self.partitions(TOPIC).values()}
        assert preferred == {0, 1, 2}, f"only {preferred} are to lead"
        self.away(self.leader(), self.cluster.kill)

        def all_lead():
            found = self.partitions(TOPIC).values()
            return all(partition.leader == partition.replicas[0] for partition in found)
        self.wait("the preferred brokers lead", all_lead)
        self.load_goes_on()

    def return_after_compaction(self):
        """What a broker missed is gone from the others' WALs: it takes a snapshot, and can lead."""
        node = self.follower()
        self.cluster.kill(node)
        self.wait("the others lead", lambda: node not in self.leaders().values())
        before = self.count("bulk")
        said = []
        for _ in range(5):
            # Whoever leads now: the preferred broker may have got its leadership back.
            load = [self.options.binary, "bench", "produce", "--bootstrap", self.cluster.address(self.leader()), "--topic",
                    "bulk", "--partitions", "3", "--connections", "3", "--rate", "20000", "--batch-records", "100",
                    "--seconds", str(BULK_BYTES / 1024 / 20_000), "--warmup", "0", "--sleep"]
            # A machine that cannot offload as fast has records refused, and the program say so.
            done = subprocess.run(load, check=False, capture_output=True, text=True)
            said.append(done.stderr.strip())
            written = self.count("bulk")
            if (written - before) * 1024 > 2 * (128 << 20):
                break
        assert (written - before) * 1024 > 2 * (128 << 20), f"{before} to {written} records: {said}"
        self.cluster.restart(node)
        self.cluster.await_all()
        # Which of two is elected is not known: leadership goes around until that one has it.
        for _ in range(20):
            leader = self.leader()
            if leader == node:
                break
            self.away(leader, self.cluster.kill)
        assert self.leader() == node, "the broker that was away never led"
        assert self.count("bulk") == written, "records are missing"
        self.load_goes_on()

    def keep_groups(self):
        """What a group committed is known to the next leader."""
        group = f"group-{self.rng.getrandbits(32)}"
        committed = [TopicPartition(*place, 100 + index) for index, place in enumerate(PLACES)]
        with_group(self.cluster.bootstrap, group, lambda it: it.commit(offsets=committed, asynchronous=False))
        self.kill_leader()
        found = with_group(self.cluster.bootstrap, group, lambda it: it.committed(committed, 30))
        assert [each.offset for each in found] == [each.offset for each in committed], found

    def only_the_leader_judges(self):
        """A follower's word on a sequence number would be taken for the leader's: librdkafka then
        takes a new epoch, and sends again what was appended."""
        producer_id = 1 << 40
        leader = self.leader(LONELY)

        def ask(node, sequence):
            return produce(self.cluster.address(node), LONELY, producer_id, sequence)

        assert [ask(leader, each) for each in (0, 1, 5)] == [NONE, NONE, OUT_OF_ORDER_SEQUENCE_NUMBER]
        for node in {0, 1, 2} - {leader}:
            # The next one, a repeat, and one that leaves some out.
            codes = [ask(node, each) for each in (2, 0, 5)]
            assert codes == [NOT_LEADER_OR_FOLLOWER] * 3, (node, codes)

    # Disks

    def lost_disk_is_refused(self):
        """A voter that has forgotten what it acknowledged must not vote."""
        node = self.follower()
        self.cluster.terminate(node)
        self.cluster.swap_data(node, "lost")
        self.refuse(self.cluster.config(node), "--new-cluster")
        os.rename(f"{self.directory}/data/{node}.lost", f"{self.directory}/data/{node}")
        self.cluster.restart(node)
        self.cluster.await_all()

    def replace_disk(self):
        """It has its place again without a copy of the log, and then it is one of the two that a
        majority needs. The disk that was lost never counts again."""
        node = self.follower()
        self.cluster.kill(node)
        self.cluster.swap_data(node, "lost")
        self.cluster.restart(node, "--replacement")
        self.wait("the replacement votes", lambda: self.cluster.has_its_place(node))
        self.load_goes_on()
        third, = {0, 1, 2} - {node, self.leader()}
        self.away(third, self.cluster.kill)
        self.return_of_lost_disk(node)

    def return_of_lost_disk(self, node):
        self.cluster.terminate(node)
        self.cluster.swap_data(node, "lost")
        before = len(self.cluster.log())
        self.cluster.restart(node)
        said = "the node's disk was replaced"
        self.wait(f"a line: {said}", lambda: said in self.cluster.log()[before:])
        self.load_goes_on()
        self.cluster.kill(node)
        self.cluster.swap_data(node, "lost")
        self.cluster.restart(node)
        self.cluster.await_all()

    # TLS between brokers

    def turn_to_tls(self):
        """One broker after the other, under load. Those with and those without TLS do not talk, so
        the majority is on the other side once the second has it."""
        self.authority = Authority(f"{self.directory}/authority", self.cluster.cluster_id)
        for number, node in enumerate(self.rng.sample(range(3), 3)):
            self.cluster.terminate(node)
            self.cluster.secure(node, self.authority)
            self.cluster.restart(node)
            if number == 0:
                for said in (f"node {node}: it speaks TLS and this broker does not", "it does not speak TLS"):
                    self.wait(f"a line: {said}", lambda said=said: said in self.cluster.log())
            self.load_goes_on()
        self.cluster.await_all()
        self.kill_leader()

    def other_certificates_are_refused(self):
        node = self.follower()
        self.cluster.terminate(node)
        others = self.authority.settings((node + 1) % 3)
        path = self.edited(node, lambda text: with_settings(text, others), fresh=False)
        self.refuse(path, "`peer-tls-certificate`")
        # With the right names, and signed by somebody else.
        strangers = Authority(f"{self.directory}/strangers", self.cluster.cluster_id).settings(node)
        path = self.edited(node, lambda text: with_settings(text, strangers), fresh=False)
        before = len(self.cluster.log())
        with self.stranger(path, "--new-cluster") as log:
            said = "no authority in `peer-tls-ca` signed the certificate"
            self.wait("a line of the stranger", lambda: said in read(log))
            self.wait("a line of the others", lambda: f"node {node}: TLS: {said}" in self.cluster.log()[before:])
        self.cluster.restart(node)
        self.cluster.await_all()
        self.load_goes_on()

    def start_anew(self):
        """All at once; and now all three are the parent's again, and plain."""
        self.cluster.stop()
        self.cluster.start()
        self.cluster.await_all()
        self.load_goes_on()

    def stop_all(self):
        pids = list(self.cluster.pids.values())
        status = self.cluster.stop()
        assert status == 0, f"the parent ended with {status}"
        assert not any(is_running(pid) for pid in pids), "a broker outlived its parent"

    def lose_parent(self):
        self.cluster.start()
        pids = list(self.cluster.pids.values())
        self.cluster.parent.kill()
        self.cluster.parent.wait()
        self.wait("the brokers end", lambda: not any(is_running(pid) for pid in pids))
        self.cluster.pids = {}

    # Helpers

    def count(self, topic):
        def look(consumer):
            found = consumer.list_topics(topic, timeout=30).topics[topic].partitions
            ends = [consumer.get_watermark_offsets(TopicPartition(topic, each), 30) for each in found]
            return sum(end - start for start, end in ends)
        try:
            return with_group(self.cluster.bootstrap, "count", look)
        except KafkaException:
            return 0

    def check_all(self):
        self.check("three brokers serve, and take a load", self.begin)
        faults = [("the leader is killed", self.kill_leader), ("a follower is killed", self.kill_follower),
                  ("the leader is paused", self.pause_leader), ("the leader stops", self.stop_leader)]
        schedule = faults * self.options.rounds
        self.rng.shuffle(schedule)
        for name, fault in schedule:
            self.check(name, fault)
        self.check("a broker returns after its part of the log was compacted", self.return_after_compaction)
        self.check("a group's offsets are known to the next leader", self.keep_groups)
        self.check("only the leader judges a producer", self.only_the_leader_judges)
        self.check("each broker leads what it is preferred for", self.preferred_leads_again)
        self.check("a member without its disk is refused", self.lost_disk_is_refused)
        self.check("a member with an empty disk has its place again", self.replace_disk)
        self.check("all turn to TLS, and go on", self.turn_to_tls)
        self.check("certificates of others are refused", self.other_certificates_are_refused)
        self.check("all stop, and start again", self.start_anew)
        self.check("nothing acknowledged is lost, doubled or moved", self.verdict)
        self.check("stopping the parent stops all", self.stop_all)
        self.check("bucket and manifests agree", self.bucket)
        self.check("the end of the parent is the end of all", self.lose_parent)


def with_group(bootstrap, group, work):
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False,
                         "log_level": 0, "error_cb": lambda _: None})
    try:
        return work(consumer)
    finally:
        consumer.close()


run_in_directory(Run, arguments(), "cluster")
